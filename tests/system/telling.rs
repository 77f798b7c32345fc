//! Devices are told that they are rolled: each by a call, or many by one job of the hub.

use crate::device::is_assigned;
use crate::process::until;
use crate::request::Request;
use crate::stage::Stage;
use dps_emulator::{Action, Fault, MethodAnswer};
use serde_json::json;
use std::collections::BTreeSet;

const GROUP: [&str; 6] = [
    "enrollment",
    "add",
    "--group",
    "line-1",
    "--authority",
    "line-1",
];

/// A stage with these devices provisioned, each with an enrollment of its own or below a group.
fn with_devices(ids: &[&str], grouped: bool) -> Stage {
    let stage = Stage::up();
    let station = stage.station();
    if grouped {
        stage.told(&GROUP);
    }
    for id in ids {
        if !grouped {
            stage.told(&["enrollment", "add", "--individual", id]);
        }
        let device = station.obtain(&Request::device(id));
        stage.is_in_step();
        is_assigned(&stage.emulator, &device);
    }
    stage
}

fn is_online(stage: &Stage, id: &str) {
    let (status, payload) = (200, json!({}));
    stage
        .emulator
        .simulate_device(id, MethodAnswer { status, payload });
}

fn restart_with(stage: &mut Stage, policy: &str) {
    let configuration = stage.configuration();
    stage.configure(&format!("{configuration}\n[policy]\n{policy}\n"));
    stage.restart();
}

/// Verifies: policy rolls three devices, and one job tells them, although the answer to its order
/// never came and the daemon was killed meanwhile; all three rolls say what came of it, and no job
/// is ordered twice.
#[test]
fn one_job_tells_a_batch_of_devices_over_a_crash() {
    let ids = ["press-7", "press-8", "press-9"];
    let mut stage = with_devices(&ids, false);
    is_online(&stage, "press-7");
    is_online(&stage, "press-8");
    let unanswered = Fault::on("job.put", Action::HangAfter);
    stage.emulator.inject(unanswered).unwrap();
    restart_with(
        &mut stage,
        "renew_before = \"91d\"\nrenew_jitter = \"0s\"\ntell_devices = \"job\"",
    );
    until("the job is ordered", || {
        stage.emulator.faults().is_empty().then_some(())
    });
    stage.kill();
    stage.start();
    stage.is_ready();
    // One job, as a rule; on a machine so slow that the rolls begin seconds apart, two or three.
    until("all rolls know what came of it", || {
        let rolls = stage.json(&["roll", "list", "--open"]);
        let told: Vec<_> = rolls
            .as_array()?
            .iter()
            .filter_map(|roll| roll["told"].as_str())
            .filter(|told| {
                told.starts_with("1 of 1 done; 1 of 1 jobs") && told.contains("have ended")
            })
            .collect();
        (told.len() == 3).then_some(())
    });
    let orders = stage.emulator.requests_of("job.put");
    let jobs: BTreeSet<_> = orders.iter().map(|order| &order.path).collect();
    assert_eq!(jobs.len(), orders.len(), "a job was ordered twice");
    assert_eq!(stage.emulator.requests_of("hub.method").len(), 0);
}

/// Verifies: at the cut-over of an authority all devices below it are told, while the hub throttles
/// and fails; `roll show` has the numbers.
#[test]
fn the_devices_below_an_authority_are_told_at_its_cut_over() {
    let mut stage = with_devices(&["press-7", "press-8"], true);
    is_online(&stage, "press-8");
    restart_with(&mut stage, "tell_devices = \"job\"");
    for (call, action) in [
        ("job.get", Action::status(500)),
        ("job.put", Action::throttle(1)),
        ("job.put", Action::ResetBefore),
    ] {
        stage.emulator.inject(Fault::on(call, action)).unwrap();
    }
    let command = [
        "roll",
        "start",
        "--authority",
        "line-1",
        "--reason",
        "expiry",
    ];
    let id = stage.json(&command)["rolls"][0]["id"].to_string();
    let hub = until("the job has ended", || {
        let roll = stage.json(&["roll", "show", &id]);
        (roll["hub"]["jobs"]["ended"] == 1).then(|| roll["hub"].clone())
    });
    let expected = json!({
        "total": 2, "done": 2, "offline": 0, "failing": 0,
        "jobs": { "total": 1, "ended": 1, "devices": 2, "told": 1, "not_reached": 1 },
    });
    assert_eq!(hub, expected);
    assert!(stage.emulator.faults().is_empty());
}

/// Verifies: a device that is offline is called again until it answers; one that stays away is given
/// up after the time that policy says, and counted.
#[test]
fn a_device_that_is_offline_is_called_again_for_a_while() {
    let mut stage = with_devices(&["press-7", "press-8"], false);
    restart_with(
        &mut stage,
        "tell_devices = \"method\"\ntell_interval = \"1s\"\ntell_for = \"14s\"",
    );
    let told = |id: &str| {
        let rolls = stage.json(&["roll", "list"]);
        let rolls = rolls.as_array().unwrap();
        let roll = rolls.iter().find(|it| it["registration_id"] == id);
        let told = roll.and_then(|roll| roll["told"].as_str());
        told.unwrap_or_default().to_owned()
    };
    for id in ["press-7", "press-8"] {
        stage.told(&["roll", "start", id, "--reason", "expiry"]);
    }
    until("it was offline once", || {
        told("press-7")
            .starts_with("0 of 1 done, 1 offline")
            .then_some(())
    });
    is_online(&stage, "press-7");
    until("it was told", || {
        (told("press-7") == "1 of 1 done").then_some(())
    });
    until("the other one is given up", || {
        (told("press-8") == "1 of 1 done, 1 offline").then_some(())
    });
}

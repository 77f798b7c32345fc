//! Tests the notification of devices about their rollover: one call for each device, or one hub job
//! for many.

use crate::authority_roll::{comes_to, start, under_the_root};
use crate::device::is_assigned;
use crate::process::until;
use crate::provisioned::{below_line_1, individually};
use crate::request::Request;
use crate::test_env::TestEnv;
use dps_emulator::{Action, Fault, Kind, MethodAnswer};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

fn is_online(env: &TestEnv, id: &str) {
    let (status, payload) = (200, json!({}));
    env.emulator
        .simulate_device(id, MethodAnswer { status, payload });
}

fn restart_with(env: &mut TestEnv, policy: &str) {
    let configuration = env.configuration();
    env.configure(&format!("{configuration}\n[policy]\n{policy}\n"));
    env.restart();
}

/// Verifies: policy rolls three devices, a station renews them, and one job notifies them, although
/// the answer to its creation was lost, the daemon was killed in between, and the hub reports late
/// which devices the job reached. All three rollovers show the result, a second job calls the
/// device that was offline, and no job is created twice.
#[test]
fn one_job_notifies_a_batch_of_devices_over_a_crash() {
    let ids = ["press-7", "press-8", "press-9"];
    let (mut env, _) = individually(&ids);
    is_online(&env, "press-7");
    is_online(&env, "press-8");
    env.emulator.switch(|it| it.job_results_late = true);
    let unanswered = Fault::on("job.put", Action::HangAfter);
    env.emulator.inject(unanswered).unwrap();
    restart_with(
        &mut env,
        "renew_before = \"91d\"\nrenew_jitter = \"0s\"\ntell_devices = \"job\"\ntell_interval \
         = \"1s\"",
    );
    let station = env.station_called("station-2");
    for id in ids {
        station.obtain(&Request::device(id));
    }
    until("the job is ordered", || {
        env.emulator.faults().is_empty().then_some(())
    });
    env.kill();
    env.start();
    env.wait_ready();
    until("it is asked whom the job reached", || {
        let asked = env.emulator.requests_of("hub.query");
        (!asked.is_empty()).then_some(())
    });
    env.emulator.switch(|it| it.job_results_late = false);
    // One job, as a rule; on a machine so slow that the rollovers begin seconds apart, two or
    // three.
    let output = || {
        let rolls = env.json(&["roll", "list", "--open"]);
        let rolls = rolls.as_array().unwrap().iter();
        let output = |roll: &Value| {
            let id = roll["registration_id"].as_str()?.to_owned();
            Some((id, roll["hub_progress"].as_str()?.to_owned()))
        };
        rolls.filter_map(output).collect::<BTreeMap<_, _>>()
    };
    until("the rolls know whom the job reached", || {
        let output = output();
        let begins = |id: &str, words: &str| output.get(id).is_some_and(|it| it.starts_with(words));
        let heard = |id| begins(id, "1 of 1 done, 1 notified; 1 of 1 jobs");
        let known = heard("press-7") && heard("press-8") && begins("press-9", "0 of 1 done, 1 off");
        known.then_some(())
    });
    is_online(&env, "press-9");
    until("another job notifies it", || {
        let last = output().remove("press-9")?;
        last.starts_with("1 of 1 done, 1 notified;").then_some(())
    });
    let orders = env.emulator.requests_of("job.put");
    let jobs: BTreeSet<_> = orders.iter().map(|order| &order.path).collect();
    assert_eq!(jobs.len(), orders.len(), "a job was ordered twice");
    assert_eq!(env.emulator.requests_of("hub.method").len(), 0);
}

/// Verifies: at the cut-over of an authority all devices below it are notified, while the hub
/// throttles and fails; `roll show` has the counts and names the devices that were not reached.
#[test]
fn the_devices_below_an_authority_are_notified_at_its_cut_over() {
    let (mut env, _) = below_line_1(&["press-7", "press-8"]);
    is_online(&env, "press-8");
    restart_with(&mut env, "tell_devices = \"job\"");
    for (call, action) in [
        ("job.get", Action::status(500)),
        ("job.put", Action::throttle(1)),
        ("job.put", Action::ResetBefore),
    ] {
        env.emulator.inject(Fault::on(call, action)).unwrap();
    }
    let command = [
        "roll",
        "start",
        "--authority",
        "line-1",
        "--reason",
        "expiry",
    ];
    let id = env.json(&command)["rolls"][0]["id"].to_string();
    let shown = until("the job has ended", || {
        let roll = env.json(&["roll", "show", &id]);
        (roll["hub"]["notified"] == 1).then_some(roll)
    });
    assert_eq!(shown["report"]["not_reached"], json!(["press-7"]));
    let expected = json!({
        "total": 2, "done": 1, "unanswered": 0, "notified": 1, "offline": 1, "failing": 0,
        "jobs": 1, "jobs_ended": 1,
    });
    let hub = &shown["hub"];
    assert_eq!(hub, &expected);
    assert!(env.emulator.faults().is_empty());
}

/// Verifies: a device that is offline is called again until it answers; after the time that policy
/// sets, the daemon stops calling a device and counts it.
#[test]
fn a_device_that_is_offline_is_called_again_for_a_while() {
    let (mut env, _) = individually(&["press-7", "press-8"]);
    restart_with(
        &mut env,
        "tell_devices = \"method\"\ntell_interval = \"1s\"\ntell_for = \"14s\"",
    );
    let output = |id: &str| {
        let rolls = env.json(&["roll", "list"]);
        let rolls = rolls.as_array().unwrap();
        let roll = rolls.iter().find(|it| it["registration_id"] == id);
        let output = roll.and_then(|roll| roll["hub_progress"].as_str());
        output.unwrap_or_default().to_owned()
    };
    let station = env.station_called("station-2");
    for id in ["press-7", "press-8"] {
        env.run(&["roll", "start", id, "--reason", "expiry"]);
        station.obtain(&Request::device(id));
    }
    until("it was offline once", || {
        output("press-7")
            .starts_with("0 of 1 done, 1 offline")
            .then_some(())
    });
    is_online(&env, "press-7");
    until("it was notified", || {
        (output("press-7") == "1 of 1 done, 1 notified").then_some(())
    });
    until("the other one is given up", || {
        let given_up = "0 of 1 done, 1 offline, 1 ended without an answer";
        (output("press-8") == given_up).then_some(())
    });
}

fn roll_of(env: &TestEnv, member: &str, name: &str) -> Value {
    until("it is rolled", || {
        let rolls = env.json(&["roll", "list"]);
        let mut rolls = rolls.as_array().unwrap().iter();
        rolls.find(|it| it[member] == name).cloned()
    })
}

/// One rollover is announced, the other is not, and a station asks for both leaves. Verifies:
/// nothing is called before DPS has both leaves, each device is called once then, and only answered
/// calls are done.
#[test]
fn devices_are_notified_when_both_leaves_are_in_force() {
    let (mut env, _) = individually(&["press-7", "press-8"]);
    for id in ["press-7", "press-8"] {
        is_online(&env, id);
    }
    restart_with(&mut env, "tell_devices = \"method\"");
    env.run(&["roll", "start", "press-7", "--reason", "expiry"]);
    // Calls wait two seconds for others.
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(env.emulator.requests_of("hub.method").len(), 0);
    assert_eq!(
        roll_of(&env, "registration_id", "press-7")["hub_progress"],
        Value::Null
    );
    let station = env.station_called("station-2");
    for id in ["press-7", "press-8"] {
        let new = station.obtain(&Request::device(id));
        until("it was notified", || {
            let roll = roll_of(&env, "registration_id", id);
            (roll["hub_progress"] == "1 of 1 done, 1 notified").then_some(())
        });
        is_assigned(&env.emulator, &new);
    }
    let calls = env.emulator.requests_of("hub.method");
    let called: Vec<_> = calls.iter().map(|it| it.path.contains("press-7")).collect();
    assert_eq!(called, [true, false]);
}

/// The root of a group by reference is rolled, and the authorities below follow without groups of
/// their own. Verifies: the devices of the line are called although a station renews one of them
/// before; the line's rollover drains until each device was observed with its new leaf.
#[test]
fn devices_are_notified_at_the_rollover_of_a_root_by_reference() {
    let mut env = TestEnv::new();
    let policy = "\n[policy]\nretire_proven = true\nproof_interval = \"1s\"\n\
        tell_devices = \"method\"\ntell_interval = \"1s\"\n";
    env.configure(&(env.configuration() + policy));
    under_the_root(&mut env);
    let station = env.station_called("station-2");
    is_assigned(&env.emulator, &station.obtain(&Request::device("press-2")));
    let root = start(&env, "root", "expiry", &[]);
    until("the line signs under the new root", || {
        let output = "audit WHERE action = 'roll.cut_over' AND subject = 'line-1'";
        (env.count(output) == 1).then_some(())
    });
    let station = env.station_called("station-3");
    let mut new = vec![station.obtain(&Request::device("press-1"))];
    for id in ["press-1", "press-2"] {
        is_online(&env, id);
    }
    let line = until("both devices were reached", || {
        let roll = roll_of(&env, "authority", "line-1");
        (roll["hub"]["notified"] == 2).then_some(roll)
    });
    assert_eq!(
        (&line["hub"]["done"], &line["hub"]["total"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(line["state"], "draining", "{line}");
    assert_eq!(line["waits_for_detail"]["code"], "retirement", "{line}");
    new.push(station.obtain(&Request::device("press-2")));
    for device in &new {
        is_assigned(&env.emulator, device);
    }
    comes_to(&env, &line["id"].to_string(), "done");
    comes_to(&env, &root, "done");
}

/// Two devices of a group are renewed by a station, outside of any rollover, and a third one gets
/// its first leaf. Verifies: each renewed device is called once, although the daemon is killed in
/// between; one that was offline is called again; the others are not called, and a device that was
/// excluded is not; without a policy nothing is called.
#[test]
fn the_renewal_of_a_device_below_a_group_is_announced() {
    let (mut env, _) = below_line_1(&["press-7", "press-8", "press-9"]);
    is_online(&env, "press-7");
    let renew = |env: &TestEnv, id: &str| {
        let new = env.station_called("station-2").obtain(&Request::device(id));
        env.wait_in_sync();
        is_assigned(&env.emulator, &new);
    };
    renew(&env, "press-9");
    restart_with(
        &mut env,
        "tell_devices = \"method\"\ntell_interval = \"1s\"",
    );
    until("renewals are announced from now on", || {
        (env.count("renewal_notice") == 1).then_some(())
    });
    for id in ["press-7", "press-8", "press-10"] {
        renew(&env, id);
    }
    let called = |id: &str| {
        let calls = env.emulator.requests_of("hub.method");
        calls.iter().filter(|it| it.path.contains(id)).count()
    };
    let notified = |env: &TestEnv, id: &str| {
        let shown = env.json(&["device", "show", id]);
        (shown["notification"]["notified"] == 1).then_some(())
    };
    until("the device was reached", || notified(&env, "press-7"));
    until("the other one was offline", || {
        (called("press-8") > 0).then_some(())
    });
    assert_eq!(
        [called("press-7"), called("press-9"), called("press-10")],
        [1, 0, 0]
    );
    env.kill();
    is_online(&env, "press-8");
    env.start();
    env.wait_ready();
    until("it is reached", || notified(&env, "press-8"));
    let called = |id: &str| {
        let calls = env.emulator.requests_of("hub.method");
        calls.iter().filter(|it| it.path.contains(id)).count()
    };
    let before = called("press-8");
    renew(&env, "press-7");
    until("it is called for each renewal", || {
        (called("press-7") == 2).then_some(())
    });

    env.run(&["roll", "start", "press-8", "--reason", "compromise"]);
    renew(&env, "press-8");
    renew(&env, "press-7");
    until("a later renewal is announced", || {
        (called("press-7") == 3).then_some(())
    });
    assert_eq!(called("press-8"), before, "it has an enrollment of its own");
}

/// Verifies: with jobs, renewals below a group are announced by jobs, not one by one.
#[test]
fn renewals_below_a_group_are_announced_by_a_job() {
    let (mut env, _) = below_line_1(&["press-7", "press-8"]);
    for id in ["press-7", "press-8"] {
        is_online(&env, id);
    }
    restart_with(&mut env, "tell_devices = \"job\"");
    until("renewals are announced from now on", || {
        (env.count("renewal_notice") == 1).then_some(())
    });
    let station = env.station_called("station-2");
    for id in ["press-7", "press-8"] {
        station.obtain(&Request::device(id));
    }
    for id in ["press-7", "press-8"] {
        until("it was reached", || {
            let shown = env.json(&["device", "show", id]);
            (shown["notification"]["notified"] == 1).then_some(())
        });
    }
    let jobs = env.emulator.requests_of("job.put").len();
    assert!(jobs <= 2, "{jobs} jobs");
    assert_eq!(env.emulator.requests_of("hub.method").len(), 0);
}

/// Verifies: a job calls a device by the id that its enrollment gives it in the hub.
#[test]
fn a_job_calls_a_device_by_its_id_in_the_hub() {
    let (mut env, devices) = individually(&["press-7"]);
    let named = json!({ "deviceId": "Asset-0815" });
    let named = named.as_object().unwrap().clone();
    env.emulator
        .edit_record(Kind::Individual, "press-7", named)
        .unwrap();
    is_assigned(&env.emulator, &devices[0]);
    is_online(&env, "Asset-0815");
    restart_with(
        &mut env,
        "renew_before = \"91d\"\nrenew_jitter = \"0s\"\ntell_devices = \"job\"\ntell_interval \
         = \"1s\"",
    );
    let station = env.station_called("station-2");
    station.obtain(&Request::device("press-7"));
    until("the job has called it", || {
        let rolls = env.json(&["roll", "list", "--open"]);
        let progress = rolls[0]["hub_progress"].as_str()?;
        progress
            .starts_with("1 of 1 done, 1 notified")
            .then_some(())
    });
}

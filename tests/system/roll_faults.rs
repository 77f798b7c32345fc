//! Rolls of leaves while everything fails: the daemon is killed at each step, a prober registers
//! throughout, and a roll that cannot go on is given up.

use crate::device::{is_assigned, register};
use crate::invariants::held;
use crate::process::until;
use crate::request::{Holder, Request};
use crate::stage::Stage;
use dps_emulator::{Action, Emulator, Fault};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const COMPROMISE: [&str; 5] = ["roll", "start", "press-7", "--reason", "compromise"];

fn slots(stage: &Stage, id: &str) -> [Option<String>; 2] {
    let record = stage.emulator.individual(id).unwrap();
    ["primary", "secondary"].map(|slot| held(&record, slot))
}

fn newest_roll(stage: &Stage) -> Value {
    stage.json(&["roll", "list"])[0].clone()
}

fn is_in_state(stage: &Stage, state: &str) {
    until(state, || {
        (newest_roll(stage)["state"] == state).then_some(())
    });
}

/// Registers a device again and again, until it is told to stop or its leaf nears its end; every
/// time must succeed.
fn probe(
    emulator: &Emulator,
    device: &Holder,
    end: Option<Instant>,
    stop: &AtomicBool,
    times: &AtomicUsize,
) {
    while !stop.load(Ordering::Relaxed) && end.is_none_or(|end| Instant::now() < end) {
        is_assigned(emulator, device);
        times.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// An expiry roll from its first step to its last, with the daemon killed before each step is
/// recorded, while the service throttles, fails and loses answers. Verifies: a device with the old
/// leaf registers until that expires, one with the new leaf from the cut-over on, and neither is
/// ever refused.
#[test]
fn throughout_an_expiry_roll_old_and_new_leaf_are_let_in() {
    let mut stage = Stage::up();
    stage.told(&["enrollment", "add", "--individual", "press-7"]);
    let station = stage.enlist("station", "station-1");
    let (stop, never) = (AtomicBool::new(false), AtomicBool::new(false));
    let never = &never;
    let (old_times, new_times) = (AtomicUsize::new(0), AtomicUsize::new(0));
    stage.restart_to_stay_at("roll-to-draining");
    // Some seconds before its end, so that no probe is under way at the end itself.
    let old_end = Instant::now() + Duration::from_secs(16);
    let old = stage
        .caller(&station)
        .obtain(&Request::new("device-20s", "press-7"));
    until("it is enrolled", || stage.emulator.individual("press-7"));
    std::thread::scope(|scope| {
        // The emulator outlives the daemon's deaths; it is shared with the probers.
        let emulator = stage.emulator.clone();
        let (old_probe, times) = (old.clone(), &old_times);
        let for_old = emulator.clone();
        let old_prober =
            scope.spawn(move || probe(&for_old, &old_probe, Some(old_end), never, times));
        for action in [Action::status(500), Action::ResetAfter, Action::throttle(1)] {
            emulator
                .inject(Fault::on("individual.put", action))
                .unwrap();
        }
        let new = stage.caller(&station).obtain(&Request::device("press-7"));
        stage.is_killed_at("roll-to-draining");
        is_in_state(&stage, "draining");
        let (new_probe, stopped, times) = (new.clone(), &stop, &new_times);
        let for_new = emulator.clone();
        let new_prober = scope.spawn(move || probe(&for_new, &new_probe, None, stopped, times));
        stage.restart_to_stay_at("roll-to-done");
        old_prober.join().unwrap();
        stage.is_killed_at("roll-to-done");
        is_in_state(&stage, "done");
        stage.is_in_step();
        stop.store(true, Ordering::Relaxed);
        new_prober.join().unwrap();
        assert_eq!(slots(&stage, "press-7"), [None, Some(new.thumbprint)]);
    });
    let probes = (old_times.into_inner(), new_times.into_inner());
    assert!(probes.0 > 5 && probes.1 > 5, "{probes:?}");
    assert_ne!(register(&stage.emulator, &old).as_deref(), Ok("assigned"));
}

/// The daemon is killed at every step of a compromise. Verifies: the same end, whatever step it
/// was; the breached leaf is out, the new one is in, the identity in the hub carries it.
#[test]
fn a_compromise_that_was_cut_off_at_any_step_comes_to_the_same_end() {
    for point in [
        "roll-breach-recorded",
        "roll-to-clearing",
        "roll-hub-answered",
        "roll-to-reissuing",
        "roll-to-done",
    ] {
        let mut stage = Stage::up();
        stage.told(&["enrollment", "add", "--individual", "press-7"]);
        let breached = stage.station().obtain(&Request::device("press-7"));
        stage.is_in_step();
        is_assigned(&stage.emulator, &breached);
        stage.restart_to_stay_at(point);
        let mut renewed = None;
        std::thread::scope(|scope| {
            let client = stage.client();
            let asked = scope.spawn(move || client.hallmark(&COMPROMISE));
            if point == "roll-to-done" {
                assert_eq!(asked.join().unwrap().code, Some(0), "{point}");
                renewed = Some(stage.station().obtain(&Request::device("press-7")));
                stage.is_killed_at(point);
                return;
            }
            stage.is_killed_at(point);
            // Some steps come after the answer.
            let _ = asked.join().unwrap();
        });
        let renewed = renewed.unwrap_or_else(|| {
            is_in_state(&stage, "reissuing");
            assert_eq!(stage.emulator.hub_identity("press-7"), None, "{point}");
            assert_ne!(
                register(&stage.emulator, &breached).as_deref(),
                Ok("assigned")
            );
            stage.station().obtain(&Request::device("press-7"))
        });
        is_in_state(&stage, "done");
        stage.is_in_step();
        is_assigned(&stage.emulator, &renewed);
        assert_ne!(
            register(&stage.emulator, &breached).as_deref(),
            Ok("assigned")
        );
        assert_eq!(
            slots(&stage, "press-7"),
            [Some(renewed.thumbprint), None],
            "{point}"
        );
        assert_eq!(
            stage.json(&["roll", "list"]).as_array().unwrap().len(),
            1,
            "{point}"
        );
        let registration = stage.emulator.registration("press-7").unwrap();
        assert_eq!(registration["deviceId"], "press-7");
    }
}

/// The same for a block and its end.
#[test]
fn a_block_that_was_cut_off_comes_to_the_same_end() {
    let mut stage = Stage::up();
    stage.told(&[
        "enrollment",
        "add",
        "--group",
        "line-1",
        "--authority",
        "line-1",
    ]);
    let device = stage.station().obtain(&Request::device("press-7"));
    stage.is_in_step();
    is_assigned(&stage.emulator, &device);
    let cut_off = |stage: &mut Stage, point: &str, command: &str| {
        stage.restart_to_stay_at(point);
        std::thread::scope(|scope| {
            let client = stage.client();
            let asked = scope.spawn(move || client.hallmark(&["device", command, "press-7"]));
            stage.is_killed_at(point);
            assert_ne!(asked.join().unwrap().code, Some(0));
        });
        stage.is_in_step();
    };
    cut_off(&mut stage, "roll-block-recorded", "block");
    until("its identity is gone", || {
        stage
            .emulator
            .hub_identity("press-7")
            .is_none()
            .then_some(())
    });
    assert_ne!(
        register(&stage.emulator, &device).as_deref(),
        Ok("assigned")
    );
    cut_off(&mut stage, "roll-block-lifted", "unblock");
    is_assigned(&stage.emulator, &device);
    assert!(stage.emulator.individual("press-7").is_none());
    // Lifted and put up again before the service has followed: the last word counts.
    for command in ["block", "unblock", "block"] {
        stage.told(&["device", command, "press-7"]);
    }
    stage.is_in_step();
    assert_ne!(
        register(&stage.emulator, &device).as_deref(),
        Ok("assigned")
    );
}

/// A staged roll goes back to the old leaf only if its device was seen on that, or an operator says
/// why; the reason is audited, and the device is let in as before.
#[test]
fn a_staged_roll_is_given_up_while_the_old_leaf_is_in_use() {
    let mut stage = Stage::up();
    stage.told(&["enrollment", "add", "--individual", "press-7"]);
    let station = stage.enlist("station", "station-1");
    let old = stage.caller(&station).obtain(&Request::device("press-7"));
    stage.is_in_step();
    is_assigned(&stage.emulator, &old);
    let stage_a_roll = |stage: &Stage| {
        let refuses = Fault::on("individual.put", Action::status(503)).times(1_000);
        stage.emulator.inject(refuses).unwrap();
        stage.caller(&station).obtain(&Request::device("press-7"));
        newest_roll(stage)["id"].to_string()
    };
    let is_back = |stage: &Stage| {
        stage.emulator.clear_faults();
        stage.told(&["push", "retry"]);
        stage.is_in_step();
        assert_eq!(
            slots(stage, "press-7"),
            [Some(old.thumbprint.clone()), None]
        );
        is_assigned(&stage.emulator, &old);
    };
    let id = stage_a_roll(&stage);
    let refused = stage.hallmark(&["roll", "abort", &id]);
    assert!(
        refused.error.contains("roll_device_not_seen"),
        "{refused:?}"
    );
    stage.told(&[
        "roll",
        "abort",
        &id,
        "--override",
        "it is on the bench, with its old leaf",
    ]);
    is_back(&stage);
    let shown = stage.json(&["roll", "show", &id]);
    assert_eq!(
        shown["detail"]["overrides"][0]["guard"],
        "roll_device_not_seen"
    );
    assert!(stage.told(&["audit", "export"]).contains("on the bench"));

    let configuration = stage.configuration();
    stage.configure(&format!(
        "{configuration}\n[policy]\nproof_interval = \"1s\"\n"
    ));
    stage.restart();
    let id = stage_a_roll(&stage);
    until("the device is seen on its old leaf", || {
        let seen = stage.json(&["roll", "show", &id])["device_seen"].clone();
        seen.as_str()?.contains("on its old leaf").then_some(())
    });
    stage.told(&["roll", "abort", &id]);
    is_back(&stage);
}

/// Policy may retire the old leaf before its end, once the hub knows the device by its new one.
#[test]
fn where_policy_allows_it_a_proven_device_retires_its_old_leaf() {
    let mut stage = Stage::set();
    let configuration = stage.configuration();
    stage.configure(&format!(
        "{configuration}\n[policy]\nproof_interval = \"1s\"\nretire_proven = true\n"
    ));
    stage.start();
    stage.run_ceremony();
    stage.told(&["enrollment", "add", "--individual", "press-7"]);
    let station = stage.station();
    let old = station.obtain(&Request::device("press-7"));
    stage.is_in_step();
    is_assigned(&stage.emulator, &old);
    let new = station.obtain(&Request::device("press-7"));
    is_in_state(&stage, "draining");
    let id = newest_roll(&stage)["id"].to_string();
    until("the device is seen on its old leaf", || {
        let seen = stage.json(&["roll", "show", &id])["device_seen"].clone();
        seen.as_str()?.contains("on its old leaf").then_some(())
    });
    assert_eq!(newest_roll(&stage)["state"], "draining");
    is_assigned(&stage.emulator, &new);
    is_in_state(&stage, "done");
    stage.is_in_step();
    assert_eq!(slots(&stage, "press-7"), [None, Some(new.thumbprint)]);
}

//! Tests renewals in quick succession: both slots are taken, and calls to the service hang.

use crate::device::{is_assigned, register};
use crate::invariants::held;
use crate::process::until;
use crate::provisioned::individually;
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use dps_emulator::{Action, Aim, Fault};
use serde_json::Value;
use std::time::{Duration, Instant};

fn is_draining(env: &TestEnv, new: &Holder) {
    until("the new leaf serves", || {
        let shown = env.json(&["enrollment", "show", "press-7"])[0].clone();
        let slots = &shown["slots"];
        let serves = slots["state"] == "draining" && slots["serving"] == new.thumbprint;
        (serves && shown["state"] == "in step").then_some(())
    });
}

fn slots(env: &TestEnv) -> [Option<String>; 2] {
    let record = env.emulator.individual("press-7").unwrap();
    ["primary", "secondary"].map(|slot| held(&record, slot))
}

fn in_slots(leaves: [&Holder; 2]) -> [Option<String>; 2] {
    leaves.map(|leaf| Some(leaf.thumbprint.clone()))
}

fn states(env: &TestEnv) -> Vec<String> {
    let rolls = env.json(&["roll", "list"]);
    let states = rolls
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["state"].as_str().unwrap().to_owned());
    states.collect()
}

/// A device is set up four times in a row, each time with another key. Verifies: no renewal waits
/// for the end of a leaf, the newest two leaves are in the slots, DPS accepts both, and the journal
/// has the rollovers that ended early.
#[test]
fn a_device_is_renewed_again_and_again() {
    let (env, first) = individually(&["press-7"]);
    let station = env.station_called("station-2");
    let mut before = station.obtain(&Request::device("press-7"));
    is_draining(&env, &before);
    for number in 1..=2 {
        let next = station.obtain(&Request::device("press-7"));
        is_draining(&env, &next);
        let mut expected = in_slots([&next, &before]);
        if number == 2 {
            expected.reverse();
        }
        assert_eq!(slots(&env), expected);
        is_assigned(&env.emulator, &before);
        is_assigned(&env.emulator, &next);
        before = next;
    }
    assert!(register(&env.emulator, &first[0]).is_err());
    assert_eq!(states(&env), ["draining", "done", "done"]);
    assert_eq!(env.count("audit WHERE action = 'roll.overtaken'"), 2);
}

/// A renewal is lost on its way to the device. Verifies: the leaf that the device uses keeps its
/// slot, whether its hub shows that leaf or the device presents it, and the lost one leaves.
#[test]
fn the_leaf_in_use_keeps_its_slot() {
    for presents in [false, true] {
        let mut env = TestEnv::new();
        let interval = if presents { "1h" } else { "1s" };
        let policy = format!("\n[policy]\nproof_interval = \"{interval}\"\n");
        env.configure(&(env.configuration() + &policy));
        env.start();
        env.run_ceremony();
        env.run(&["enrollment", "add", "--individual", "press-7"]);
        let station = env.station();
        let used = station.obtain(&Request::device("press-7"));
        env.wait_in_sync();
        is_assigned(&env.emulator, &used);
        let lost = station.obtain(&Request::device("press-7"));
        is_draining(&env, &lost);
        let caller = if presents { env.caller(&used) } else { station };
        if !presents {
            let roll = env.json(&["roll", "list", "--open"])[0].clone();
            until("the hub was observed after the cut-over", || {
                let sql = format!(
                    "hub_observation WHERE seen_at > (SELECT changed_at FROM roll WHERE id = {})",
                    roll["id"]
                );
                (env.count(&sql) == 1).then_some(())
            });
        }
        let next = caller.obtain(&Request::device("press-7"));
        is_draining(&env, &next);
        assert_eq!(
            slots(&env),
            in_slots([&used, &next]),
            "presents: {presents}"
        );
        is_assigned(&env.emulator, &used);
        is_assigned(&env.emulator, &next);
        assert!(register(&env.emulator, &lost).is_err());
        assert_eq!(states(&env), ["draining", "aborted"]);
    }
}

fn hangs(id: &str, times: u32) -> Fault {
    let fault = Fault::on("individual.put", Action::Hang).times(times);
    let aim = Aim {
        path_contains: Some(id.to_owned()),
        ..fault.aim
    };
    Fault { aim, ..fault }
}

fn is_in_step(env: &TestEnv, id: &str) -> Option<()> {
    let shown: Value = env.json(&["enrollment", "show", id]);
    (shown[0]["state"] == "in step").then_some(())
}

/// One call for an enrollment hangs, then every call for a dozen others. Verifies: the enrollment
/// is in step long before a request's longest bound, and an enrollment beside those that hang waits
/// for none of them.
#[test]
fn a_call_that_hangs_costs_little_and_delays_no_other_enrollment() {
    let env = TestEnv::running();
    let station = env.station();
    let add = |id: &str| drop(env.run(&["enrollment", "add", "--individual", id]));
    add("press-7");
    env.emulator.inject(hangs("press-7", 1)).unwrap();
    let begun = Instant::now();
    station.obtain(&Request::device("press-7"));
    until("it is in step", || is_in_step(&env, "press-7"));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");

    env.emulator.inject(hangs("stuck-", 1_000)).unwrap();
    let stuck: Vec<String> = (1..=12).map(|number| format!("stuck-{number}")).collect();
    for id in &stuck {
        add(id);
        station.obtain(&Request::device(id));
    }
    until("each call has hung once", || {
        (env.count("mark WHERE attempts > 0") == 12).then_some(())
    });
    add("press-8");
    let begun = Instant::now();
    station.obtain(&Request::device("press-8"));
    until("the other one is in step", || is_in_step(&env, "press-8"));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    env.emulator.clear_faults();
}

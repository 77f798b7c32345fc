//! Tests rollovers of leaves while everything fails: the daemon is killed at each step, a prober
//! registers throughout, and a rollover that cannot go on is aborted.

use crate::crash_point::reported;
use crate::device::{is_assigned, register};
use crate::invariants::held;
use crate::own_authority::these_alone_are_known;
use crate::prober::Prober;
use crate::process::until;
use crate::request::Request;
use crate::test_env::TestEnv;
use dps_emulator::{Action, Aim, Fault};
use serde_json::Value;
use time::Duration;

const COMPROMISE: [&str; 5] = ["roll", "start", "press-7", "--reason", "compromise"];

fn slots(env: &TestEnv, id: &str) -> [Option<String>; 2] {
    let record = env.emulator.individual(id).unwrap();
    ["primary", "secondary"].map(|slot| held(&record, slot))
}

fn newest_roll(env: &TestEnv) -> Value {
    env.json(&["roll", "list"])[0].clone()
}

fn is_in_state(env: &TestEnv, state: &str) {
    until(state, || (newest_roll(env)["state"] == state).then_some(()));
}

/// An expiry rollover from its first step to its last, by moved clocks, with the daemon killed
/// before each step is recorded, while the service throttles, fails and loses answers. Verifies: a
/// device with the old leaf registers until that expires, one with the new leaf from the cut-over
/// on, and neither is ever refused.
#[test]
fn throughout_an_expiry_roll_old_and_new_leaf_are_accepted() {
    let mut env = TestEnv::new().with_a_movable_clock();
    env.start();
    env.run_ceremony();
    env.run(&["enrollment", "add", "--individual", "press-7"]);
    let old = env.enlist("device", "press-7");
    env.wait_in_sync();
    let old_prober = Prober::honest(&env, std::slice::from_ref(&old));
    env.restart_to_stay_at("roll-to-draining");
    env.passes(Duration::days(80));
    for action in [Action::status(500), Action::ResetAfter, Action::throttle(1)] {
        let fault = Fault::on("individual.put", action);
        env.emulator.inject(fault).unwrap();
    }
    let new = env.enlist("device", "press-7");
    env.is_killed_at("roll-to-draining");
    is_in_state(&env, "draining");
    let new_prober = Prober::honest(&env, std::slice::from_ref(&new));
    env.restart_to_stay_at("roll-to-done");
    // A day before the old leaf's end.
    env.passes(Duration::days(9));
    is_assigned(&env.emulator, &old);
    is_assigned(&env.emulator, &new);
    old_prober.ends();
    env.passes(Duration::days(2));
    env.is_killed_at("roll-to-done");
    is_in_state(&env, "done");
    env.wait_in_sync();
    new_prober.ends();
    assert_eq!(slots(&env, "press-7"), [None, Some(new.thumbprint)]);
    assert_ne!(register(&env.emulator, &old).as_deref(), Ok("assigned"));
}

/// The service completes a call, its answer is lost, and the daemon is killed before it reads it;
/// at each call of three rollovers: by expiry, by compromise, and by compromise under a group.
/// Verifies: no call is repeated without need, and none is missing.
#[test]
fn killed_while_an_answer_is_lost_a_roll_ends_the_same_way() {
    let mut env = TestEnv::running();
    let group = ["--group", "line-1", "--authority", "line-1"];
    env.run(&[&["enrollment", "add"], &group[..]].concat());
    for id in ["press-1", "press-2"] {
        env.run(&["enrollment", "add", "--individual", id]);
    }
    let ids = ["press-1", "press-2", "press-3"];
    let old = ids.map(|id| env.enlist("device", id));
    env.wait_in_sync();
    for device in &old {
        is_assigned(&env.emulator, device);
    }
    let compromised = Prober::excluded(&env, &old[1..]);
    env.kill();
    let operators = ["press-2", "press-3"].map(|id| reported(&env, &[id]));
    let lost = |operation: &str, id: &str| {
        let fault = Fault::on(operation, Action::HangAfter);
        let path_contains = Some(id.to_owned());
        let aim = Aim {
            path_contains,
            ..fault.aim
        };
        Fault { aim, ..fault }
    };
    let mut calls: Vec<Fault> = ids.map(|id| lost("individual.put", id)).into();
    calls.extend(["press-2", "press-3"].map(|id| lost("identity.delete", id)));
    let mut renewed = None;
    env.is_killed_at_each(&[], &calls, |env| {
        if renewed.is_none() {
            renewed = env.try_to_issue(&Request::device("press-1"));
        }
    });
    for operator in operators {
        operator.join().unwrap();
    }
    let mut new = vec![renewed.unwrap()];
    until("both compromised leaves are excluded", || {
        let out = "roll WHERE reason = 'compromise' AND state = 'reissuing'";
        (env.count(out) == 2).then_some(())
    });
    new.extend(ids[1..].iter().map(|id| env.enlist("device", id)));
    until(
        "the compromise rollovers are done, the renewal drains",
        || {
            let ended = "roll WHERE reason = 'compromise' AND state = 'done'";
            let drains = "roll WHERE reason = 'expiry' AND state = 'draining'";
            (env.count(ended) == 2 && env.count(drains) == 1).then_some(())
        },
    );
    env.wait_in_sync();
    is_assigned(&env.emulator, &old[0]);
    let leaf = |number: usize| Some(new[number].thumbprint.clone());
    let both = [Some(old[0].thumbprint.clone()), leaf(0)];
    assert_eq!(slots(&env, "press-1"), both);
    assert_eq!(slots(&env, "press-2"), [leaf(1), None]);
    assert_eq!(slots(&env, "press-3"), [leaf(2), None]);
    compromised.ends();

    // Back to the group, which accepts every leaf below it again.
    env.kill();
    let back = ["enrollment", "remove", "--individual", "press-3"];
    env.is_killed_at_each(&[], &[lost("individual.delete", "press-3")], |env| {
        env.hallmark(&[&back[..], &["--override", "the key was destroyed"]].concat());
    });
    env.wait_in_sync();
    assert_eq!(env.emulator.individual("press-3"), None);
    for device in &new {
        is_assigned(&env.emulator, device);
    }
    these_alone_are_known(&env, &new);
    // The intent of a signature in progress when the daemon was killed is abandoned.
    let leaves =
        "intent_state WHERE purpose = 'leaf' AND subject LIKE 'press%' AND state = 'issued'";
    assert_eq!(env.count(leaves), 6);
}

/// The daemon is killed at every step of a compromise. Verifies: the end is the same at every step;
/// DPS refuses the compromised leaf and accepts the new one, and the identity in the hub carries
/// it.
#[test]
fn a_compromise_that_was_interrupted_at_any_step_ends_the_same_way() {
    for point in [
        "roll-compromise-recorded",
        "roll-to-clearing",
        "roll-hub-answered",
        "roll-to-reissuing",
        "roll-to-done",
    ] {
        let mut env = TestEnv::running();
        env.run(&["enrollment", "add", "--individual", "press-7"]);
        let compromised = env.station().obtain(&Request::device("press-7"));
        env.wait_in_sync();
        is_assigned(&env.emulator, &compromised);
        env.restart_to_stay_at(point);
        let mut renewed = None;
        std::thread::scope(|scope| {
            let client = env.client();
            let asked = scope.spawn(move || client.hallmark(&COMPROMISE));
            if point == "roll-to-done" {
                assert_eq!(asked.join().unwrap().code, Some(0), "{point}");
                renewed = Some(env.station().obtain(&Request::device("press-7")));
                env.is_killed_at(point);
                return;
            }
            env.is_killed_at(point);
            // Some steps come after the answer.
            let _ = asked.join().unwrap();
        });
        let renewed = renewed.unwrap_or_else(|| {
            is_in_state(&env, "reissuing");
            assert_eq!(env.emulator.hub_identity("press-7"), None, "{point}");
            assert_ne!(
                register(&env.emulator, &compromised).as_deref(),
                Ok("assigned")
            );
            env.station().obtain(&Request::device("press-7"))
        });
        is_in_state(&env, "done");
        env.wait_in_sync();
        is_assigned(&env.emulator, &renewed);
        assert_ne!(
            register(&env.emulator, &compromised).as_deref(),
            Ok("assigned")
        );
        assert_eq!(
            slots(&env, "press-7"),
            [Some(renewed.thumbprint), None],
            "{point}"
        );
        assert_eq!(
            env.json(&["roll", "list"]).as_array().unwrap().len(),
            1,
            "{point}"
        );
        let registration = env.emulator.registration("press-7").unwrap();
        assert_eq!(registration["deviceId"], "press-7");
    }
}

/// The same for a block and its end.
#[test]
fn a_block_that_was_interrupted_ends_the_same_way() {
    let mut env = TestEnv::running();
    env.run(&[
        "enrollment",
        "add",
        "--group",
        "line-1",
        "--authority",
        "line-1",
    ]);
    let device = env.station().obtain(&Request::device("press-7"));
    env.wait_in_sync();
    is_assigned(&env.emulator, &device);
    let cut_off = |env: &mut TestEnv, point: &str, command: &str| {
        env.restart_to_stay_at(point);
        std::thread::scope(|scope| {
            let client = env.client();
            let asked = scope.spawn(move || client.hallmark(&["device", command, "press-7"]));
            env.is_killed_at(point);
            assert_ne!(asked.join().unwrap().code, Some(0));
        });
        env.wait_in_sync();
    };
    cut_off(&mut env, "roll-block-recorded", "block");
    until("its identity is gone", || {
        env.emulator.hub_identity("press-7").is_none().then_some(())
    });
    assert_ne!(register(&env.emulator, &device).as_deref(), Ok("assigned"));
    cut_off(&mut env, "roll-block-lifted", "unblock");
    is_assigned(&env.emulator, &device);
    assert!(env.emulator.individual("press-7").is_none());
    // A block is lifted and made again before the service has followed: the last command counts.
    for command in ["block", "unblock", "block"] {
        env.run(&["device", command, "press-7"]);
    }
    env.wait_in_sync();
    assert_ne!(register(&env.emulator, &device).as_deref(), Ok("assigned"));
}

/// A staged rollover goes back to the old leaf only if its device was observed with that leaf, or
/// an operator gives a reason; the reason is audited, and DPS accepts the device as before.
#[test]
fn a_staged_roll_is_given_up_while_the_old_leaf_is_in_use() {
    let mut env = TestEnv::running();
    env.run(&["enrollment", "add", "--individual", "press-7"]);
    let station = env.enlist("station", "station-1");
    let old = env.caller(&station).obtain(&Request::device("press-7"));
    env.wait_in_sync();
    is_assigned(&env.emulator, &old);
    let stage_a_roll = |env: &TestEnv| {
        let refuses = Fault::on("individual.put", Action::status(503)).times(1_000);
        env.emulator.inject(refuses).unwrap();
        env.caller(&station).obtain(&Request::device("press-7"));
        newest_roll(env)["id"].to_string()
    };
    let is_back = |env: &TestEnv| {
        env.emulator.clear_faults();
        env.run(&["push", "retry"]);
        env.wait_in_sync();
        assert_eq!(slots(env, "press-7"), [Some(old.thumbprint.clone()), None]);
        is_assigned(&env.emulator, &old);
    };
    let id = stage_a_roll(&env);
    let refused = env.hallmark(&["roll", "abort", &id]);
    assert!(
        refused.error.contains("roll_device_not_seen"),
        "{refused:?}"
    );
    env.run(&[
        "roll",
        "abort",
        &id,
        "--override",
        "it is on the bench, with its old leaf",
    ]);
    is_back(&env);
    let shown = env.json(&["roll", "show", &id]);
    assert_eq!(
        shown["detail"]["overrides"][0]["guard"],
        "roll_device_not_seen"
    );
    assert!(env.run(&["audit", "export"]).contains("on the bench"));

    let configuration = env.configuration();
    env.configure(&format!(
        "{configuration}\n[policy]\nproof_interval = \"1s\"\n"
    ));
    env.restart();
    let id = stage_a_roll(&env);
    until("the device is seen on its old leaf", || {
        let seen = env.json(&["roll", "show", &id])["device_seen"].clone();
        seen.as_str()?.contains("on its old leaf").then_some(())
    });
    env.run(&["roll", "abort", &id]);
    is_back(&env);
}

/// Policy may retire the old leaf before its end, once the hub has the device's identity with its
/// new one.
#[test]
fn where_policy_allows_it_a_proven_device_retires_its_old_leaf() {
    let mut env = TestEnv::new();
    let configuration = env.configuration();
    env.configure(&format!(
        "{configuration}\n[policy]\nproof_interval = \"1s\"\nretire_proven = true\n"
    ));
    env.start();
    env.run_ceremony();
    env.run(&["enrollment", "add", "--individual", "press-7"]);
    let station = env.station();
    let old = station.obtain(&Request::device("press-7"));
    env.wait_in_sync();
    is_assigned(&env.emulator, &old);
    let new = station.obtain(&Request::device("press-7"));
    is_in_state(&env, "draining");
    let id = newest_roll(&env)["id"].to_string();
    until("the device is seen on its old leaf", || {
        let seen = env.json(&["roll", "show", &id])["device_seen"].clone();
        seen.as_str()?.contains("on its old leaf").then_some(())
    });
    assert_eq!(newest_roll(&env)["state"], "draining");
    is_assigned(&env.emulator, &new);
    is_in_state(&env, "done");
    env.wait_in_sync();
    assert_eq!(slots(&env, "press-7"), [None, Some(new.thumbprint)]);
}

//! Tests the renewal of an individually enrolled device, through both slots and over restarts.

use crate::configured::device_profile;
use crate::device::{is_assigned, register};
use crate::invariants::held;
use crate::prober::Prober;
use crate::process::until;
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use serde_json::Value;
use time::Duration;

const START: [&str; 5] = ["roll", "start", "pump-7", "--reason", "expiry"];

fn enrollment(env: &TestEnv) -> Value {
    env.json(&["enrollment", "show", "pump-7"])[0].clone()
}

/// Waits until the slots are in this state, and the service shows it.
fn is_in_state(env: &TestEnv, state: &str) {
    until(state, || {
        let seen = enrollment(env);
        (seen["slots"]["state"] == state && seen["state"] == "in step").then_some(())
    });
}

/// The slots of the service itself.
fn slots(env: &TestEnv) -> [Option<String>; 2] {
    let record = env.emulator.individual("pump-7").unwrap();
    ["primary", "secondary"].map(|slot| held(&record, slot))
}

fn thumbprint(device: &Holder) -> Option<String> {
    Some(device.thumbprint.clone())
}

fn enrolled() -> TestEnv {
    let env = TestEnv::running();
    env.run(&["enrollment", "add", "--individual", "pump-7"]);
    env
}

/// Verifies, with a restart of the daemon between any two steps: the new leaf has the same name and
/// goes into the other slot; DPS accepts both during the rollover; the old one is retired when it
/// has expired, and then refused; the next goes into the primary again.
#[test]
fn a_device_is_renewed_through_both_slots_over_restarts() {
    let env = TestEnv::new();
    let moving = "ids = [\"*\"]\nmay_move = true";
    env.configure(&env.configuration().replacen("ids = [\"*\"]", moving, 1));
    let mut env = env.started();
    env.run(&["enrollment", "add", "--individual", "pump-7"]);
    let station = env.enlist("station", "station-1");
    let first = env
        .caller(&station)
        .obtain(&Request::new("device-20s", "pump-7"));
    is_in_state(&env, "serving");
    assert_eq!(slots(&env), [thumbprint(&first), None]);
    is_assigned(&env.emulator, &first);

    let second = env.caller(&station).obtain(&Request::device("pump-7"));
    assert_ne!(second.serial, first.serial);
    env.restart();
    is_in_state(&env, "draining");
    assert_eq!(slots(&env), [thumbprint(&first), thumbprint(&second)]);
    is_assigned(&env.emulator, &first);
    is_assigned(&env.emulator, &second);

    env.restart();
    is_in_state(&env, "serving");
    assert_eq!(slots(&env), [None, thumbprint(&second)]);
    assert!(
        register(&env.emulator, &first).is_err(),
        "the old leaf is still accepted"
    );
    is_assigned(&env.emulator, &second);

    env.restart();
    let third = env.caller(&station).obtain(&Request::device("pump-7"));
    is_in_state(&env, "draining");
    assert_eq!(slots(&env), [thumbprint(&third), thumbprint(&second)]);
    is_assigned(&env.emulator, &second);
    is_assigned(&env.emulator, &third);
    assert_eq!(env.json(&["roll", "list"]).as_array().unwrap().len(), 2);
    assert_eq!(
        env.json(&["roll", "list", "--open"])
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

/// The daemon is killed while a leaf is staged and the service does not answer.
#[test]
fn a_roll_that_was_cut_off_by_a_crash_goes_on() {
    use dps_emulator::{Action, Fault};
    let mut env = enrolled();
    let station = env.station();
    let first = station.obtain(&Request::device("pump-7"));
    env.wait_in_sync();
    let unanswered = Fault::on("individual.put", Action::HangAfter);
    env.emulator.inject(unanswered).unwrap();
    let second = station.obtain(&Request::device("pump-7"));
    until("the write is under way", || {
        env.emulator.faults().is_empty().then_some(())
    });
    env.kill();
    env.start();
    is_in_state(&env, "draining");
    assert_eq!(slots(&env), [thumbprint(&first), thumbprint(&second)]);
}

/// An announced rollover waits for its request, can be aborted until then, and ends like any other.
#[test]
fn an_operator_starts_and_aborts_a_roll() {
    let env = enrolled();
    let station = env.station();
    let output = env.hallmark(&START);
    assert_eq!(output.code, Some(1), "nothing to replace yet: {output:?}");
    station.obtain(&Request::device("pump-7"));
    env.wait_in_sync();

    let started = env.json(&START)["rolls"].clone();
    let id = started[0]["id"].to_string();
    assert_eq!(started[0]["state"], "requested");
    let second = env.hallmark(&START);
    assert!(
        second.code == Some(1) && second.error.contains("under way already"),
        "{second:?}"
    );
    assert_eq!(env.json(&["roll", "abort", &id])["state"], "aborted");
    let again = env.hallmark(&["roll", "abort", &id]);
    assert_eq!(again.code, Some(1), "{again:?}");

    let started = env.json(&START)["rolls"].clone();
    let id = started[0]["id"].to_string();
    let renewed = station.obtain(&Request::device("pump-7"));
    is_in_state(&env, "draining");
    let shown = env.json(&["roll", "show", &id]);
    assert_eq!(shown["state"], "draining");
    assert_eq!(shown["new_certificate"], renewed.thumbprint);
    assert!(
        shown["waits_for"].as_str().unwrap().contains("expire"),
        "{shown}"
    );
    let too_late = env.hallmark(&["roll", "abort", &id]);
    assert_eq!(too_late.code, Some(1), "{too_late:?}");
}

fn leaf_of_a_year() -> String {
    device_profile("device-1y", "line-1", "365d") + "\n[policy]\nrenew_before = \"30d\"\n"
}

/// Two years, by moved clocks. Verifies: the daemon starts each rollover by itself, about 30 days
/// before the leaf's end, and not earlier; DPS accepts the old leaf until its end, the new one from
/// its first day on; then the old one is gone from its slot and refused.
#[test]
fn a_device_is_renewed_year_after_year() {
    let mut env = TestEnv::new().with_a_movable_clock();
    env.configure(&(env.configuration() + &leaf_of_a_year()));
    env.start();
    env.run_ceremony();
    env.run(&["enrollment", "add", "--individual", "pump-7"]);
    let mut old = env.enlist("device-1y", "pump-7");
    is_in_state(&env, "serving");
    let mut prober = Prober::honest(&env, std::slice::from_ref(&old));
    let mut age_days = 0;
    for goes_into_the_secondary in [true, false] {
        while age_days < 330 {
            let step = (330 - age_days).min(60);
            env.passes(Duration::days(step));
            age_days += step;
            is_assigned(&env.emulator, &old);
        }
        let open = env.json(&["roll", "list", "--open"]);
        assert_eq!(open, Value::Array(Vec::new()), "too early");
        env.passes(Duration::days(7));
        let roll = until("the roll begins by itself", || {
            let open = env.json(&["roll", "list", "--open"]);
            open.get(0).cloned()
        });
        assert_eq!(roll["started_by"], "hallmarkd");

        let new = env.enlist("device-1y", "pump-7");
        is_in_state(&env, "draining");
        let new_prober = Prober::honest(&env, std::slice::from_ref(&new));
        env.passes(Duration::days(27));
        for leaf in [&old, &new] {
            is_assigned(&env.emulator, leaf);
        }
        prober.ends();
        env.passes(Duration::days(2));
        is_in_state(&env, "serving");
        let mut holding = [None, thumbprint(&new)];
        if !goes_into_the_secondary {
            holding.reverse();
        }
        assert_eq!(slots(&env), holding);
        assert!(register(&env.emulator, &old).is_err());
        (old, prober, age_days) = (new, new_prober, 29);
    }
    prober.ends();
}

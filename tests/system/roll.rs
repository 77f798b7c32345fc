//! The renewal of an individually enrolled device, through both slots and over restarts.

use crate::device::{is_assigned, register};
use crate::invariants::held;
use crate::prober::Prober;
use crate::process::until;
use crate::request::{Holder, Request};
use crate::stage::Stage;
use serde_json::Value;
use time::Duration;

const START: [&str; 5] = ["roll", "start", "pump-7", "--reason", "expiry"];

fn enrollment(stage: &Stage) -> Value {
    stage.json(&["enrollment", "show", "pump-7"])[0].clone()
}

/// Waits until the slots are in this state, and the service shows it.
fn is_in_state(stage: &Stage, state: &str) {
    until(state, || {
        let seen = enrollment(stage);
        (seen["slots"]["state"] == state && seen["state"] == "in step").then_some(())
    });
}

/// What the service itself has in its slots.
fn slots(stage: &Stage) -> [Option<String>; 2] {
    let record = stage.emulator.individual("pump-7").unwrap();
    ["primary", "secondary"].map(|slot| held(&record, slot))
}

fn thumbprint(device: &Holder) -> Option<String> {
    Some(device.thumbprint.clone())
}

fn enrolled() -> Stage {
    let stage = Stage::up();
    stage.told(&["enrollment", "add", "--individual", "pump-7"]);
    stage
}

/// Verifies, with a restart of the daemon between any two steps: the new leaf has the same name and
/// goes into the other slot; both are accepted meanwhile; a third one has no place and is refused;
/// the old one is retired when it has expired, and then refused; the next goes into the primary again.
#[test]
fn a_device_is_renewed_through_both_slots_over_restarts() {
    let stage = Stage::set();
    let moving = "ids = [\"*\"]\nmay_move = true";
    stage.configure(&stage.configuration().replacen("ids = [\"*\"]", moving, 1));
    let mut stage = stage.raised();
    stage.told(&["enrollment", "add", "--individual", "pump-7"]);
    let station = stage.enlist("station", "station-1");
    let first = stage
        .caller(&station)
        .obtain(&Request::new("device-20s", "pump-7"));
    is_in_state(&stage, "serving");
    assert_eq!(slots(&stage), [thumbprint(&first), None]);
    is_assigned(&stage.emulator, &first);

    let second = stage.caller(&station).obtain(&Request::device("pump-7"));
    assert_ne!(second.serial, first.serial);
    stage.restart();
    is_in_state(&stage, "draining");
    assert_eq!(slots(&stage), [thumbprint(&first), thumbprint(&second)]);
    is_assigned(&stage.emulator, &first);
    is_assigned(&stage.emulator, &second);

    stage.restart();
    let too_early = stage.caller(&station).ask(&Request::device("pump-7"));
    assert_eq!(
        (too_early.status, too_early.code()),
        (409, "roll_under_way")
    );
    is_in_state(&stage, "serving");
    assert_eq!(slots(&stage), [None, thumbprint(&second)]);
    assert!(
        register(&stage.emulator, &first).is_err(),
        "the old leaf is still accepted"
    );
    is_assigned(&stage.emulator, &second);

    stage.restart();
    let third = stage.caller(&station).obtain(&Request::device("pump-7"));
    is_in_state(&stage, "draining");
    assert_eq!(slots(&stage), [thumbprint(&third), thumbprint(&second)]);
    is_assigned(&stage.emulator, &second);
    is_assigned(&stage.emulator, &third);
    assert_eq!(stage.json(&["roll", "list"]).as_array().unwrap().len(), 2);
    assert_eq!(
        stage
            .json(&["roll", "list", "--open"])
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
    let mut stage = enrolled();
    let station = stage.station();
    let first = station.obtain(&Request::device("pump-7"));
    stage.is_in_step();
    let unanswered = Fault::on("individual.put", Action::HangAfter);
    stage.emulator.inject(unanswered).unwrap();
    let second = station.obtain(&Request::device("pump-7"));
    until("the write is under way", || {
        stage.emulator.faults().is_empty().then_some(())
    });
    stage.kill();
    stage.start();
    is_in_state(&stage, "draining");
    assert_eq!(slots(&stage), [thumbprint(&first), thumbprint(&second)]);
}

/// An announced roll waits for its request, can be given up until then, and ends like any other.
#[test]
fn an_operator_starts_and_aborts_a_roll() {
    let stage = enrolled();
    let station = stage.station();
    let told = stage.hallmark(&START);
    assert_eq!(told.code, Some(1), "nothing to replace yet: {told:?}");
    station.obtain(&Request::device("pump-7"));
    stage.is_in_step();

    let started = stage.json(&START)["rolls"].clone();
    let id = started[0]["id"].to_string();
    assert_eq!(started[0]["state"], "requested");
    let second = stage.hallmark(&START);
    assert!(
        second.code == Some(1) && second.error.contains("under way already"),
        "{second:?}"
    );
    assert_eq!(stage.json(&["roll", "abort", &id])["state"], "aborted");
    let again = stage.hallmark(&["roll", "abort", &id]);
    assert_eq!(again.code, Some(1), "{again:?}");

    let started = stage.json(&START)["rolls"].clone();
    let id = started[0]["id"].to_string();
    let renewed = station.obtain(&Request::device("pump-7"));
    is_in_state(&stage, "draining");
    let shown = stage.json(&["roll", "show", &id]);
    assert_eq!(shown["state"], "draining");
    assert_eq!(shown["new_certificate"], renewed.thumbprint);
    assert!(
        shown["waits_for"].as_str().unwrap().contains("expire"),
        "{shown}"
    );
    let too_late = stage.hallmark(&["roll", "abort", &id]);
    assert_eq!(too_late.code, Some(1), "{too_late:?}");
}

const LEAF_OF_A_YEAR: &str = r#"
[[profile]]
name = "device-1y"
authority = "line-1"
role = "device"
[profile.certificate]
kind = "leaf"
validity = "365d"
key_types = ["p256"]
key_usage = ["digital_signature"]
extended_key_usage = ["client_auth"]

[policy]
renew_before = "30d"
"#;

/// Two years, by moved clocks. Verifies: the daemon starts each roll by itself, about 30 days before
/// the leaf's end, and not earlier; the old leaf is let in until its end, the new one from its first
/// day on; then the old one is gone from its slot and refused.
#[test]
fn a_device_is_renewed_year_after_year() {
    let mut stage = Stage::set().with_a_movable_clock();
    stage.configure(&(stage.configuration() + LEAF_OF_A_YEAR));
    stage.start();
    stage.run_ceremony();
    stage.told(&["enrollment", "add", "--individual", "pump-7"]);
    let mut old = stage.enlist("device-1y", "pump-7");
    is_in_state(&stage, "serving");
    let mut prober = Prober::honest(&stage, std::slice::from_ref(&old));
    let mut age_days = 0;
    for goes_into_the_secondary in [true, false] {
        while age_days < 330 {
            let step = (330 - age_days).min(60);
            stage.passes(Duration::days(step));
            age_days += step;
            is_assigned(&stage.emulator, &old);
        }
        let open = stage.json(&["roll", "list", "--open"]);
        assert_eq!(open, Value::Array(Vec::new()), "too early");
        stage.passes(Duration::days(7));
        let roll = until("the roll begins by itself", || {
            let open = stage.json(&["roll", "list", "--open"]);
            open.get(0).cloned()
        });
        assert_eq!(roll["started_by"], "hallmarkd");

        let new = stage.enlist("device-1y", "pump-7");
        is_in_state(&stage, "draining");
        let new_prober = Prober::honest(&stage, std::slice::from_ref(&new));
        stage.passes(Duration::days(27));
        for leaf in [&old, &new] {
            is_assigned(&stage.emulator, leaf);
        }
        prober.ends();
        stage.passes(Duration::days(2));
        is_in_state(&stage, "serving");
        let mut holding = [None, thumbprint(&new)];
        if !goes_into_the_secondary {
            holding.reverse();
        }
        assert_eq!(slots(&stage), holding);
        assert!(register(&stage.emulator, &old).is_err());
        (old, prober, age_days) = (new, new_prober, 29);
    }
    prober.ends();
}

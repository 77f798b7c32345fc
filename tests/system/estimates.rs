//! Tests the estimate of a rollover's rest: it is from what was measured in the last hour, and
//! absent where nothing can be said.

use crate::authority_roll::{comes_to, second_signs, shown, start};
use crate::process::until;
use crate::test_env::TestEnv;
use serde_json::{Value, json};
use time::Duration;

/// A plant whose clock can be moved, with a group and these devices below it.
fn line_with(devices: &[&str]) -> TestEnv {
    let env = TestEnv::new().with_a_movable_clock().started();
    env.add_group("line-1", "line-1");
    for device in devices {
        env.enlist("device", device);
    }
    env.wait_in_sync();
    env
}

/// Sentence and code of the estimate.
fn estimate(env: &TestEnv, roll: &str) -> (Value, Value) {
    let roll = shown(env, roll);
    (
        roll["estimate"].clone(),
        roll["estimate_detail"]["code"].clone(),
    )
}

/// Verifies: while the devices of a compromised authority ask for new leaves, nothing is said at
/// first; after an hour without one the estimate says so; after one of four devices it is three
/// hours, in the list and for people too; at the end there is none.
#[test]
fn the_rest_of_a_compromise_is_estimated_from_the_last_hour() {
    let devices = ["press-1", "press-2", "press-3", "press-4"];
    let env = line_with(&devices);
    let roll = start(&env, "line-1", "compromise", &[]);
    until("the successor signs", || {
        second_signs(&env, "line-1").then_some(())
    });
    comes_to(&env, &roll, "reissuing");
    assert_eq!(estimate(&env, &roll), (Value::Null, Value::Null));

    env.passes(Duration::HOUR);
    let none = (json!("no progress in the last hour"), json!("no_progress"));
    assert_eq!(estimate(&env, &roll), none);

    env.enlist("device", "press-1");
    let words = "about 3 h at the rate of the last hour";
    assert_eq!(estimate(&env, &roll), (json!(words), json!("at_rate")));
    assert_eq!(env.json(&["roll", "list", "--open"])[0]["estimate"], words);
    let text = env.run(&["roll", "show", &roll]);
    assert!(text.contains(&format!("estimate: {words}\n")), "{text}");
    assert!(!text.contains("at_rate"), "{text}");

    for device in &devices[1..] {
        env.enlist("device", device);
    }
    comes_to(&env, &roll, "done");
    assert_eq!(estimate(&env, &roll), (Value::Null, Value::Null));
}

/// Verifies: a rollover by expiry whose devices have nothing to do ends with the old certificate,
/// and its estimate is that date.
#[test]
fn the_rest_of_a_drain_lasts_until_the_old_certificate_ends() {
    let env = line_with(&["press-1"]);
    let roll = start(&env, "line-1", "expiry", &[]);
    comes_to(&env, &roll, "draining");
    let until = shown(&env, &roll)["old_not_after"].clone();
    let until = until.as_str().unwrap();
    let words = format!("not before {until}, when the old certificate ends");
    assert_eq!(estimate(&env, &roll), (json!(words), json!("not_before")));
}

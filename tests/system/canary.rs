//! Tests canaries that cannot be tried: the reason is shown, and becomes an alarm; and authorities
//! that end before a canary would.

use crate::authority_roll::{begun, comes_to, shown, start};
use crate::process::until;
use crate::test_env::TestEnv;
use dps_emulator::{Action, Aim, Fault};
use serde_json::{Value, json};
use time::Duration;

fn alarms(env: &TestEnv) -> Vec<Value> {
    let details = env.json(&["status"])["alarm_details"].clone();
    let mut alarms = details.as_array().unwrap().clone();
    alarms.retain(|it| it["code"] == "canary_not_tried");
    alarms
}

/// The canary meets a device plane, a hub and a service plane that fail. Verifies, for each: the
/// rollover stays staged, shows at once since when and why the canary could not be tried, and has
/// an alarm after ten minutes, not before; it goes on by itself, and the alarm ends.
#[test]
fn a_canary_that_cannot_be_tried_is_shown_and_becomes_an_alarm() {
    for (operation, status) in [
        ("device.register", 500),
        ("identity.delete", 503),
        ("registration.delete", 500),
    ] {
        let env = begun(TestEnv::new().with_a_movable_clock());
        let fails = Fault::on(operation, Action::status(status)).times(1_000);
        env.emulator.inject(fails).unwrap();
        let roll = start(&env, "line-1", "expiry", &[]);
        comes_to(&env, &roll, "staged");
        let waits = until("it shows the reason", || {
            let waits = shown(&env, &roll)["waits_for_detail"].clone();
            (waits["code"] == "canary_not_tried").then_some(waits)
        });
        let parameters = &waits["parameters"];
        assert_eq!(parameters["group"], "line-1", "{waits}");
        let reason = parameters["reason"].as_str().unwrap();
        assert!(reason.contains(&status.to_string()), "{operation}: {waits}");
        assert_eq!(alarms(&env), Vec::<Value>::new(), "{operation}");
        env.passes(Duration::minutes(9));
        assert_eq!(alarms(&env), Vec::<Value>::new(), "{operation}");
        env.passes(Duration::minutes(2));
        let alarms_now = alarms(&env);
        assert_eq!(alarms_now.len(), 1, "{operation}: {alarms_now:?}");
        let alarm = &alarms_now[0]["parameters"];
        assert_eq!(alarm["since"], parameters["since"], "{operation}");
        assert_eq!(alarm["authority"], "line-1", "{operation}");
        env.emulator.clear_faults();
        until("it goes on", || {
            (shown(&env, &roll)["state"] == "draining").then_some(())
        });
        assert_eq!(alarms(&env), Vec::<Value>::new(), "{operation}");
        assert_eq!(shown(&env, &roll)["detail"]["canary_failures"], json!(null));
    }
}

/// Verifies: a next certificate that ends within the hour is tried by a canary that ends no later,
/// and signs.
#[test]
fn an_authority_that_ends_before_a_canary_would_is_tried() {
    let env = begun(TestEnv::new());
    let roll = start(&env, "line-1", "expiry", &["--validity", "20m"]);
    comes_to(&env, &roll, "draining");
    let late = "intent c JOIN generation g ON g.id = c.issuer JOIN intent i ON i.id = g.certificate
        WHERE c.subject LIKE 'hallmark-canary-%' AND c.not_after > i.not_after";
    assert_eq!(env.count(late), 0);
    assert_eq!(
        env.count("intent WHERE subject LIKE 'hallmark-canary-%'"),
        1
    );
}

/// The registration of one canary hangs. Verifies: the canary of another authority at the same
/// service is tried in the same moment, so its rollover cuts over before the first call has ended.
#[test]
fn a_canary_that_hangs_holds_up_no_other() {
    let env = begun(TestEnv::new());
    env.add_group("operations", "operations");
    env.wait_in_sync();
    let hangs = Fault::on("device.register", Action::Hang);
    let aim = Aim {
        path_contains: Some("hallmark-canary-line-1-".into()),
        ..hangs.aim
    };
    env.emulator.inject(Fault { aim, ..hangs }).unwrap();
    let line = start(&env, "line-1", "expiry", &[]);
    until("its registration hangs", || {
        env.emulator.faults().is_empty().then_some(())
    });
    let other = start(&env, "operations", "expiry", &[]);
    comes_to(&env, &other, "draining");
    let line = shown(&env, &line);
    assert_eq!(line["state"], "staged", "{line}");
    assert_eq!(line["detail"]["canary_failures"], json!(null), "{line}");
}

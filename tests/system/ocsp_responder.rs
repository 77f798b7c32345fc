//! Tests the certificates of OCSP responders: their renewal, and the alarm while there is none.

use crate::ocsp::{configured, responder_key, responders, revoke, wait_for_responders};
use crate::process::until;
use crate::test_env::TestEnv;
use serde_json::Value;
use std::fs;
use time::Duration;

/// Four days, by moved clocks. Verifies: the certificate is renewed at half of its validity, for
/// the same key; one that was revoked is replaced, with another key.
#[test]
fn a_responder_renews_its_certificate() {
    let mut env = configured("").with_a_movable_clock();
    env.start();
    env.run_ceremony();
    wait_for_responders(&env, 2);
    let certificates = "intent_state WHERE profile = 'ocsp-responder' AND state = 'issued'";
    let (key, made) = (responder_key(&env), env.count(certificates));
    assert_eq!(made, 2);
    env.passes(Duration::days(3));
    env.passes(Duration::days(1));
    until("both certificates are renewed", || {
        (env.count(certificates) == 4).then_some(())
    });
    assert_eq!(responder_key(&env), key);

    let serial: String = crate::invariants::open(&env.database())
        .query_row(
            "SELECT hex(i.serial) FROM responder r JOIN intent i ON i.id = r.certificate
             JOIN generation g ON g.id = r.generation WHERE g.authority = 'line-1'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    revoke(&env, &serial, "keyCompromise");
    until("the responder has another key", || {
        let found = "responder WHERE certificate IS NOT NULL";
        (env.count(certificates) == 5 && env.count(found) == 2).then_some(())
    });
    assert_ne!(responder_key(&env), key);
}

/// The alarm of line-1's responder.
fn alarm(env: &TestEnv) -> Option<Value> {
    let alarms = env.json(&["status"])["alarm_details"]
        .as_array()
        .unwrap()
        .clone();
    alarms.into_iter().find(|it| {
        it["code"] == "ocsp_responder_not_renewed" && it["parameters"]["authority"] == "line-1"
    })
}

/// Four days, by moved clocks. Verifies: a responder that its token does not renew is an alarm with
/// the token's failure as the cause, however often it is tried, and in the log once; when the token
/// is back it is renewed, and the alarm ends.
#[test]
fn a_responder_that_is_not_renewed_is_an_alarm_with_its_cause() {
    let mut env = configured("").with_a_movable_clock();
    env.start();
    env.run_ceremony();
    wait_for_responders(&env, 2);
    let of_line_1 = |env: &TestEnv| {
        let mut all = responders(env).into_iter();
        all.find(|it| it["authority"] == "line-1").unwrap()
    };
    let end = of_line_1(&env)["certificate_not_after"].clone();
    assert_eq!(alarm(&env), None);
    fs::rename(env.path("tokens"), env.path("tokens.away")).unwrap();
    env.passes(Duration::days(4));
    let first = until("the alarm is there", || alarm(&env));
    let parameters = &first["parameters"];
    assert_eq!(parameters["generation"], 1, "{first}");
    assert_eq!(parameters["not_after"], end, "{first}");
    let first_reason = parameters["reason"].as_str().unwrap();
    assert!(first_reason.contains("factory"), "{first}");
    let settled = until("the token is seen to be away", || {
        let state = env.json(&["status"])["tokens"]["factory"]["state"].clone();
        let reason = alarm(&env)?["parameters"]["reason"].clone();
        (state != "ready" && state != "starting").then_some(reason)
    });
    for _ in 0..12 {
        env.passes(Duration::seconds(6));
    }
    let last = alarm(&env).unwrap();
    let reason = last["parameters"]["reason"].as_str().unwrap();
    assert!(reason.contains("factory"), "{last}");
    assert!(!reason.contains("signed again in"), "{last}");
    assert_eq!(of_line_1(&env)["problem"], reason, "{settled}");
    let log = fs::read_to_string(env.path("hallmarkd.log")).unwrap();
    let failed = log.lines().filter(|it| {
        it.contains("certificate of the OCSP responder not made, retrying")
            && it.contains("line-1-1")
    });
    let reasons: Vec<&str> = failed.collect();
    assert!((1..=3).contains(&reasons.len()), "{reasons:#?}");

    fs::rename(env.path("tokens.away"), env.path("tokens")).unwrap();
    env.wait_ready();
    until("the responder is renewed", || {
        (alarm(&env).is_none() && of_line_1(&env)["certificate_not_after"] != end).then_some(())
    });
}

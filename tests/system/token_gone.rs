//! Tests a token that is taken away and put back. The daemon says so, serves what it can, and
//! recovers by itself.

use crate::caller::Answer;
use crate::process::until;
use crate::provisioned::below_line_1;
use crate::request::Request;
use crate::test_env::TestEnv;
use std::fs;

fn taken_away(env: &TestEnv) {
    fs::rename(env.path("tokens"), env.path("tokens.away")).unwrap();
}

fn put_back(env: &TestEnv) {
    fs::rename(env.path("tokens.away"), env.path("tokens")).unwrap();
}

fn token_state(env: &TestEnv) -> String {
    let status = env.json(&["status"]);
    let token = &status["tokens"]["factory"];
    token["state"].as_str().unwrap().to_owned()
}

/// Asserts that the caller is refused because of the token, with `Retry-After`.
fn is_refused_with_retry_after(answer: &Answer) {
    assert_eq!(
        (answer.status, answer.code()),
        (503, "token_unavailable"),
        "{answer:?}"
    );
    assert!(
        answer.retry_after.is_some_and(|seconds| seconds > 0),
        "{answer:?}"
    );
    assert_eq!(answer.content_type, "application/problem+json");
}

/// Asserts that requests without a signature are answered.
fn reads_are_served(env: &TestEnv) {
    for list in [
        &["authority", "list"][..],
        &["enrollment", "list"],
        &["device", "list"],
    ] {
        assert!(!env.json(list).as_array().unwrap().is_empty(), "{list:?}");
    }
    env.run(&["audit", "verify"]);
}

/// Verifies: issuance is refused with 503 and `Retry-After`; requests without a signature are
/// answered; the daemon does not end; when the token is back, issuance works again without a
/// restart.
#[test]
fn a_token_taken_away_heals_when_it_is_put_back() {
    let (env, _) = below_line_1(&["press-1"]);
    let station = env.station_called("station-2");
    let serve = env.daemon();

    taken_away(&env);
    let request = Request::device("press-2");
    is_refused_with_retry_after(&station.ask(&request));
    until("the status says so", || {
        (token_state(&env) != "ready").then_some(())
    });
    assert_eq!(env.json(&["status"])["ready"], false);
    is_refused_with_retry_after(&station.ask(&request));
    reads_are_served(&env);

    put_back(&env);
    env.wait_ready();
    station.obtain(&request);
    assert_eq!(env.daemon(), serve);
    assert_eq!(
        env.count("intent_state WHERE subject = 'press-2' AND state = 'issued'"),
        1
    );
    assert_eq!(env.count("intent_state WHERE state = 'intended'"), 0);
}

/// The same from the start: the daemon starts without its token, and waits for it.
#[test]
fn a_daemon_started_without_its_token_comes_up_and_waits_for_it() {
    let (mut env, _) = below_line_1(&["press-1"]);
    let station = env.enlist("station", "station-2");
    env.stop();
    taken_away(&env);
    env.start();
    assert_ne!(token_state(&env), "ready");
    until("the token has a reason and a code", || {
        let token = env.json(&["status"])["tokens"]["factory"].clone();
        (token["reason_code"] == "token_unavailable").then_some(())
    });
    reads_are_served(&env);
    let caller = env.caller(&station);
    let request = Request::device("press-2");
    is_refused_with_retry_after(&caller.ask(&request));

    put_back(&env);
    env.wait_ready();
    caller.obtain(&request);
}

//! The token is taken away and put back. The daemon says so, serves what it can, and heals by
//! itself.

use crate::caller::Answer;
use crate::process::until;
use crate::provisioned::below_line_1;
use crate::request::Request;
use crate::stage::Stage;
use std::fs;

/// Unplugs the token.
fn taken_away(stage: &Stage) {
    fs::rename(stage.path("tokens"), stage.path("tokens.away")).unwrap();
}

fn put_back(stage: &Stage) {
    fs::rename(stage.path("tokens.away"), stage.path("tokens")).unwrap();
}

fn token_state(stage: &Stage) -> String {
    let status = stage.json(&["status"]);
    let token = &status["tokens"]["factory"];
    token["state"].as_str().unwrap().to_owned()
}

/// The caller is told that it is the token, and when to come back.
fn is_told_to_wait(answer: &Answer) {
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

/// Everything that needs no signature is answered.
fn is_looked_at(stage: &Stage) {
    for list in [
        &["authority", "list"][..],
        &["enrollment", "list"],
        &["device", "list"],
    ] {
        assert!(!stage.json(list).as_array().unwrap().is_empty(), "{list:?}");
    }
    stage.told(&["audit", "verify"]);
}

/// Verifies: issuance is refused with 503 and `Retry-After`; what needs no signature is answered;
/// the daemon does not end; when the token is back, issuance works again without a restart.
#[test]
fn a_token_taken_away_heals_when_it_is_put_back() {
    let (stage, _) = below_line_1(&["press-1"]);
    let station = stage.station_called("station-2");
    let serve = stage.daemon();

    taken_away(&stage);
    let request = Request::device("press-2");
    is_told_to_wait(&station.ask(&request));
    until("the status says so", || {
        (token_state(&stage) != "ready").then_some(())
    });
    assert_eq!(stage.json(&["status"])["ready"], false);
    is_told_to_wait(&station.ask(&request));
    is_looked_at(&stage);

    put_back(&stage);
    stage.is_ready();
    station.obtain(&request);
    assert_eq!(stage.daemon(), serve);
    assert_eq!(
        stage.count("intent WHERE subject = 'press-2' AND state = 'issued'"),
        1
    );
    assert_eq!(stage.count("intent WHERE state = 'intended'"), 0);
}

/// The same from the start: the daemon comes up, and waits for its token.
#[test]
fn a_daemon_started_without_its_token_comes_up_and_waits_for_it() {
    let (mut stage, _) = below_line_1(&["press-1"]);
    let station = stage.enlist("station", "station-2");
    stage.stop();
    taken_away(&stage);
    stage.start();
    assert_ne!(token_state(&stage), "ready");
    is_looked_at(&stage);
    let caller = stage.caller(&station);
    let request = Request::device("press-2");
    is_told_to_wait(&caller.ask(&request));

    put_back(&stage);
    stage.is_ready();
    caller.obtain(&request);
}

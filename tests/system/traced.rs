//! Tests that a request is followed by its trace context (W3C Trace Context): from the API to the
//! log of the daemon and of its worker, and to the provisioning service and the hub.

use crate::caller::{Answer, Caller};
use crate::process::{Process, until};
use crate::provisioned::individually;
use crate::request::Request;
use crate::test_env::TestEnv;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

/// Has the log say every operation of the worker.
const VERBOSE: &str = "info,hallmark_worker=debug";

fn trace_id(digit: char) -> String {
    format!("{}736", digit.to_string().repeat(29))
}

fn parent(digit: char) -> String {
    format!("00-{}-00f067aa0ba902b7-01", trace_id(digit))
}

/// The lines of the log that belong to a trace.
fn lines(env: &TestEnv, digit: char) -> Vec<String> {
    let log = fs::read_to_string(env.path("hallmarkd.log")).unwrap();
    let id = format!("trace_id={}", trace_id(digit));
    let lines = log.lines().filter(|line| line.contains(&id));
    lines.map(str::to_owned).collect()
}

fn ask(caller: &Caller, request: &Request, headers: &[(&str, &str)]) -> Answer {
    let mut post = caller.post();
    for (name, value) in headers {
        post = post.header(*name, *value);
    }
    let post = post.header("idempotency-key", &request.idempotency_key);
    Answer::read(post.json(&request.body()).send().unwrap()).unwrap()
}

/// Verifies: the trace of an issued and of a refused request is in their lines of the log, in the
/// worker's line of the signature, and with its state in the call by which DPS gets the leaf; a
/// request beside them has none. A context that the specification calls invalid is no trace, and
/// refuses nothing.
#[test]
fn a_request_is_followed_to_the_worker_and_to_dps() {
    let (mut env, _) = individually(&["press-1"]);
    env.stop();
    env.emulator.clear_requests();
    let mut serve = env.serve(&[]);
    serve.env("RUST_LOG", VERBOSE);
    env.attend(Process::start(&mut serve, env.path("hallmarkd.log")));
    env.wait_ready();
    let station = env.station_called("station-2");

    let traced = [("traceparent", &*parent('a')), ("tracestate", "congo=t61")];
    let issued = ask(&station, &Request::device("press-1"), &traced);
    assert_eq!(issued.status, 201, "{issued:?}");
    let mut wrong = Request::device("press-3");
    wrong.csr = "no CSR".to_owned();
    let refused = ask(&station, &wrong, &[("traceparent", &parent('b'))]);
    assert_eq!(refused.status, 400, "{refused:?}");
    let old = "00-".to_owned() + &parent('c');
    let untraced = ask(
        &station,
        &Request::device("press-4"),
        &[("traceparent", &old)],
    );
    assert_eq!(untraced.status, 201, "{untraced:?}");
    let twice = [
        ("traceparent", &*parent('d')),
        ("traceparent", &*parent('e')),
    ];
    let untraced = ask(&station, &Request::device("press-5"), &twice);
    assert_eq!(untraced.status, 201, "{untraced:?}");

    env.wait_in_sync();
    let issued = lines(&env, 'a');
    let has = |words: &str| issued.iter().filter(|line| line.contains(words)).count();
    assert_eq!(
        has("certificate issued subject=\"press-1\""),
        1,
        "{issued:#?}"
    );
    assert_eq!(
        has("operation performed operation=\"sign\""),
        1,
        "{issued:#?}"
    );
    let refused = lines(&env, 'b');
    assert!(
        refused.iter().any(|it| it.contains("refused")),
        "{refused:#?}"
    );
    for digit in ['c', 'd', 'e'] {
        assert_eq!(lines(&env, digit), [""; 0], "{digit}");
    }
    let sent = env.emulator.requests_of("individual.put");
    let sent: BTreeSet<_> = sent
        .iter()
        .filter_map(|it| Some((it.traceparent.clone()?, it.tracestate.clone())))
        .collect();
    let state = Some("congo=t61".to_owned());
    assert_eq!(sent, BTreeSet::from([(parent('a'), state)]));
}

/// Verifies: the trace of a compromise goes with the change of the enrollment and with the deletion
/// at the hub that follows from it, also when the daemon was killed in between; the items of a
/// batch are in the trace of the batch.
#[test]
fn what_follows_later_is_in_the_trace_of_its_cause() {
    let (mut env, devices) = individually(&["press-1"]);
    let request = Request::device("press-2");
    let item = json!({ "items": [{ "profile": "device", "registration_id": "press-2",
        "csr": request.csr, "idempotency_key": request.idempotency_key }] });
    let batch = env
        .station_called("station-2")
        .post_to("/v1/certificates:batch");
    let batch = batch.header("traceparent", parent('a')).json(&item).send();
    assert_eq!(batch.unwrap().status(), 200);
    let issued = lines(&env, 'a');
    assert!(
        issued.iter().any(|it| it.contains("press-2")),
        "{issued:#?}"
    );

    let away = dps_emulator::Action::status(503);
    let fault = dps_emulator::Fault::on("individual.put", away).times(1_000);
    env.emulator.inject(fault).unwrap();
    let trace = format!("traceparent: {}", parent('b'));
    let start = json!({ "registration_id": devices[0].id, "reason": "compromise" }).to_string();
    let json = "content-type: application/json";
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--unix-socket",
        env.path(env.admin).to_str().unwrap(),
    ]);
    curl.args(["--header", json, "--header", &trace, "--data", &start]);
    // Its answer would wait for the service.
    let mut curl = curl.arg("http://localhost/v1/rolls").spawn().unwrap();
    until("the change was tried", || {
        let tried = env.emulator.requests_of("individual.put");
        tried
            .iter()
            .any(|it| it.traceparent == Some(parent('b')))
            .then_some(())
    });
    env.kill();
    curl.wait().unwrap();
    env.emulator.clear_faults();
    env.emulator.clear_requests();
    env.start();
    until("the identity is deleted", || {
        let deleted = env.emulator.requests_of("identity.delete");
        deleted
            .iter()
            .any(|it| it.status == Some(204))
            .then_some(())
    });
    for operation in ["individual.put", "identity.delete"] {
        let sent = env.emulator.requests_of(operation);
        let in_trace = |it: &dps_emulator::LoggedRequest| it.traceparent == Some(parent('b'));
        assert!(sent.iter().any(in_trace), "{sent:#?}");
    }
}

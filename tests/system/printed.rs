//! Tests text from outside that holds line breaks, escape sequences and invisible marks: it is
//! shown and logged, and neither forges a line nor controls a terminal. JSON keeps it unchanged.

use crate::process::{CommandOutput, until};
use crate::request::Request;
use crate::test_env::TestEnv;
use dps_emulator::{Action, Fault};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};
use std::fs;

/// A line of the journal, as an intruder would write it, behind an escape sequence and marks.
const FORGED: &str =
    "x\n99  root  authority.made  forged\r\u{1b}[2K\u{9b}2J\u{202e}\u{2066}\u{200b}";

/// Asserts that nothing in it controls a terminal, and no line is the forged one.
fn is_quiet(what: &str, text: &str) {
    let acts = |it: &char| {
        let invisible = "\u{200b}\u{200c}\u{200d}\u{2060}\u{feff}\u{ad}\u{2028}\u{2029}";
        let turns = matches!(*it, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        (it.is_control() && *it != '\n') || turns || invisible.contains(*it)
    };
    let found = text.chars().find(acts);
    assert_eq!(found, None, "{what}: {text:?}");
    let forged = text.lines().find(|it| it.trim_start().starts_with("99 "));
    assert_eq!(forged, None, "{what}: {text}");
}

fn shown(output: &CommandOutput) -> String {
    let text = output.out.clone() + &output.error;
    is_quiet("a command", &text);
    text
}

fn with_common_name(name: &str) -> Request {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    let csr = parameters.serialize_request(&key).unwrap().pem().unwrap();
    Request::of("device", "press-7", csr, key.serialize_pem())
}

fn entries(journal: &Value) -> usize {
    journal.as_array().unwrap().len()
}

/// Verifies: refused requests whose id, profile, common name or idempotency key is forged are one
/// line each in `audit show`, and in the log; so are the reason of a block and what is refused to a
/// command; the journal as JSON holds what was sent.
#[test]
fn no_request_forges_a_line() {
    let env = TestEnv::running();
    let station = env.station();
    station.obtain(&Request::device("press-7"));
    station.ask(&Request::device(FORGED));
    station.ask(&Request::new(FORGED, "press-8"));
    station.ask(&with_common_name(FORGED));
    let mut tab = Request::device(FORGED);
    tab.idempotency_key = "a\tb".into();
    station.ask(&tab);
    env.run(&["device", "block", "press-7", "--reason", FORGED]);

    let journal = env.json(&["audit", "show"]);
    let sent = |it: &Value| it["subject"] == FORGED;
    assert!(journal.as_array().unwrap().iter().any(sent), "{journal:#}");
    let text = shown(&env.hallmark(&["audit", "show"]));
    assert_eq!(text.lines().count(), entries(&journal) + 1, "{text}");
    assert!(text.contains("x\\n99  root"), "{text}");
    let exported = env.run(&["audit", "export"]);
    assert_eq!(exported.lines().count(), entries(&journal));

    for command in [
        vec!["device", "show", FORGED],
        vec!["device", "block", FORGED],
        vec![
            "issue",
            "--profile",
            "device",
            "--id",
            "press-9",
            "--csr",
            FORGED,
        ],
        vec!["roll", "start", FORGED, "--reason", "compromise"],
        vec!["device", "show", "press-7"],
    ] {
        shown(&env.hallmark(&command));
    }
    let usage = env.hallmark(&["device", "show", "press-7", "\u{1b}[2K\u{202e}\r"]);
    assert_eq!(usage.code, Some(2));
    shown(&usage);
    is_quiet(
        "the log",
        &fs::read_to_string(env.path("hallmarkd.log")).unwrap(),
    );
}

/// Verifies: the answers of a provisioning service, and a token's description of itself, are one
/// line of a table and of the log.
#[test]
fn neither_a_service_nor_a_token_forges_a_line() {
    let env = TestEnv::running();
    let body = json!({ "errorCode": 500_001, "trackingId": FORGED, "message": FORGED });
    let refuse = Action::Status {
        status: 500,
        headers: vec![],
        body: Some(body),
    };
    env.emulator
        .inject(Fault::on("individual.put", refuse).times(1_000))
        .unwrap();
    env.station().obtain(&Request::device("press-7"));
    env.run(&["enrollment", "add", "--individual", "press-7"]);
    let failed = until("the service refuses", || {
        let output = env.hallmark(&["push", "list"]);
        output.out.contains("500").then_some(output)
    });
    let text = shown(&failed);
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("\\u{202e}"), "{text}");

    env.make_token("a\n99  b\u{1b}[2K\u{202e}");
    let listed = until("the token is in sight", || {
        let output = env.hallmark(&["token", "list"]);
        output.out.contains("\\n99").then_some(output)
    });
    shown(&listed);
    is_quiet(
        "the log",
        &fs::read_to_string(env.path("hallmarkd.log")).unwrap(),
    );
}

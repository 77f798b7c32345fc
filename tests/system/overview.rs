//! Tests the five lines of `hallmark status`: four questions, their severity, and the exit code
//! that monitoring reads.

use crate::process::{CommandOutput, until};
use crate::provisioned::below_line_1;
use crate::request::Request;
use crate::test_env::{HALLMARK, TestEnv};
use dps_emulator::{Action, Fault};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// The severity of a question in the five lines.
fn severity(output: &CommandOutput, question: &str) -> String {
    let lines: Vec<_> = output.out.lines().collect();
    assert_eq!(lines.len(), 5, "{output:?}");
    let line = lines.iter().find(|it| it.starts_with(question));
    let line = line.unwrap_or_else(|| panic!("no line {question}: {output:?}"));
    line.split_whitespace().nth(1).unwrap().to_owned()
}

/// Waits until a question has a severity; returns that output.
fn wait_for(env: &TestEnv, question: &str, wanted: &str) -> CommandOutput {
    until(&format!("{question} is {wanted}"), || {
        let output = env.hallmark(&["status"]);
        (severity(&output, question) == wanted).then_some(output)
    })
}

/// Verifies: a plant without a fault is good; a change that its service rejects needs attention; a
/// token that is away is critical, because nothing is issued; a daemon that is stopped gives no
/// answer. Each has the exit code of its worst line, no line has colours in a pipe, and `--json`
/// has the same answers.
#[test]
fn four_questions_are_answered_with_an_exit_code() {
    let (mut env, _) = below_line_1(&["press-1"]);
    let good = wait_for(&env, "operator", "good");
    assert_eq!(good.code, Some(0), "{good:?}");
    for question in ["safe", "issuing", "services"] {
        assert_eq!(severity(&good, question), "good", "{good:?}");
    }
    assert!(!good.out.contains('\u{1b}'), "{good:?}");

    let rejected = Fault::on("group.put", Action::status(400));
    env.emulator.inject(rejected).unwrap();
    let add = [
        "enrollment",
        "add",
        "--group",
        "line-2",
        "--authority",
        "line-1",
    ];
    env.run(&add);
    let parked = wait_for(&env, "services", "attention");
    assert_eq!(parked.code, Some(1), "{parked:?}");
    assert!(parked.out.contains("hallmark push list"), "{parked:?}");
    env.run(&["push", "retry", "line-2"]);
    assert_eq!(wait_for(&env, "operator", "good").code, Some(0));

    let station = env.station_called("station-2");
    fs::rename(env.path("tokens"), env.path("tokens.away")).unwrap();
    assert_eq!(station.ask(&Request::device("press-3")).status, 503);
    let away = wait_for(&env, "issuing", "critical");
    assert_eq!(away.code, Some(2), "{away:?}");
    let answers = env.json(&["status"])["overview"].clone();
    assert_eq!(answers[1]["severity"], "critical", "{answers}");
    assert_eq!(answers.as_array().unwrap().len(), 4);

    fs::rename(env.path("tokens.away"), env.path("tokens")).unwrap();
    assert_eq!(wait_for(&env, "operator", "good").code, Some(0));

    env.stop();
    assert_eq!(env.hallmark(&["status"]).code, Some(3));
}

/// Verifies: an authority that is blocked signs nothing, and is named as long as it does; a roll
/// that waits for an operator needs attention, and says which command approves it.
#[test]
fn what_an_operator_has_stopped_or_must_approve_is_named() {
    let env = TestEnv::running();
    env.add_group("line-1", "line-1");
    env.wait_in_sync();
    env.configure(&(env.configuration() + "\n[policy]\napprove = [\"cut_over\"]\n"));
    env.run(&["reload"]);
    wait_for(&env, "operator", "good");
    let block = ["authority", "block", "line-1", "--generation", "1"];
    env.run(&[&block[..], &["--reason", "stolen station"]].concat());
    let blocked = wait_for(&env, "issuing", "attention");
    assert!(
        blocked.out.contains("authority line-1 signs nothing"),
        "{blocked:?}"
    );
    let unblock = ["authority", "unblock", "line-1", "--generation", "1"];
    env.run(&[&unblock[..], &["--reason", "found"]].concat());
    wait_for(&env, "operator", "good");

    env.run(&[
        "roll",
        "start",
        "--authority",
        "line-1",
        "--reason",
        "expiry",
    ]);
    let waits = until("the roll waits for approval", || {
        let output = env.hallmark(&["status"]);
        output
            .out
            .contains("hallmark roll approve")
            .then_some(output)
    });
    assert_eq!(severity(&waits, "operator"), "attention", "{waits:?}");

    // Two matters: the five lines count them, and the whole status names both.
    env.run(&[
        "roll",
        "start",
        "--authority",
        "operations",
        "--reason",
        "expiry",
    ]);
    until("both are named", || {
        let counted = env.hallmark(&["status"]).out.contains("2 matters");
        let whole = env.run(&["status", "--verbose"]);
        let named = whole.matches("hallmark roll approve").count();
        (counted && named == 2).then_some(())
    });
}

/// Verifies: `--watch` prints the five lines again, and shows a token that was taken away in
/// between.
#[test]
fn watch_shows_what_changes() {
    let (env, _) = below_line_1(&["press-1"]);
    let mut command = Command::new(HALLMARK);
    command.args(["status", "--watch"]).stdout(Stdio::piped());
    command.env("HALLMARK_ADMIN_SOCKET", env.path("state/admin.sock"));
    let mut watch = command.spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut issuing = || {
        let line = lines.find(|it| it.as_ref().unwrap().starts_with("issuing"));
        line.unwrap().unwrap()
    };
    assert!(issuing().contains("good"));
    let station = env.station_called("station-2");
    fs::rename(env.path("tokens"), env.path("tokens.away")).unwrap();
    assert_eq!(station.ask(&Request::device("press-3")).status, 503);
    until("the token that is away is shown", || {
        issuing().contains("critical").then_some(())
    });
    watch.kill().unwrap();
    watch.wait().unwrap();
}

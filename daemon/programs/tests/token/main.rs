//! Tests tokens end to end: real SoftHSM tokens, real worker processes, the client.
//!
//! Each test has its own token folder, socket and worker. Without SoftHSM they fail:
//! `softhsm-setup/install` installs it.

mod fixture;

use fixture::{DEADLINE, Fixture, HALLMARKD, MODULE, SOON};
use hallmarkd::token::client::LOOKUP_DEADLINE;
use hallmarkd::token::health::TokenState;
use hallmarkd::token::{TokenError, bench};
use rustix::process::Signal;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

#[test]
fn a_thousand_signatures_from_32_threads_all_verify() {
    let fixture = Fixture::new();
    let running = fixture.start();
    let key = running.key();
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                for _ in 0..32 {
                    running
                        .client
                        .prove(&key, DEADLINE)
                        .expect("signs and verifies");
                }
            });
        }
    });
}

#[test]
fn a_killed_worker_is_replaced_and_the_same_client_signs_again() {
    let fixture = Fixture::new();
    let running = fixture.start();
    let key = running.key();
    running.client.prove(&key, DEADLINE).expect("signs");
    fixture.signal_worker(Signal::KILL);
    running.signs_again(&key);
    assert_eq!(running.client.health().restarts, 1);
}

#[test]
fn a_token_that_returns_recovers_without_a_restart() {
    let fixture = Fixture::new();
    let running = fixture.start();
    let key = running.key();
    running.client.prove(&key, DEADLINE).expect("signs");

    fs::rename(fixture.path("tokens"), fixture.path("unplugged")).expect("ours");
    let error = running.client.prove(&key, DEADLINE).expect_err("unplugged");
    assert!(matches!(error, TokenError::Unavailable { .. }), "{error:?}");
    let health = running.wait_for(TokenState::Unavailable);
    assert!(!health.reason.is_empty());

    fs::rename(fixture.path("unplugged"), fixture.path("tokens")).expect("ours");
    let health = running.wait_for(TokenState::Ready);
    running
        .client
        .prove(&key, DEADLINE)
        .expect("signs again at once");
    assert_eq!(health.restarts, 0);
}

#[test]
fn a_key_deleted_by_another_program_is_missing_and_the_others_keep_signing() {
    let fixture = Fixture::new();
    let running = fixture.start();
    let intruder = fixture.start_on("intruder.sock");
    intruder.wait_for(TokenState::Ready);
    // A worker deletes its own new keys alone.
    let lost = intruder.key_with_id(1);
    let kept = running.key_with_id(2);
    for key in [&lost, &kept] {
        running.client.prove(key, DEADLINE).expect("signs");
    }
    intruder
        .client
        .destroy(&lost.reference(), DEADLINE)
        .expect("it is on the same token");

    let begun = Instant::now();
    loop {
        match running.client.prove(&lost, DEADLINE) {
            Err(TokenError::Key { .. }) => break,
            Err(TokenError::Unavailable { .. }) => {}
            outcome => panic!("{outcome:?}"),
        }
        assert!(begun.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(50));
    }
    running
        .client
        .prove(&kept, DEADLINE)
        .expect("keeps signing");
}

#[test]
fn a_token_absent_at_the_start_is_waited_for() {
    let fixture = Fixture::new();
    fs::rename(fixture.path("tokens"), fixture.path("unplugged")).expect("ours");
    let running = fixture.start();
    running.wait_for(TokenState::Unavailable);
    let error = running.client.describe(DEADLINE).expect_err("unplugged");
    assert!(matches!(error, TokenError::Unavailable { .. }), "{error:?}");
    fs::rename(fixture.path("unplugged"), fixture.path("tokens")).expect("ours");
    running.wait_for(TokenState::Ready);
    assert_eq!(
        running.client.describe(DEADLINE).expect("plugged in").label,
        "factory"
    );
}

#[test]
fn a_wrong_pin_parks_after_one_login_until_it_is_corrected() {
    let fixture = Fixture::new();
    let pin = fs::read_to_string(fixture.path("pin")).expect("written by init-token");
    fixture.write("pin", "0000\n");
    let running = fixture.start();
    let health = running.wait_for(TokenState::Parked);
    assert!(health.reason.contains("PinIncorrect"), "{health:?}");
    let error = running.client.describe(DEADLINE).expect_err("parked");
    assert!(matches!(error, TokenError::Parked { .. }), "{error:?}");
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(
        running.client.health().recoveries.logins,
        1,
        "the prober has not tried it again"
    );

    fixture.signal_worker(Signal::KILL);
    running.wait_for(TokenState::Unavailable);
    let health = running.wait_for(TokenState::Parked);
    assert_eq!(health.recoveries.logins, 0, "nor has the next worker");

    fixture.write("pin", &pin);
    running.wait_for(TokenState::Ready);
    assert!(!fixture.path("token-factory.parked").exists());
}

#[test]
fn a_worker_that_hangs_misses_the_deadline_and_is_replaced() {
    let fixture = Fixture::new();
    let running = fixture.start();
    let key = running.key();
    running.client.prove(&key, DEADLINE).expect("signs");

    fixture.stop_worker();
    let begun = Instant::now();
    let error = running
        .client
        .prove(&key, Duration::from_millis(500))
        .expect_err("it is stopped");
    assert!(matches!(error, TokenError::Deadline { .. }), "{error:?}");
    assert!(
        begun.elapsed() < Duration::from_millis(1500),
        "{:?}",
        begun.elapsed()
    );

    running.signs_again(&key);
    assert_eq!(running.client.health().restarts, 1);
}

#[test]
fn two_tokens_with_one_label_are_refused_until_a_serial_says_which() {
    let fixture = Fixture::new();
    let serial = |output: Output| {
        let line = String::from_utf8(output.stdout).expect("text");
        let (_, serial) = line
            .trim()
            .rsplit_once("serial ")
            .expect("it says the serial");
        serial.to_owned()
    };
    let other = serial(fixture.init_token("other"));
    relabel(&fixture.path("tokens"), "other", "factory");
    let running = fixture.start();
    let health = running.wait_for(TokenState::Unavailable);
    assert!(
        health.reason.contains("2 tokens are labelled"),
        "{health:?}"
    );
    assert!(health.reason.contains(&other), "{health:?}");
    drop(running);

    fixture.write(
        "hallmark.toml",
        &fixture.configuration(&format!("serial = {other:?}")),
    );
    let running = fixture.start();
    running.wait_for(TokenState::Ready);
    assert_eq!(
        running.client.describe(DEADLINE).expect("ready").serial,
        other
    );
}

/// Writes another label into SoftHSM's token files. Labels are padded to 32 bytes.
fn relabel(tokens: &Path, from: &str, to: &str) {
    let (from, to) = (
        format!("{from:32}").into_bytes(),
        format!("{to:32}").into_bytes(),
    );
    for token in fs::read_dir(tokens).expect("the token folder") {
        let file = token.expect("readable").path().join("token.object");
        let mut content = fs::read(&file).expect("readable");
        if let Some(at) = content
            .windows(from.len())
            .position(|window| window == from)
        {
            content[at..at + to.len()].copy_from_slice(&to);
            fs::write(&file, content).expect("ours");
        }
    }
}

#[test]
fn the_pin_is_not_visible_in_the_worker() {
    let fixture = Fixture::new();
    let running = fixture.start();
    running.wait_for(TokenState::Ready);
    let pin = fs::read_to_string(fixture.path("pin")).expect("written by init-token");
    let pid = fixture.worker().expect("runs");
    for file in ["cmdline", "environ"] {
        let shown = fs::read(format!("/proc/{pid}/{file}")).expect("it is ours");
        let found = shown
            .windows(pin.trim().len())
            .any(|window| window == pin.trim().as_bytes());
        assert!(!found, "the PIN is in /proc/{pid}/{file}");
    }
    let environment = fs::read_to_string(format!("/proc/{pid}/environ")).expect("it is ours");
    assert!(
        environment.contains("SOFTHSM2_CONF="),
        "the worker has set it by itself"
    );
}

#[test]
fn the_worker_ends_with_its_supervisor_and_on_sigterm() {
    let fixture = Fixture::new();
    let running = fixture.start();
    running.wait_for(TokenState::Ready);
    fixture.signal_worker(Signal::TERM);
    running.wait_for(TokenState::Unavailable);
    running.wait_for(TokenState::Ready);
    drop(running);
    assert_eq!(fixture.worker(), None);
    assert!(!fixture.path("factory.sock").exists(), "it ended in order");
}

#[test]
fn a_second_worker_of_one_token_does_not_replace_the_socket() {
    let fixture = Fixture::new();
    let running = fixture.start();
    let key = running.key();
    let second = Command::new(HALLMARKD)
        .args(fixture.worker_arguments())
        .args(["--socket", &fixture.at("factory.sock")])
        .output()
        .expect("hallmarkd starts");
    assert!(!second.status.success());
    assert!(
        String::from_utf8_lossy(&second.stderr).contains("another worker"),
        "{second:?}"
    );
    running
        .client
        .prove(&key, DEADLINE)
        .expect("signs as before");
}

#[test]
fn a_token_is_made_once_and_new_token_prints_its_configuration() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../softhsm-setup/new-token");
    let run = || {
        let output = Command::new(&script)
            .arg(folder.path())
            .arg("quick-start")
            .env("HALLMARKD", HALLMARKD)
            .output()
            .expect("the script starts");
        assert!(output.status.success(), "{output:?}");
        output
    };
    let (first, second) = (run(), run());
    assert!(
        String::from_utf8_lossy(&first.stderr).contains("made token"),
        "{first:?}"
    );
    assert!(
        String::from_utf8_lossy(&second.stderr).contains("nothing done"),
        "{second:?}"
    );
    assert_eq!(first.stdout, second.stdout);
    let text = String::from_utf8(first.stdout).expect("text");
    let file = folder.path().join("hallmark.toml");
    fs::write(&file, format!("state_dir = \"/nowhere\"\n{text}")).expect("writable");
    let file = hallmarkd::token::token_file::TokenFile::read(&file).expect("it parses");
    file.token("quick-start")
        .expect("it is there")
        .resolve(None)
        .expect("it is consistent");
}

/// `hallmarkd` links no token library, so it cannot do the work of `hallmark-token` itself.
#[test]
fn without_the_workers_program_no_command_touches_a_token() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let alone = folder.path().join("hallmarkd");
    fs::copy(HALLMARKD, &alone).expect("there is room");
    let pin = folder.path().join("pin").display().to_string();
    let module = ["--module", MODULE];
    let label = ["--label", "new", "--pin-file", &pin, "--so-pin-file", &pin];
    for arguments in [
        [&["init-token"][..], &module, &label].concat(),
        [&["probe-module"][..], &module].concat(),
        vec!["token", "new", "--config", &pin],
    ] {
        let output = Command::new(&alone).args(&arguments).output();
        let output = output.expect("hallmarkd starts");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("beside hallmarkd"), "{error}");
        assert!(!Path::new(&pin).exists());
    }
}

#[test]
#[ignore = "measures: run it alone, in release"]
fn how_fast_softhsm_signs_through_its_worker() {
    let fixture = Fixture::new();
    let running = fixture.start();
    let key = running.key();
    running
        .client
        .find(&key.reference(), LOOKUP_DEADLINE)
        .expect("is there");
    for in_flight in [1, 2, 8, 64] {
        let measured = bench::run(&running.client, &key, in_flight, Duration::from_secs(4))
            .expect("the token works");
        writeln!(
            std::io::stderr(),
            "{in_flight} in flight: {:.0}/s, p50 {:?}, p99 {:?}",
            measured.rate(),
            measured.median,
            measured.percentile_99
        )
        .expect("stderr is open");
    }
}

//! Tests `hallmark doctor`: a plant without a fault, and each check of the machine, the records and
//! the tokens with a fault that it finds. `doctor_services` has those of provisioning services.

use crate::process::{Process, until};
use crate::test_env::{HALLMARKD, TestEnv};
use crate::token_objects::Order;
use dps_emulator::{Action, Fault};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use time::{Duration, OffsetDateTime};

/// Runs checks as JSON; returns the exit code and the findings.
pub(crate) fn examined(env: &TestEnv, checks: &[&str]) -> (Option<i32>, Vec<Value>) {
    let mut command = vec!["--json", "doctor"];
    checks.iter().for_each(|it| command.extend(["--only", it]));
    let output = env.hallmark(&command);
    let report: Value = serde_json::from_str(&output.out)
        .unwrap_or_else(|error| panic!("{checks:?}: {error}: {output:?}"));
    let findings = report["findings"].as_array();
    let findings = findings.unwrap_or_else(|| panic!("{checks:?}: {output:?}"));
    (output.code, findings.clone())
}

/// Asserts that one finding of a check has this verdict and says these words, and that the exit
/// code is that of the verdict; what is open has a remedy.
pub(crate) fn finds(env: &TestEnv, check: &str, verdict: &str, words: &str) {
    let (code, findings) = examined(env, &[check]);
    let found = findings
        .iter()
        .find(|it| it["verdict"] == verdict && it["text"].as_str().unwrap().contains(words));
    let found = found.unwrap_or_else(|| panic!("{check}, {verdict}, {words:?}: {findings:#?}"));
    assert_eq!(found["check"], check);
    let is_open = ["attention", "failed"].contains(&verdict);
    assert_eq!(found["remedy"].is_string(), is_open, "{found:#}");
    let expected = match verdict {
        "failed" => 2,
        "attention" => 1,
        _ => return,
    };
    assert_eq!(code, Some(expected), "{findings:#?}");
}

/// Asserts that a check finds nothing, in each of its subjects.
pub(crate) fn finds_nothing(env: &TestEnv, check: &str) {
    let (code, findings) = examined(env, &[check]);
    assert_eq!(code, Some(0), "{findings:#?}");
    assert!(!findings.is_empty(), "{check}");
}

/// A running plant with a backup of today.
fn healthy() -> TestEnv {
    let env = TestEnv::running();
    env.run(&["backup", "create"]);
    env
}

/// The names of all checks, from the table of the code.
fn names() -> Vec<String> {
    let code = include_str!("../../daemon/daemon/src/ca/doctor/check.rs");
    let (_, list) = code.split_once("    Check {\n").unwrap();
    let (list, _) = list.split_once('}').unwrap();
    let names = list.split('"').skip(1).step_by(2);
    names.map(str::to_owned).collect()
}

/// Verifies: a plant without a fault is ok in every check, with exit code 0; the daemon is asked
/// once, writes nothing at the service, and adds nothing to the journal but test signatures; a name
/// that is no check is a wrong command line, and the list is printed.
#[test]
fn a_plant_without_a_fault_is_ok() {
    let env = TestEnv::new();
    let file = env.path("timesync/synchronized");
    let policy = format!("\n[policy]\nclock_synchronised_file = {file:?}\n");
    env.configure(&(env.configuration() + &policy));
    let env = env.started();
    env.run(&["backup", "create"]);
    let before = env.entries();
    env.emulator.clear_requests();
    let output = env.hallmark(&["doctor"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(!output.out.contains('\u{1b}'), "{output:?}");
    assert!(output.out.contains(" 0 attention, 0 failed"), "{output:?}");
    let requests = env.emulator.requests();
    let planes = ["group.get", "authority.list", "identity.get"];
    for plane in planes {
        assert!(
            requests.iter().any(|it| it.operation == plane),
            "{plane}: {requests:#?}"
        );
    }
    assert!(
        requests.iter().all(|it| it.method == "GET"),
        "{requests:#?}"
    );
    assert_eq!(env.entries(), before);

    let (_, findings) = examined(&env, &[]);
    let mut checks: Vec<&str> = findings
        .iter()
        .map(|it| it["check"].as_str().unwrap())
        .collect();
    checks.dedup();
    assert_eq!(checks, names());
    for finding in &findings {
        let expected = match finding["check"].as_str().unwrap() {
            // Not a service of systemd.
            "unit" => "not_applicable",
            // No time service says when it was synchronised.
            "clock" => "unknown",
            _ => "ok",
        };
        assert_eq!(finding["verdict"], expected, "{finding:#}");
    }

    let output = env.hallmark(&["doctor", "--only", "clocks"]);
    assert_eq!(output.code, Some(2), "a wrong command line: {output:?}");
    assert!(
        output.error.contains("name one of configuration, "),
        "{output:?}"
    );
}

/// While a run waits for a slow service, another one is asked for. Verifies: it is refused, as one
/// without a verdict, and the first one has its verdict; then another one is not refused.
#[test]
fn one_run_is_under_way_at_a_time() {
    let env = TestEnv::running();
    env.emulator.clear_requests();
    let milliseconds = 4_000;
    let slow = Fault::on("group.get", Action::Latency { milliseconds });
    env.emulator.inject(slow).unwrap();
    let first = env.client();
    let first = std::thread::spawn(move || first.hallmark(&["doctor", "--only", "planes"]));
    until("the first one asks the service", || {
        let asked = env.emulator.requests_of("group.get");
        (!asked.is_empty()).then_some(())
    });
    let second = env.hallmark(&["doctor", "--only", "clock"]);
    assert_eq!(second.code, Some(3), "{second:?}");
    assert!(second.error.contains("trial_under_way"), "{second:?}");
    let first = first.join().unwrap();
    assert_eq!(first.code, Some(0), "{first:?}");
    finds_nothing(&env, "clock");
}

/// Verifies: the file of the configuration, the modes of files, and the versions of programs.
#[test]
fn configuration_files_and_versions_are_checked() {
    let mut env = healthy();
    let good = env.configuration();
    env.configure(&(good.clone() + "\n[policy]\nbackups_kept = 3\n"));
    finds(&env, "configuration", "attention", "has not applied it");
    env.configure(&good.replacen("[listen]", "[listen]\nhtps = true", 1));
    finds(&env, "configuration", "failed", "htps");
    finds(&env, "files", "not_applicable", "refused");
    env.configure(&good);
    finds_nothing(&env, "configuration");

    let pin = env.path("pin");
    fs::set_permissions(&pin, Permissions::from_mode(0o644)).unwrap();
    finds(
        &env,
        "files",
        "failed",
        "every user can read it: chmod 0600",
    );
    fs::set_permissions(&pin, Permissions::from_mode(0o600)).unwrap();
    finds_nothing(&env, "files");

    let other = json!({ "only": ["versions"], "client": "0.0.9" });
    let report: Value = serde_json::from_str(&env.post("/v1/doctor", &other)).unwrap();
    assert_eq!(report["verdict"], "attention", "{report:#}");
    assert!(
        report
            .to_string()
            .contains("it is 0.0.9, and the daemon is"),
        "{report:#}"
    );
    env.stop();
    let programs = env.path("programs");
    fs::create_dir(&programs).unwrap();
    for name in ["hallmarkd", "hallmark-token"] {
        let program = PathBuf::from(HALLMARKD).with_file_name(name);
        fs::copy(program, programs.join(name)).unwrap();
    }
    let installed = env.serve(&[]);
    let mut command = Command::new(programs.join("hallmarkd"));
    command.args(installed.get_args()).env("FAILPOINTS", "");
    let daemon = Process::start(&mut command, env.path("hallmarkd.log"));
    env.attend(daemon);
    env.wait_ready();
    finds_nothing(&env, "versions");
    fs::remove_file(programs.join("hallmarkd")).unwrap();
    finds(
        &env,
        "versions",
        "attention",
        "its file was replaced since the start",
    );
}

/// Verifies: a row that a constraint of the database forbids, an entry of the journal that was
/// altered, and backups that are missing, old or without a manifest.
#[test]
fn damaged_records_and_old_backups_are_found() {
    let env = TestEnv::running();
    finds(&env, "backups", "attention", "there is no backup");
    env.run(&["backup", "create"]);
    for check in ["database", "audit", "backups"] {
        finds_nothing(&env, check);
    }
    let other = Connection::open(env.database()).unwrap();
    other
        .execute_batch(
            "PRAGMA ignore_check_constraints = 1;
             INSERT INTO write_probe (only, filler) VALUES (7, x'00')",
        )
        .unwrap();
    finds(&env, "database", "failed", "write_probe");
    other.execute_batch("DELETE FROM write_probe").unwrap();
    finds_nothing(&env, "database");

    let subject = "SELECT subject FROM audit WHERE sequence = 2";
    let subject: String = other.query_row(subject, [], |row| row.get(0)).unwrap();
    let alter = |subject: &str| {
        other
            .execute(
                "UPDATE audit SET subject = ?1 WHERE sequence = 2",
                [subject],
            )
            .unwrap();
    };
    let triggers =
        "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'audit'";
    let mut statement = other.prepare(triggers).unwrap();
    let triggers = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    let triggers: Vec<(String, String)> = triggers.map(Result::unwrap).collect();
    for (name, _) in &triggers {
        other
            .execute_batch(&format!("DROP TRIGGER {name}"))
            .unwrap();
    }
    alter("nothing of note");
    assert!(env.metrics().contains("hallmark_audit_intact 1"));
    finds(&env, "audit", "failed", "altered at entry 2");
    assert!(env.metrics().contains("hallmark_audit_intact 0"));
    alter(&subject);
    for (_, sql) in &triggers {
        other.execute_batch(sql).unwrap();
    }
    finds_nothing(&env, "audit");

    let folder = fs::read_dir(env.path("state/backup")).unwrap();
    let mut files = folder.map(|it| it.unwrap().path());
    let manifest = files.find(|it| it.extension().unwrap() == "json").unwrap();
    let text = fs::read_to_string(&manifest).unwrap();
    let mut old: Value = serde_json::from_str(&text).unwrap();
    let made = OffsetDateTime::now_utc() - Duration::days(3);
    let made = made.format(&time::format_description::well_known::Rfc3339);
    old["made_at"] = made.unwrap().into();
    fs::write(&manifest, old.to_string()).unwrap();
    finds(&env, "backups", "attention", "3 days old");
    fs::remove_file(&manifest).unwrap();
    finds(&env, "backups", "failed", "manifest");
    fs::write(&manifest, text).unwrap();
    finds_nothing(&env, "backups");
}

/// Verifies: a wrong PIN that another program has tried, a token that is away, a private key that
/// cannot be found, and a PIN that was refused.
#[test]
fn faults_of_tokens_pins_and_keys_are_found() {
    let mut env = TestEnv::running();
    env.at_the_token(&Order::TryWrongPin);
    finds(&env, "pin", "attention", "wrong PIN tried");
    env.restart();
    for check in ["tokens", "pin", "keys"] {
        finds_nothing(&env, check);
    }

    let id = env.key_id("line-1", 1);
    env.at_the_token(&Order::Move {
        id: &id,
        to: "0badcafe",
    });
    env.stop();
    env.start();
    until("the token is there", || {
        (examined(&env, &["tokens"]).0 != Some(2)).then_some(())
    });
    finds(&env, "keys", "failed", "it is not on the token");
    env.at_the_token(&Order::Move {
        id: "0badcafe",
        to: &id,
    });
    until("the key is found again", || {
        (examined(&env, &["keys"]).0 == Some(0)).then_some(())
    });

    fs::rename(env.path("tokens"), env.path("tokens.away")).unwrap();
    until("the token is missed", || {
        (examined(&env, &["tokens"]).0 == Some(2)).then_some(())
    });
    finds(&env, "tokens", "failed", "unavailable");
    finds(&env, "keys", "failed", "token factory is not ready");
    finds(&env, "pin", "not_applicable", "unavailable");
    fs::rename(env.path("tokens.away"), env.path("tokens")).unwrap();
    env.wait_ready();

    let pin = fs::read_to_string(env.path("pin")).unwrap();
    env.stop();
    env.write_secret("pin", "not the pin");
    env.start();
    until("the PIN is refused", || {
        (examined(&env, &["pin"]).0 == Some(2)).then_some(())
    });
    finds(&env, "pin", "failed", "the PIN was refused");
    finds(&env, "tokens", "failed", "parked");
    env.write_secret("pin", &pin);
    env.wait_ready();
    for check in ["tokens", "pin", "keys"] {
        finds_nothing(&env, check);
    }
}

/// Verifies: a clock that is not believed or was not synchronised; a service of systemd without a
/// sandbox.
#[test]
fn faults_of_the_machine_are_found() {
    let mut env = TestEnv::new().with_a_clock_set_by(Duration::ZERO);
    let folder = env.path("timesync");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("synchronized");
    let policy = format!("\n[policy]\nclock_synchronised_file = {file:?}\n");
    env.configure(&(env.configuration() + &policy));
    env = env.started();
    finds(
        &env,
        "clock",
        "attention",
        "not synchronised since the machine started",
    );
    let synchronised = fs::File::create(&file).unwrap();
    finds_nothing(&env, "clock");
    let days = std::time::Duration::from_secs(3 * 24 * 3600);
    synchronised
        .set_modified(std::time::SystemTime::now() - days)
        .unwrap();
    finds(&env, "clock", "attention", "was last synchronised at");
    env.sets_clock_by(Duration::days(-400));
    finds(&env, "clock", "failed", "set the clock");
    env.sets_clock_by(Duration::ZERO);
    env.wait_ready();

    finds_nothing(&env, "ports");
    env.stop();
    let mut command = env.serve(&[]);
    command.env("INVOCATION_ID", "0123456789abcdef0123456789abcdef");
    let daemon = Process::start(&mut command, env.path("hallmarkd.log"));
    env.attend(daemon);
    finds(&env, "unit", "attention", "NoNewPrivileges=");
}

/// Verifies: listeners that this machine cannot reach, because its network has no interface.
#[test]
fn a_listener_without_a_network_is_found() {
    let mut env = TestEnv::new();
    let everywhere = env
        .configuration()
        .replace("\"127.0.0.1:0\"", "\"0.0.0.0:0\"");
    env.configure(&everywhere);
    let daemon = env.serve(&[]);
    let mut command = Command::new("unshare");
    command.arg("--net").arg(daemon.get_program());
    command.args(daemon.get_args()).env("FAILPOINTS", "");
    let daemon = Process::start(&mut command, env.path("hallmarkd.log"));
    env.attend(daemon);
    finds(&env, "ports", "failed", "does not accept connections");
    finds(&env, "ports", "failed", "unreachable");
}

/// Verifies: while the token is away, revocation lists and the listener's certificate end.
#[test]
fn lists_and_a_certificate_that_end_are_found() {
    let env = TestEnv::new().with_a_movable_clock().started();
    for check in ["lists", "listener"] {
        finds_nothing(&env, check);
    }
    fs::rename(env.path("tokens"), env.path("tokens.away")).unwrap();
    env.passes(Duration::days(400));
    until("a list has ended", || {
        (examined(&env, &["lists"]).0 == Some(2)).then_some(())
    });
    finds(&env, "lists", "failed", "has ended at");
    until("the listener's certificate has ended", || {
        (examined(&env, &["listener"]).0 == Some(2)).then_some(())
    });
    finds(&env, "listener", "failed", "certificate that ended at");
    fs::rename(env.path("tokens.away"), env.path("tokens")).unwrap();
    until("the next ones are signed", || {
        (examined(&env, &["lists", "listener"]).0 == Some(0)).then_some(())
    });
}

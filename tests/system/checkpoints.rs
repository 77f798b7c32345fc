//! Tests the record that cannot be rewritten: checkpoints of the audit journal, their verification,
//! and what stops while it does not verify.

use crate::process::{pid_with_argument, until};
use crate::request::Request;
use crate::runbook_text::Runbook;
use crate::test_env::{HALLMARK, TestEnv};
use hallmarkd::journal::{Place, seal};
use hallmarkd::unix_seconds::UnixSeconds;
use rcgen::PublicKeyData;
use rusqlite::{Connection, params};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The kind of a change, and the change of an export's lines.
type ChangedLines<'a> = (&'a str, &'a dyn Fn(&mut Vec<String>));
/// The same of a database.
type ChangedDatabase<'a> = (&'a str, &'a dyn Fn(&Connection));

/// Checkpoints by the token of the authorities, copied to a file.
fn configured(checkpoints: &str) -> TestEnv {
    let env = TestEnv::new();
    let copy = env.path("checkpoints.jsonl");
    let audit = format!(
        "\n[audit]\ncopy_to = {copy:?}\ncheckpoints = {{ token = \"factory\", {checkpoints} }}\n"
    );
    env.configure(&(env.configuration() + &audit));
    env
}

/// The finding that `audit verify` names.
fn finding(env: &TestEnv) -> Value {
    let output = env.hallmark(&["--json", "audit", "verify"]);
    let verdict: Value = serde_json::from_str(&output.out).unwrap();
    let is_good = output.code == Some(0);
    let answer = if is_good {
        &verdict
    } else {
        &verdict["answer"]
    };
    let answer = if answer.is_null() { &verdict } else { answer };
    assert_eq!(answer["finding"].is_null(), is_good, "{output:?}");
    answer["finding"].clone()
}

fn wait_until_covered(env: &TestEnv) {
    until("a checkpoint covers every entry", || {
        let verdict = env.json(&["audit", "verify"]);
        (verdict["covered"] == verdict["entries"]).then_some(())
    });
}

/// Changes the database as its owner can: without triggers, which are there again afterwards.
fn tamper(database: &Path, change: impl FnOnce(&Connection)) {
    let connection = Connection::open(database).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let sql = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'";
    let triggers: Vec<(String, String)> = {
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.unwrap().map(Result::unwrap).collect()
    };
    for (name, _) in &triggers {
        let drop = format!("DROP TRIGGER {name}");
        connection.execute_batch(&drop).unwrap();
    }
    change(&connection);
    for (_, sql) in &triggers {
        connection.execute_batch(sql).unwrap();
    }
    connection
        .execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
}

/// Gives each entry the number and the hash that belong to it.
fn seal_again(connection: &Connection) {
    let sql = "SELECT sequence, at, actor, action, subject, detail FROM audit ORDER BY sequence";
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| {
        let text = |column| row.get::<_, String>(column);
        Ok((
            row.get(0)?,
            row.get(1)?,
            text(2)?,
            text(3)?,
            text(4)?,
            text(5)?,
        ))
    });
    let rows: Vec<(i64, i64, String, String, String, String)> =
        rows.unwrap().map(Result::unwrap).collect();
    let mut last = Place::default();
    for (old, at, actor, action, subject, detail) in rows {
        let sequence = last.sequence + 1;
        let fields = [&*actor, &*action, &*subject, &*detail];
        let hash = seal(&last.hash, sequence, UnixSeconds::new(at), fields);
        let update = "UPDATE audit SET sequence = ?1, hash = ?2 WHERE sequence = ?3";
        connection
            .execute(update, params![sequence, hash, old])
            .unwrap();
        last = Place { sequence, hash };
    }
}

/// Adds an entry as the daemon would.
fn plant(connection: &Connection) {
    let sql = "INSERT INTO audit SELECT max(sequence) + 1, 1, 'local root', 'certificate.issued',
               'mallory', '{}', zeroblob(32) FROM audit";
    connection.execute(sql, []).unwrap();
    seal_again(connection);
}

/// The commands of the runbook, by a shell. Verifies: the export and its first checkpoint verify.
#[test]
fn the_runbook_of_the_journal_is_followed() {
    let env = configured("every = \"1s\", entries = 5").started();
    wait_until_covered(&env);
    let mut page = Runbook::of("The audit journal");
    let lines: Vec<String> = (0..6).map(|_| page.line(&[]).0.join(" ")).collect();
    // Before the export, which then has at least as many.
    let copy = "cp checkpoints.jsonl hallmark-checkpoints.jsonl";
    let script = ["set -euo pipefail", copy, &lines.join("\n")];
    let folder = Path::new(HALLMARK).parent().unwrap().display().to_string();
    let path = std::env::var("PATH").unwrap();
    let ran = Command::new("bash")
        .args(["-c", &script.join("\n")])
        .current_dir(env.path(""))
        .env("PATH", format!("{folder}:{path}"))
        .env("HALLMARK_ADMIN_SOCKET", env.path("state/admin.sock"))
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(said.contains("Verified OK"), "{said}");
}

/// Verifies: the journal is covered by checkpoints that openssl verifies with the printed key; an
/// export verifies without a daemon, and each kind of tampering with it is named.
#[test]
fn an_export_is_verified_with_the_public_key_alone() {
    let mut env = configured("every = \"1s\", entries = 5").started();
    // Two checkpoints at least: one is left out below.
    for device in ["press-1", "press-2"] {
        env.station().obtain(&Request::device(device));
        wait_until_covered(&env);
    }
    let key = env.write("key.pem", &env.run(&["audit", "key"]));
    let export = env.path("journal.jsonl");
    env.run(&["audit", "export", export.to_str().unwrap()]);
    let text = fs::read_to_string(&export).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let count = lines
        .iter()
        .filter(|it| it.contains("\"sequence\""))
        .count();
    let copy = env.path("checkpoints.jsonl");
    let checkpoint: Value = serde_json::from_str(lines[count]).unwrap();
    let message = env.write("message", checkpoint["message"].as_str().unwrap());
    let signature = hex::decode(checkpoint["signature"].as_str().unwrap()).unwrap();
    fs::write(env.path("signature"), signature).unwrap();
    let openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-verify"])
        .arg(&key)
        .arg("-signature")
        .arg(env.path("signature"))
        .arg(message)
        .output()
        .unwrap();
    assert!(openssl.status.success(), "{openssl:?}");
    env.stop();
    let copied = fs::read_to_string(&copy).unwrap().lines().count();
    assert_eq!(i64::try_from(copied).unwrap(), env.count("checkpoint"));

    let verify = |lines: &[String]| {
        let export = env.write("tampered.jsonl", &(lines.join("\n") + "\n"));
        let output = env.hallmark(&[
            "--json",
            "audit",
            "verify",
            "--export",
            export.to_str().unwrap(),
            "--key",
            key.to_str().unwrap(),
            "--expect",
            copy.to_str().unwrap(),
        ]);
        output.out + &output.error
    };
    let honest: Vec<String> = lines.iter().map(|it| (*it).to_owned()).collect();
    let good = verify(&honest);
    assert!(
        good.contains("checkpoint_missing"),
        "the copy has the closing one: {good}"
    );
    // As the copy was when the export was made.
    let until_then = lines[count..].join("\n") + "\n";
    fs::write(&copy, until_then).unwrap();
    let good = verify(&honest);
    assert!(good.contains("\"finding\": null"), "{good}");
    let actor = "\"actor\":\"";
    let cases: [ChangedLines<'_>; 6] = [
        ("changed", &|it| {
            it[4] = it[4].replace(actor, "\"actor\":\"not ")
        }),
        ("removed", &|it| drop(it.remove(4))),
        ("reordered", &|it| it.swap(4, 5)),
        ("inserted", &|it| {
            let twice = it[4].replace(actor, "\"actor\":\"not ");
            it.insert(4, twice);
            for (number, line) in it.iter_mut().enumerate().take(count + 1).skip(5) {
                *line = line.replace(
                    &format!("\"sequence\":{number}"),
                    &format!("\"sequence\":{}", number + 1),
                );
            }
        }),
        ("checkpoint_missing", &|it| drop(it.pop())),
        ("checkpoint_forged", &|it| {
            let last = it.len() - 1;
            it[last] = it[last].replace("state open", "state closed");
        }),
    ];
    for (name, tampering) in cases {
        let mut lines = honest.clone();
        tampering(&mut lines);
        let found = verify(&lines);
        assert!(found.contains(name), "{name}: {found}");
    }
    let mut cut = honest[..count - 3].to_vec();
    cut.extend_from_slice(&honest[count..]);
    assert!(verify(&cut).contains("end_cut_off"), "{}", verify(&cut));
}

/// Verifies, for each way to change a database while the daemon is stopped: the next start finds
/// and names it and issues nothing, while revocation lists go on, and the finding survives a
/// restart.
#[test]
fn a_database_that_was_changed_while_stopped_issues_nothing() {
    let mut env = configured("every = \"1s\", entries = 5").started();
    env.enlist("station", "station-1");
    env.stop();
    let honest = env.path("honest.db");
    fs::copy(env.database(), &honest).unwrap();
    let copy = fs::read(env.path("checkpoints.jsonl")).unwrap();
    let cases: [ChangedDatabase<'_>; 7] = [
        ("after_closing", &plant),
        ("rewritten", &|it| {
            it.execute("UPDATE audit SET actor = 'x' WHERE sequence = 3", [])
                .unwrap();
            seal_again(it);
        }),
        ("end_cut_off", &|it| {
            it.execute_batch(
                "DELETE FROM audit WHERE sequence > (SELECT max(sequence) - 2 FROM audit);",
            )
            .unwrap();
        }),
        // With its checkpoint, and so that the daemon seems to have crashed: the copy has it.
        ("end_cut_off", &|it| {
            it.execute_batch(
                "DELETE FROM checkpoint WHERE number > 2;
                 DELETE FROM audit WHERE sequence > 8;",
            )
            .unwrap();
        }),
        ("checkpoint_missing", &|it| {
            it.execute_batch(
                "DELETE FROM checkpoint WHERE number = (SELECT max(number) FROM checkpoint)",
            )
            .unwrap();
        }),
        ("key_unknown", &|it| {
            let other = rcgen::KeyPair::generate()
                .unwrap()
                .subject_public_key_info();
            it.execute("UPDATE audit_key SET spki = ?1", [other])
                .unwrap();
        }),
        ("schema_changed", &|it| {
            it.execute_batch("CREATE TRIGGER t BEFORE INSERT ON audit BEGIN SELECT 1; END")
                .unwrap();
        }),
    ];
    for (name, change) in cases {
        tamper(&env.database(), change);
        env.start();
        let status = env.json(&["status"]);
        let mut alarms = status["alarm_details"].as_array().unwrap().iter();
        let alarm = alarms.find(|it| it["code"] == "audit_broken");
        let alarm = alarm.unwrap_or_else(|| panic!("{name}: {status:#}"));
        assert_eq!(alarm["parameters"]["kind"], name, "{alarm:#}");
        let request = Request::new("station", "station-2");
        let issue = env.issue(&request);
        let issue = issue.each_ref().map(String::as_str);
        until("the request is refused for the journal", || {
            let output = env.hallmark(&issue);
            assert_ne!(output.code, Some(0), "{name}: {output:?}");
            output.error.contains("[audit_broken]").then_some(())
        });
        env.stop();
        if name == "after_closing" {
            env.start();
            let status = env.json(&["status"]);
            let codes = status["alarm_details"].to_string();
            assert!(codes.contains("audit_broken"), "{status:#}");
            env.stop();
        }
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{suffix}", env.database().display()));
        }
        fs::copy(&honest, env.database()).unwrap();
        fs::write(env.path("checkpoints.jsonl"), &copy).unwrap();
    }
    env.start();
    env.wait_ready();
    assert_eq!(finding(&env), Value::Null);
}

/// The subject of entry 2, which [`change`] changes.
pub(crate) fn subject_of_an_entry(env: &TestEnv) -> String {
    let sql = "SELECT subject FROM audit WHERE sequence = 2";
    let store = crate::invariants::open(&env.database());
    store.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Changes one word of entry 2.
pub(crate) fn change(env: &TestEnv, subject: &str) {
    tamper(&env.database(), |it| {
        let sql = "UPDATE audit SET subject = ?1 WHERE sequence = 2";
        it.execute(sql, [subject]).unwrap();
    });
}

/// Verifies: a change of a running database is found by the whole verification and stops issuance;
/// after an operator has accepted it there are certificates again, and a further change of what was
/// accepted is a finding again.
#[test]
fn a_finding_in_a_running_database_ends_by_acceptance() {
    let mut env = configured("every = \"1s\", entries = 5").started();
    let station = env.station();
    let nothing = env.hallmark(&["audit", "accept", "--reason", "x"]);
    assert!(nothing.error.contains("no finding"), "{nothing:?}");
    let subject = subject_of_an_entry(&env);
    change(&env, "another");
    let found = finding(&env);
    assert_eq!(
        (&found["kind"], &found["from"]),
        (&"changed".into(), &2.into())
    );
    let refused = station.ask(&Request::device("press-1"));
    assert_eq!((refused.status, refused.code()), (500, "audit_broken"));
    let accepted = env.json(&["audit", "accept", "--reason", "a test changed it"]);
    assert_eq!(accepted["kind"], "changed");
    station.obtain(&Request::device("press-1"));
    wait_until_covered(&env);
    assert_eq!(finding(&env), Value::Null);
    change(&env, "yet another");
    assert_eq!(finding(&env)["kind"], "rewritten");
    env.run(&["audit", "accept", "--reason", "a test changed it again"]);
    env.restart();
    assert_eq!(finding(&env), Value::Null);
    // For the invariants, which read the chain alone.
    env.stop();
    change(&env, &subject);
}

/// Verifies: killed at each step of a key and of a checkpoint, the daemon starts again, and the
/// journal verifies.
#[test]
fn a_kill_at_each_step_of_a_checkpoint_leaves_a_journal_that_verifies() {
    let mut env = TestEnv::running();
    env.stop();
    let audit = "\n[audit]\ncheckpoints = { token = \"factory\", every = \"1s\", entries = 3 }\n";
    env.configure(&(env.configuration() + audit));
    env.is_killed_at_each(
        &[
            "audit-key-planned",
            "audit-key-made",
            "checkpoint-signed",
            "checkpoint-recorded",
            "checkpoint-copied",
        ],
        &[],
        |env| drop(env.try_to_issue(&Request::new("station", "station-1"))),
    );
    assert_eq!(finding(&env), Value::Null);
    wait_until_covered(&env);
}

/// Verifies: while the token of the checkpoints is away certificates are issued, with an alarm, to
/// the configured limit; then they are refused, until the token is back.
#[test]
fn issuance_goes_on_without_the_token_of_the_checkpoints_to_its_limit() {
    let env = TestEnv::new();
    let tokens = env.path("record-tokens");
    fs::create_dir(&tokens).unwrap();
    env.write(
        "record.conf",
        &format!("directories.tokendir = {}\n", tokens.display()),
    );
    env.make_token_at("record", "record.conf");
    let pin = env.path("pin");
    let conf = env.path("record.conf");
    let audit = format!(
        "\n[[token]]\nname = \"record\"\nkind = \"pkcs11\"\nfragment = \"softhsm2\"\n\
         label = \"record\"\ncredential = {pin:?}\n[token.environment]\nSOFTHSM2_CONF = {conf:?}\n\
         \n[audit]\ncheckpoints = {{ token = \"record\", every = \"1s\", unsigned_for = \"8s\" }}\n"
    );
    env.configure(&(env.configuration() + &audit));
    let env = env.started();
    let station = env.station();
    wait_until_covered(&env);
    let away = env.path("away");
    fs::rename(&tokens, &away).unwrap();
    let worker = pid_with_argument(&env.path("state/token-record.sock")).unwrap();
    let worker = Pid::from_raw(i32::try_from(worker).unwrap()).unwrap();
    kill_process(worker, Signal::KILL).unwrap();
    station.obtain(&Request::device("press-1"));
    let alarms = || env.json(&["status"])["alarm_details"].to_string();
    until("an alarm", || {
        alarms().contains("audit_not_checkpointed").then_some(())
    });
    until("nothing is issued", || {
        let answer = station.ask(&Request::device("press-2"));
        (answer.code() == "audit_not_checkpointed").then_some(())
    });
    fs::rename(&away, &tokens).unwrap();
    until("certificates are issued again", || {
        let answer = station.ask(&Request::device("press-3"));
        (answer.status == 200 || answer.status == 201).then_some(())
    });
    until("no alarm", || {
        (!alarms().contains("audit_not_checkpointed")).then_some(())
    });
    assert_eq!(finding(&env), Value::Null);
}

//! Tests copies of the database: made under load, verified, and restored.

use crate::load::Load;
use crate::process::{CommandOutput, until};
use crate::relying_party::Relying;
use crate::request::Request;
use crate::test_env::TestEnv;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn create(env: &TestEnv) -> PathBuf {
    let made = until("a backup is made", || {
        // Two backups of one second would have one name.
        let output = env.hallmark(&["--json", "backup", "create"]);
        let answer = serde_json::from_str::<Value>(&output.out).ok();
        answer.filter(|_| output.code == Some(0))
    });
    made["file"].as_str().unwrap().into()
}

fn verify(env: &TestEnv, file: &Path) -> CommandOutput {
    env.hallmark(&["backup", "verify", file.to_str().unwrap()])
}

pub(crate) fn restore(env: &TestEnv, file: &Path) -> CommandOutput {
    let configuration = env.path("hallmark.toml");
    let file = file.to_str().unwrap();
    let configuration = configuration.to_str().unwrap();
    env.hallmark(&[
        "backup",
        "restore",
        file,
        "--config",
        configuration,
        "--yes",
    ])
}

fn backups(env: &TestEnv) -> usize {
    fs::read_dir(env.path("state/backup")).unwrap().count()
}

/// Verifies: the line is served while backups are made; each backup is whole; the newest are kept,
/// with their manifests; one is written to another disk on request.
#[test]
fn backups_are_made_while_the_line_is_at_work() {
    let env = TestEnv::new();
    let policy = "\n[policy]\nbackups_kept = 2\n";
    env.configure(&(env.configuration() + policy));
    let env = env.started();
    let elsewhere = env.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    Load::during(&env, |load| {
        let first = create(&env);
        assert_eq!(verify(&env, &first).code, Some(0));
        load.wait_for_status();
        let [second, third] = [(); 2].map(|()| create(&env));
        assert!(!first.exists(), "the oldest makes room");
        for file in [&second, &third] {
            assert_eq!(verify(&env, file).code, Some(0));
        }
        assert_eq!(backups(&env), 4, "two, each with its manifest");
        until("a copy is elsewhere", || {
            let to = elsewhere.to_str().unwrap();
            (env.hallmark(&["backup", "create", "--to", to]).code == Some(0)).then_some(())
        });
        assert_eq!(load.refused(), 0, "a client was refused");
    });
    let copies = fs::read_dir(&elsewhere).unwrap();
    let copies = copies.map(|it| it.unwrap().path());
    let copy = copies.filter(|it| it.extension().unwrap() == "db").max();
    assert_eq!(verify(&env, &copy.unwrap()).code, Some(0));
}

fn names(env: &TestEnv) -> BTreeSet<String> {
    let entries = fs::read_dir(env.path("state/backup")).unwrap();
    let names = entries.map(|it| it.unwrap().file_name().into_string().unwrap());
    names.collect()
}

/// The daemon is killed when a copy is made, and when its manifest is. Verifies: the next start
/// removes what is left, the next backup removes what a later interruption leaves, and files of an
/// operator stay.
#[test]
fn files_of_interrupted_backups_are_removed() {
    let mut env = TestEnv::running();
    for point in ["backup-copied", "backup-manifest"] {
        env.restart_to_stay_at(point);
        let client = env.client();
        let asked = std::thread::spawn(move || client.hallmark(&["backup", "create"]));
        env.stays_at(point);
        env.kill();
        assert_ne!(asked.join().unwrap().code, Some(0));
        let left = names(&env);
        let partial = left.iter().find(|it| it.ends_with(".partial")).unwrap();
        // SQLite has this log while it copies.
        env.write(&format!("state/backup/{partial}-journal"), "half of a page");
        env.write("state/backup/notes.partial-journal", "an operator's");
        env.start();
        env.wait_ready();
        assert_eq!(
            names(&env),
            BTreeSet::from(["notes.partial-journal".into()])
        );
    }
    let lone = create(&env);
    fs::remove_file(&lone).unwrap();
    let whole = create(&env);
    let mut expected = BTreeSet::from(["notes.partial-journal".to_owned()]);
    for extension in ["db", "json"] {
        let name = whole.with_extension(extension);
        expected.insert(name.file_name().unwrap().to_str().unwrap().to_owned());
    }
    assert_eq!(names(&env), expected);
}

/// Interrupted copies have left files in a folder of the operator's. Verifies: the next copy
/// removes them, and neither backups nor other files.
#[test]
fn files_of_interrupted_copies_to_another_folder_are_removed() {
    let env = TestEnv::running();
    let folder = env.path("elsewhere");
    fs::create_dir(&folder).unwrap();
    let kept = [
        "hallmark-20261121T031500Z.db",
        "hallmark-20261121T031500Z.json",
        "notes.json",
    ];
    let left = [
        "hallmark-20261122T031500Z.db.new",
        "hallmark-20261122T031500Z.json.new",
        "hallmark-20261122T031500Z.partial-journal",
        "hallmark-20261122T031500Z.json",
    ];
    for name in kept.iter().chain(&left) {
        fs::write(folder.join(name), "x").unwrap();
    }
    let to = [
        "--json",
        "backup",
        "create",
        "--to",
        folder.to_str().unwrap(),
    ];
    let output = env.hallmark(&to);
    assert_eq!(output.code, Some(0), "{output:?}");
    let made: Value = serde_json::from_str(&output.out).unwrap();
    let copied = Path::new(made["copied"].as_str().unwrap());
    assert_eq!(verify(&env, copied).code, Some(0));
    let mut expected: BTreeSet<_> = kept.iter().map(|it| folder.join(it)).collect();
    expected.extend([copied.to_owned(), copied.with_extension("json")]);
    let found = fs::read_dir(&folder).unwrap();
    let found: BTreeSet<_> = found.map(|it| it.unwrap().path()).collect();
    assert_eq!(found, expected);
}

/// Verifies: one changed byte, in the copy or in its manifest, is found, and that backup is not
/// restored; nor is any backup while a daemon runs.
#[test]
fn a_backup_that_was_changed_is_neither_verified_nor_restored() {
    let mut env = TestEnv::running();
    let file = create(&env);
    let output = restore(&env, &file);
    assert_eq!(output.code, Some(1));
    assert!(output.error.contains("another daemon has"), "{output:?}");
    env.stop();
    let before = fs::read(env.database()).unwrap();
    for (changed, mark) in [
        (file.clone(), "is not what its manifest says"),
        (file.with_extension("json"), "manifest"),
    ] {
        let good = fs::read(&changed).unwrap();
        let mut bad = good.clone();
        let at = bad.len() / 2;
        bad[at] ^= 1;
        fs::write(&changed, &bad).unwrap();
        for output in [verify(&env, &file), restore(&env, &file)] {
            assert_eq!(output.code, Some(1), "{mark}: {output:?}");
            assert!(output.error.contains(mark), "{mark}: {output:?}");
        }
        fs::write(&changed, &good).unwrap();
    }
    assert_eq!(fs::read(env.database()).unwrap(), before);
    assert_eq!(verify(&env, &file).code, Some(0));
}

/// Verifies, over a younger database and then in a new folder: the state of the backup is back,
/// missing certificates are listed by serial number, the journal goes on with the restore and
/// verifies, the same token signs, and no revocation list has a number that was used before.
#[test]
fn a_restored_database_issues_with_the_same_token() {
    let mut env = TestEnv::running();
    let number = |env: &TestEnv| {
        let lists = env.json(&["status"])["crls"].clone();
        let numbers = lists.as_array().unwrap().iter();
        numbers
            .map(|it| it["number"].as_i64().unwrap())
            .max()
            .unwrap()
    };
    env.station().obtain(&Request::device("pump-1"));
    let file = create(&env);
    let file = {
        let kept = env.path("kept");
        fs::create_dir(&kept).unwrap();
        for extension in ["db", "json"] {
            let from = file.with_extension(extension);
            fs::copy(&from, kept.join(from.file_name().unwrap())).unwrap();
        }
        kept.join(file.file_name().unwrap())
    };
    let later = env.station().obtain(&Request::device("pump-2"));
    let before = number(&env);
    env.stop();

    let output = restore(&env, &file);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.out.contains("WHAT WAS DONE AFTER"), "{output:?}");
    assert!(output.out.contains(&later.serial), "{output:?}");
    env.start();
    env.wait_ready();
    env.json(&["device", "show", "pump-1"]);
    assert_ne!(env.hallmark(&["device", "show", "pump-2"]).code, Some(0));
    assert_eq!(env.count("audit WHERE action = 'backup.restored'"), 1);
    assert_eq!(env.json(&["audit", "verify"])["broken_at"], Value::Null);
    let station = env.station_called("station-2");
    station.obtain(&Request::device("pump-3"));
    until("a list with a number of its own", || {
        (number(&env) > before).then_some(())
    });

    env.stop();
    fs::rename(env.path("state"), env.path("lost")).unwrap();
    let output = restore(&env, &file);
    assert_eq!(output.code, Some(0), "{output:?}");
    env.start();
    env.wait_ready();
    until("HTTPS answers", || env.stranger().try_get("/healthz").ok());
    env.station_called("station-3")
        .obtain(&Request::device("pump-4"));
}

/// A device is blocked after the backup, so the list in the backup lacks it. After the restore that
/// list is not served, over plain HTTP or HTTPS, while the token is unavailable and across
/// restarts: clients get `Retry-After`, and an alarm says so. The first list that is served is
/// newer than all earlier ones.
#[test]
fn a_restored_list_is_not_served_before_the_next_one_is_signed() {
    let mut env = TestEnv::running();
    env.station().obtain(&Request::device("pump-1"));
    let file = create(&env);
    env.run(&["device", "block", "pump-1"]);
    let published = Relying::on(&env).listed("line-1");
    assert_eq!(published.1.len(), 1);
    env.stop();
    assert_eq!(restore(&env, &file).code, Some(0));

    let (tokens, away) = (env.path("tokens"), env.path("tokens.away"));
    fs::rename(&tokens, &away).unwrap();
    for _ in 0..2 {
        env.start();
        for caller in [env.plain_http(), env.stranger()] {
            for name in ["line-1", "line-1-1", "plant", "root"] {
                let answer = caller.get(&format!("/crl/{name}.crl"));
                let said = (answer.status, answer.code(), answer.retry_after.is_some());
                assert_eq!(said, (503, "crl_withheld", true), "{name}: {answer:?}");
            }
        }
        let status = env.json(&["status"]);
        let lists = status["crls"].as_array().unwrap();
        assert!(lists.iter().all(|it| it["withheld"] == true), "{status}");
        let alarms = status["alarms"].to_string();
        assert!(
            alarms.contains("line-1") && alarms.contains("restore"),
            "{alarms}"
        );
        let shown = env.json(&["authority", "show", "line-1"]);
        assert_eq!(shown[0]["crl_number"], Value::Null);
        env.stop();
    }
    fs::rename(&away, &tokens).unwrap();
    env.start();
    let relying = Relying::on(&env);
    until("the next list is served", || {
        (relying.get("/crl/line-1.crl").status() == 200).then_some(())
    });
    assert!(relying.listed("line-1").0 > published.0);
    until("no list is withheld", || {
        let alarms = env.json(&["status"])["alarms"].to_string();
        (!alarms.contains("restore")).then_some(())
    });
    assert_eq!(env.count("generation WHERE crl_withheld = 1"), 0);
}

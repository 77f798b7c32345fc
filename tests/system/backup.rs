//! Copies of the database: made under load, judged, and put in its place.

use crate::load::Load;
use crate::process::{Told, until};
use crate::relying::Relying;
use crate::request::Request;
use crate::stage::Stage;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn create(stage: &Stage) -> PathBuf {
    let made = until("a backup is made", || {
        // Two in one second have no two names.
        let told = stage.hallmark(&["--json", "backup", "create"]);
        serde_json::from_str::<Value>(&told.out).ok()
    });
    made["file"].as_str().unwrap().into()
}

fn verify(stage: &Stage, file: &Path) -> Told {
    stage.hallmark(&["backup", "verify", file.to_str().unwrap()])
}

fn restore(stage: &Stage, file: &Path) -> Told {
    let configuration = stage.path("hallmark.toml");
    let file = file.to_str().unwrap();
    let configuration = configuration.to_str().unwrap();
    stage.hallmark(&["backup", "restore", file, "--config", configuration])
}

fn backups(stage: &Stage) -> usize {
    fs::read_dir(stage.path("state/backup")).unwrap().count()
}

/// Verifies: backups cost the line nothing; each is whole; the newest are kept, with their manifests; one
/// is put on another disk if that is asked for.
#[test]
fn backups_are_made_while_the_line_is_at_work() {
    let stage = Stage::set();
    let policy = "\n[policy]\nbackups_kept = 2\n";
    stage.configure(&(stage.configuration() + policy));
    let stage = stage.raised();
    let elsewhere = stage.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    Load::during(&stage, |load| {
        let first = create(&stage);
        assert_eq!(verify(&stage, &first).code, Some(0));
        load.is_looked_at();
        let [second, third] = [(); 2].map(|()| create(&stage));
        assert!(!first.exists(), "the oldest makes room");
        for file in [&second, &third] {
            assert_eq!(verify(&stage, file).code, Some(0));
        }
        assert_eq!(backups(&stage), 4, "two, each with its manifest");
        until("a copy is elsewhere", || {
            let to = elsewhere.to_str().unwrap();
            (stage.hallmark(&["backup", "create", "--to", to]).code == Some(0)).then_some(())
        });
        assert_eq!(load.refused(), 0, "somebody was told to wait");
    });
    let copies = fs::read_dir(&elsewhere).unwrap();
    let copies = copies.map(|it| it.unwrap().path());
    let copy = copies.filter(|it| it.extension().unwrap() == "db").max();
    assert_eq!(verify(&stage, &copy.unwrap()).code, Some(0));
}

/// Verifies: one byte that is another, in the copy or in its manifest, is found, and not restored; nor is
/// anything while a daemon runs.
#[test]
fn a_backup_that_was_changed_is_neither_verified_nor_restored() {
    let mut stage = Stage::up();
    let file = create(&stage);
    let told = restore(&stage, &file);
    assert_eq!(told.code, Some(1));
    assert!(told.error.contains("another daemon has"), "{told:?}");
    stage.stop();
    let before = fs::read(stage.database()).unwrap();
    for (changed, mark) in [
        (file.clone(), "is not what its manifest says"),
        (file.with_extension("json"), "manifest"),
    ] {
        let good = fs::read(&changed).unwrap();
        let mut bad = good.clone();
        let at = bad.len() / 2;
        bad[at] ^= 1;
        fs::write(&changed, &bad).unwrap();
        for told in [verify(&stage, &file), restore(&stage, &file)] {
            assert_eq!(told.code, Some(1), "{mark}: {told:?}");
            assert!(told.error.contains(mark), "{mark}: {told:?}");
        }
        fs::write(&changed, &good).unwrap();
    }
    assert_eq!(fs::read(stage.database()).unwrap(), before);
    assert_eq!(verify(&stage, &file).code, Some(0));
}

/// Verifies, in the place of a younger database and then in a folder that is new: the state of the backup is
/// back, what is missing is told by its serial number, the journal goes on with the restore and verifies,
/// the same token signs, and no revocation list has a number that was used before.
#[test]
fn a_restored_database_issues_with_the_same_token() {
    let mut stage = Stage::up();
    let number = |stage: &Stage| {
        let lists = stage.json(&["status"])["crls"].clone();
        let numbers = lists.as_array().unwrap().iter();
        numbers
            .map(|it| it["number"].as_i64().unwrap())
            .max()
            .unwrap()
    };
    stage.station().obtain(&Request::device("pump-1"));
    let file = create(&stage);
    let file = {
        let kept = stage.path("kept");
        fs::create_dir(&kept).unwrap();
        for extension in ["db", "json"] {
            let from = file.with_extension(extension);
            fs::copy(&from, kept.join(from.file_name().unwrap())).unwrap();
        }
        kept.join(file.file_name().unwrap())
    };
    let later = stage.station().obtain(&Request::device("pump-2"));
    let before = number(&stage);
    stage.stop();

    let told = restore(&stage, &file);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.out.contains("WHAT WAS DONE AFTER"), "{told:?}");
    assert!(told.out.contains(&later.serial), "{told:?}");
    stage.start();
    stage.is_ready();
    stage.json(&["device", "show", "pump-1"]);
    assert_ne!(stage.hallmark(&["device", "show", "pump-2"]).code, Some(0));
    assert_eq!(stage.count("audit WHERE action = 'backup.restored'"), 1);
    assert_eq!(stage.json(&["audit", "verify"])["broken_at"], Value::Null);
    let station = stage.station_called("station-2");
    station.obtain(&Request::device("pump-3"));
    until("a list with a number of its own", || {
        (number(&stage) > before).then_some(())
    });

    stage.stop();
    fs::rename(stage.path("state"), stage.path("lost")).unwrap();
    let told = restore(&stage, &file);
    assert_eq!(told.code, Some(0), "{told:?}");
    stage.start();
    stage.is_ready();
    until("HTTPS answers", || {
        stage.stranger().try_get("/healthz").ok()
    });
    stage
        .station_called("station-3")
        .obtain(&Request::device("pump-4"));
}

/// A device is blocked after the backup, so the list in the backup lacks it. After the restore that list
/// is not served, over plain HTTP or HTTPS, while the token is away and across restarts: clients are
/// told to come back, and an alarm says so. The first list that is served is newer than all before.
#[test]
fn a_restored_list_is_not_served_before_the_next_one_is_signed() {
    let mut stage = Stage::up();
    stage.station().obtain(&Request::device("pump-1"));
    let file = create(&stage);
    stage.told(&["device", "block", "pump-1"]);
    let published = Relying::on(&stage).listed("line-1");
    assert_eq!(published.1.len(), 1);
    stage.stop();
    assert_eq!(restore(&stage, &file).code, Some(0));

    let (tokens, away) = (stage.path("tokens"), stage.path("tokens.away"));
    fs::rename(&tokens, &away).unwrap();
    for _ in 0..2 {
        stage.start();
        for caller in [stage.plain_http(), stage.stranger()] {
            for name in ["line-1", "line-1-1", "plant", "root"] {
                let answer = caller.get(&format!("/crl/{name}.crl"));
                let said = (answer.status, answer.code(), answer.retry_after.is_some());
                assert_eq!(said, (503, "crl_withheld", true), "{name}: {answer:?}");
            }
        }
        let status = stage.json(&["status"]);
        let lists = status["crls"].as_array().unwrap();
        assert!(lists.iter().all(|it| it["withheld"] == true), "{status}");
        let alarms = status["alarms"].to_string();
        assert!(
            alarms.contains("line-1") && alarms.contains("restore"),
            "{alarms}"
        );
        let shown = stage.json(&["authority", "show", "line-1"]);
        assert_eq!(shown[0]["crl_number"], Value::Null);
        stage.stop();
    }
    fs::rename(&away, &tokens).unwrap();
    stage.start();
    let relying = Relying::on(&stage);
    until("the next list is served", || {
        (relying.get("/crl/line-1.crl").status() == 200).then_some(())
    });
    assert!(relying.listed("line-1").0 > published.0);
    until("no list is withheld", || {
        let alarms = stage.json(&["status"])["alarms"].to_string();
        (!alarms.contains("restore")).then_some(())
    });
    assert_eq!(stage.count("generation WHERE crl_withheld = 1"), 0);
}

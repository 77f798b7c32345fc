//! Tests backups that are encrypted to recipients, and what a restore says before it acts. The
//! judge of the format is the program `age`.

use crate::backup::{create, restore};
use crate::process::CommandOutput;
use crate::request::Request;
use crate::test_env::TestEnv;
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes an identity by `age-keygen`; returns its file and its recipient.
pub(crate) fn identity(env: &TestEnv, name: &str) -> (PathBuf, String) {
    let file = env.path(name);
    let made = CommandOutput::of(Command::new("age-keygen").arg("-o").arg(&file));
    assert_eq!(made.code, Some(0), "{made:?}");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let shown = CommandOutput::of(Command::new("age-keygen").arg("-y").arg(&file));
    (file, shown.out.trim().to_owned())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn encrypting(recipients: &[&str]) -> TestEnv {
    let env = TestEnv::new();
    let policy = format!("\n[policy]\nbackup_recipients = {recipients:?}\n");
    env.configure(&(env.configuration() + &policy));
    env.started()
}

/// Runs `hallmark backup` with a file, an identity and more.
fn backup(
    env: &TestEnv,
    command: &str,
    file: &Path,
    identity: Option<&Path>,
    more: &[&str],
) -> CommandOutput {
    let mut arguments = vec!["backup", command, text(file)];
    arguments.extend(identity.map(|it| ["--identity", text(it)]).iter().flatten());
    arguments.extend(more);
    env.hallmark(&arguments)
}

/// Verifies: only ciphertext is in the folder, also after a kill at each step; `age` decrypts it to
/// the database that the manifest describes; the identity of either recipient restores it, another
/// one and a changed byte do not; nothing of an identity is printed.
#[test]
fn a_backup_is_encrypted_to_its_recipients() {
    let scratch = TestEnv::new();
    let (own, recipient) = identity(&scratch, "own.txt");
    let (_, second) = identity(&scratch, "second.txt");
    let (other, _) = identity(&scratch, "other.txt");
    let mut env = encrypting(&[&recipient, &second]);
    env.station().obtain(&Request::device("pump-1"));
    for point in ["backup-copied", "backup-encrypted", "backup-manifest"] {
        env.restart_to_stay_at(point);
        let client = env.client();
        let asked = std::thread::spawn(move || client.hallmark(&["backup", "create"]));
        env.stays_at(point);
        env.kill();
        assert_ne!(asked.join().unwrap().code, Some(0));
        env.start();
        env.wait_ready();
        let left = fs::read_dir(env.path("state/backup")).unwrap().count();
        assert_eq!(left, 0, "{point}");
    }
    let file = create(&env);
    assert!(text(&file).ends_with(".db.age"), "{file:?}");
    let ciphertext = fs::read(&file).unwrap();
    assert!(ciphertext.starts_with(b"age-encryption.org/v1"));
    let has = |what: &[u8]| ciphertext.windows(what.len()).any(|it| it == what);
    assert!(!has(b"pump-1") && !has(b"SQLite format"), "it is readable");
    let kept = fs::read_dir(env.path("state/backup")).unwrap().count();
    assert_eq!(kept, 2, "the copy and its manifest");

    let plain = env.path("plain.db");
    let mut age = Command::new("age");
    age.args([
        "--decrypt",
        "-i",
        text(&own),
        "-o",
        text(&plain),
        text(&file),
    ]);
    let decrypted = CommandOutput::of(&mut age);
    assert_eq!(decrypted.code, Some(0), "{decrypted:?}");
    let sum = CommandOutput::of(Command::new("sha256sum").arg(&plain));
    let manifest = text(&file).replace(".db.age", ".json");
    let manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    assert_eq!(sum.out.split(' ').next(), manifest["sha256"].as_str());
    assert_eq!(manifest["encrypted"]["recipients"][1], second);

    for (identity, read) in [(None, "file"), (Some(&own), "database")] {
        let output = backup(&env, "verify", &file, identity.map(|it| &**it), &["--json"]);
        let verified: Value = serde_json::from_str(&output.out).unwrap();
        assert_eq!(verified["read"], read, "{output:?}");
    }
    env.station().obtain(&Request::device("pump-2"));
    env.stop();
    let config = env.path("hallmark.toml");
    let config = ["--config", text(&config), "--yes"];
    for (identity, words) in [(None, "--identity"), (Some(&*other), "no identity given")] {
        let refused = backup(&env, "restore", &file, identity, &config);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.error.contains(words), "{refused:?}");
    }
    let mut changed = ciphertext.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    fs::write(&file, changed).unwrap();
    let refused = backup(&env, "restore", &file, Some(&own), &config);
    assert!(refused.error.contains("manifest says"), "{refused:?}");
    fs::write(&file, &ciphertext).unwrap();
    let restored = backup(&env, "restore", &file, Some(&own), &config);
    assert_eq!(restored.code, Some(0), "{restored:?}");
    assert!(!restored.out.contains("AGE-SECRET"), "{restored:?}");
    env.start();
    env.wait_ready();
    env.json(&["device", "show", "pump-1"]);
    assert_ne!(env.hallmark(&["device", "show", "pump-2"]).code, Some(0));
}

/// A station is revoked and a device is blocked after the backup, and another station was never
/// issued by the present database. Verifies: the preview names all of it and changes nothing;
/// without a terminal nothing is restored unasked.
#[test]
fn a_restore_says_first_who_is_accepted_and_what_is_lost() {
    let mut env = TestEnv::running();
    env.enlist("station", "station-7");
    env.station().obtain(&Request::device("pump-1"));
    let empty = create(&env);
    let stranger = env.enlist("station", "station-9");
    let file = create(&env);
    env.stop();
    assert_eq!(restore(&env, &empty).code, Some(0));
    env.start();
    env.wait_ready();
    let listed = env.json(&["certificate", "list", "--profile", "station"]);
    let mut stations = listed.as_array().unwrap().iter();
    let revoked = stations.find(|it| it["subject"] == "station-7").unwrap();
    let serial = revoked["serial"].as_str().unwrap().to_owned();
    env.run(&["certificate", "revoke", &serial, "--reason", "superseded"]);
    env.run(&["device", "block", "pump-1"]);
    env.stop();

    let before = fs::read(env.database()).unwrap();
    let config = env.path("hallmark.toml");
    let config = ["--config", text(&config)];
    let preview = [&config[..], &["--preview", "--json"]].concat();
    let shown = backup(&env, "restore", &file, None, &preview);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    let shown: Value = serde_json::from_str(&shown.out).unwrap();
    let state = |name: &str| {
        let mut callers = shown["callers"].as_array().unwrap().iter();
        let named = callers.find(|it| it["subject"] == name);
        named.unwrap()["replaced"].clone()
    };
    assert_eq!(state("station-7"), "revoked", "{shown:#}");
    assert_eq!(state(&stranger.id), "unknown", "{shown:#}");
    assert_eq!(shown["missing"]["blocks"][0], "device pump-1", "{shown:#}");
    let lost = shown["missing"]["revocations"].as_array().unwrap();
    assert!(lost.iter().any(|it| it["serial"] == *serial), "{shown:#}");

    let asked = backup(&env, "restore", &file, None, &config);
    assert_eq!(asked.code, Some(2), "{asked:?}");
    for words in [
        "REVOKED SINCE",
        "NOT IN THE PRESENT DATABASE",
        "blocked   device pump-1",
    ] {
        assert!(asked.out.contains(words), "{words}: {asked:?}");
    }
    assert!(asked.error.contains("--yes"), "{asked:?}");
    assert!(
        fs::read(env.database()).unwrap() == before,
        "it was changed"
    );
}

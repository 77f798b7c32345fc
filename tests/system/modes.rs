//! Tests file modes: files of Hallmark belong to their owner alone, whatever the umask, and a
//! secret that other users can read is refused.

use crate::process::until;
use crate::request::Request;
use crate::test_env::TestEnv;
use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Files and folders below `folder` that other users can access, with their modes.
fn open_to_others(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mode = metadata.permissions().mode() & 0o7777;
        // The admin socket judges its callers by their user ids.
        if mode & 0o077 != 0 && !metadata.file_type().is_socket() {
            found.push((path.clone(), format!("{mode:04o}")));
        }
        if metadata.is_dir() {
            open_to_others(&path, found);
        }
    }
}

fn none_is_open_to_others(env: &TestEnv) {
    let mut found = Vec::new();
    open_to_others(&env.path("state"), &mut found);
    assert!(found.is_empty(), "{found:?}");
}

/// In a state folder that exists with mode 0755: the database and its logs while they are in use, a
/// backup, the TLS key, locks, and all other files. Modes that were widened since are restricted at
/// the next start.
#[test]
fn all_files_are_for_their_owner_alone_whatever_the_umask() {
    let env = TestEnv::new().in_namespace("umask 000");
    fs::create_dir(env.path("state")).unwrap();
    set_mode(&env.path("state"), 0o755);
    let mut env = env.started();
    env.station().obtain(&Request::device("press-1"));
    env.run(&["backup", "create"]);
    let state = env.path("state");
    let names = [
        "hallmark.db",
        "hallmark.db-wal",
        "hallmark.db-shm",
        "tls/server.key",
    ];
    for name in names {
        assert!(state.join(name).exists(), "{name}");
    }
    assert!(fs::read_dir(state.join("backup")).unwrap().count() >= 2);
    none_is_open_to_others(&env);

    env.kill();
    let left = names
        .map(|it| state.join(it))
        .into_iter()
        .filter(|it| it.exists());
    for file in left {
        set_mode(&file, 0o666);
    }
    env.start();
    env.wait_ready();
    until("the listener's key is read", || {
        let mode = fs::metadata(state.join("tls/server.key"))
            .unwrap()
            .permissions()
            .mode();
        (mode & 0o077 == 0).then_some(())
    });
    none_is_open_to_others(&env);
}

/// Connection strings and the bearer token, each world-readable in turn: no call uses it, the
/// reason names the command that restricts it, and that command restores the calls without a
/// restart.
#[test]
fn a_credential_that_others_can_read_is_refused() {
    let env = TestEnv::running();
    let credentials = ["connection-string", "arm-token"];
    for name in credentials {
        set_mode(&env.path(name), 0o644);
    }
    let output = env.check();
    let words = ["failed          credentials", "0644", "chmod 0600"];
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(words.iter().all(|it| output.out.contains(it)), "{output:?}");
    env.add_group("line-1", "line-1");
    until("the reason is shown", || {
        let waiting = env.json(&["push", "list"]).to_string();
        (waiting.contains("chmod 0600") && waiting.contains("0644")).then_some(())
    });
    assert!(env.emulator.group("line-1").is_none(), "something was sent");
    for name in credentials {
        set_mode(&env.path(name), 0o600);
    }
    env.hallmark(&["push", "retry"]);
    env.wait_in_sync();

    for (name, mode) in [("connection-string", 0o604), ("pin", 0o644)] {
        set_mode(&env.path(name), mode);
        let mut command = env.hallmarkd(&["import-secret", "--token", "factory", "--label", "dps"]);
        command.arg("--config").arg(env.path("hallmark.toml"));
        let output = command
            .arg("--file")
            .arg(env.path("connection-string"))
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && error.contains("chmod 0600"),
            "{name}: {error}"
        );
        set_mode(&env.path(name), 0o600);
    }
}

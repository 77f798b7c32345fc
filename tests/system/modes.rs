//! Files of ours are for their owner alone, whatever the umask; a secret that others can read is refused.

use crate::process::until;
use crate::request::Request;
use crate::stage::Stage;
use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Files and folders below `folder` that others than their owner can use, with their modes.
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

fn none_is_open_to_others(stage: &Stage) {
    let mut found = Vec::new();
    open_to_others(&stage.path("state"), &mut found);
    assert!(found.is_empty(), "{found:?}");
}

/// In a state folder that exists with mode 0755: the database and its logs while they are in use, a
/// backup, the TLS key, locks, and all the rest. What was opened up since is restricted at the next start.
#[test]
fn all_files_are_for_their_owner_alone_whatever_the_umask() {
    let stage = Stage::set().surrounded_by("umask 000");
    fs::create_dir(stage.path("state")).unwrap();
    set_mode(&stage.path("state"), 0o755);
    let mut stage = stage.raised();
    stage.station().obtain(&Request::device("press-1"));
    stage.told(&["backup", "create"]);
    let state = stage.path("state");
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
    none_is_open_to_others(&stage);

    stage.kill();
    let left = names
        .map(|it| state.join(it))
        .into_iter()
        .filter(|it| it.exists());
    for file in left {
        set_mode(&file, 0o666);
    }
    stage.start();
    stage.is_ready();
    until("the listener's key is read", || {
        let mode = fs::metadata(state.join("tls/server.key"))
            .unwrap()
            .permissions()
            .mode();
        (mode & 0o077 == 0).then_some(())
    });
    none_is_open_to_others(&stage);
}

/// Connection strings and the bearer token, each world-readable in turn: nothing is sent with it, the
/// reason names the command that mends it, and that command mends it without a restart.
#[test]
fn a_credential_that_others_can_read_is_refused() {
    let stage = Stage::up();
    let credentials = ["connection-string", "arm-token"];
    for name in credentials {
        set_mode(&stage.path(name), 0o644);
    }
    let told = stage.check();
    let words = ["WRONG provisioning", "0644", "chmod 0600"];
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(words.iter().all(|it| told.out.contains(it)), "{told:?}");
    stage.add_group("line-1", "line-1");
    until("the reason is shown", || {
        let waiting = stage.json(&["push", "list"]).to_string();
        (waiting.contains("chmod 0600") && waiting.contains("0644")).then_some(())
    });
    assert!(
        stage.emulator.group("line-1").is_none(),
        "something was sent"
    );
    for name in credentials {
        set_mode(&stage.path(name), 0o600);
    }
    stage.hallmark(&["push", "retry"]);
    stage.is_in_step();

    for (name, mode) in [("connection-string", 0o604), ("pin", 0o644)] {
        set_mode(&stage.path(name), mode);
        let mut command =
            stage.hallmarkd(&["import-secret", "--token", "factory", "--label", "dps"]);
        command.arg("--config").arg(stage.path("hallmark.toml"));
        let told = command
            .arg("--file")
            .arg(stage.path("connection-string"))
            .output()
            .unwrap();
        let error = String::from_utf8(told.stderr).unwrap();
        assert!(
            !told.status.success() && error.contains("chmod 0600"),
            "{name}: {error}"
        );
        set_mode(&stage.path(name), 0o600);
    }
}

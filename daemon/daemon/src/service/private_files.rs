//! Checks which users can read and change the daemon's files: folders, database, backups, keys and
//! secrets.

use crate::ca::doctor::check::Check;
use crate::ca::doctor::finding::Finding;
use crate::config::Configuration;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files of the state folder for their owner alone, the logs of SQLite included.
const STATE_FILES: [&str; 3] = ["hallmark.db", "hallmark.db-wal", "hallmark.db-shm"];
/// Folders in it, whose files are for their owner alone.
const STATE_FOLDERS: [&str; 2] = ["backup", "tls"];
/// Bits by which other users and the group read or write.
const OTHERS: u32 = 0o077;
/// Bits by which they pass through a folder.
const PASS: u32 = 0o011;
/// Bits of every user.
const EVERY_USER: u32 = 0o007;

/// Looks at all of them; one finding for each that is wrong, or one for all.
pub fn check_files(configuration: &Configuration) -> Vec<Finding> {
    let wrong: Vec<String> = folders(configuration)
        .chain(state_files(configuration))
        .chain(secrets(configuration))
        .collect();
    if wrong.is_empty() {
        let good = "state is for its owner alone, and no secret for every user";
        return vec![Finding::ok(Check::Files, good)];
    }
    let failed = |it| Finding::failed(Check::Files, it);
    wrong.into_iter().map(failed).collect()
}

fn folders(configuration: &Configuration) -> impl Iterator<Item = String> {
    let state = &configuration.state_dir;
    let mut folders = vec![state.as_path()];
    if configuration.token_state_dir != *state {
        folders.push(&configuration.token_state_dir);
    }
    // Users who may use the admin socket must reach it.
    let has_users = !configuration.admin_users.is_empty();
    let reached = configuration.admin.parent().filter(|_| has_users);
    folders.into_iter().filter_map(move |folder| {
        let passed = reached.is_some_and(|it| it.starts_with(folder));
        let allowed = if passed { PASS } else { 0 };
        let found = found(folder)?;
        match found.map(|it| it.mode() & 0o7777) {
            Err(error) => Some(format!("{} cannot be looked at: {error}", folder.display())),
            Ok(mode) if mode & OTHERS & !allowed != 0 => Some(format!(
                "{} has mode {mode:04o}, and other users can reach what is in it: chmod {:04o} {}",
                folder.display(),
                0o700 | allowed,
                folder.display()
            )),
            Ok(_) => None,
        }
    })
}

/// Reads the metadata at a path without following a link; `None` if the path does not exist.
fn entry(path: &Path) -> Option<io::Result<Metadata>> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        found => Some(found),
    }
}

fn state_files(configuration: &Configuration) -> impl Iterator<Item = String> {
    let state = configuration.state_dir.clone();
    let owner = fs::metadata(&state).ok().map(|it| it.uid());
    let files = STATE_FILES.map(|name| state.join(name));
    let nested = STATE_FOLDERS.map(|name| entries(&state.join(name)));
    let all = files.into_iter().chain(nested.into_iter().flatten());
    all.filter_map(move |file| {
        let Ok(found) = entry(&file)? else {
            return None;
        };
        if found.is_symlink() {
            return Some(format!(
                "{} is a symbolic link, and is not followed: find out who made it, and remove it",
                file.display()
            ));
        }
        let mode = found.mode() & 0o7777;
        if mode & OTHERS != 0 && found.is_file() {
            let file = file.display();
            return Some(format!(
                "{file} has mode {mode:04o}, and other users can read or change it: chmod 0600 \
                 {file}"
            ));
        }
        let owner = owner.filter(|it| *it != found.uid())?;
        Some(format!(
            "{} belongs to user {}, and its folder to user {owner}: the daemon cannot use it; \
             chown it to {owner}",
            file.display(),
            found.uid()
        ))
    })
}

fn secrets(configuration: &Configuration) -> impl Iterator<Item = String> {
    let pins = configuration
        .tokens
        .values()
        .filter_map(|it| it.credential.clone());
    let credentials = configuration
        .provisioning
        .values()
        .flat_map(|it| it.credential_files())
        .map(Path::to_owned);
    let files: Vec<PathBuf> = pins.chain(credentials).collect();
    files.into_iter().filter_map(|file| {
        // A missing file is a finding of the token, or is made while the daemon runs.
        let mode = found(&file)?.ok()?.mode() & 0o7777;
        (mode & EVERY_USER != 0).then(|| {
            let file = file.display();
            format!(
                "{file} is a secret with mode {mode:04o}, and every user can read it: chmod 0600 \
                 {file}, and exchange the secret"
            )
        })
    })
}

/// Reads the metadata at a path; `None` if the path does not exist.
fn found(path: &Path) -> Option<io::Result<Metadata>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        found => Some(found),
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|it| Some(it.ok()?.path())).collect()
}

//! Replaces the database by a backup while no daemon runs, for `hallmark backup restore`.
//!
//! The replaced database is kept in a folder of its own. The restored database does not know what
//! happened after the backup: the output says so, and the restored audit journal records it.
//! This module never touches a database that a daemon has open, and never leaves the write-ahead
//! log of one database beside another.

use super::arguments::BackupCommand;
use super::restore_preview::Preview;
use crate::ca::backup::{
    CHECKING, Manifest, OpenBackup, Report, compact, manifest_beside, progress_line,
    remove_unfinished, verify,
};
use crate::encryption::Identities;
use crate::files;
use crate::files::atomic::{self, remove, sync_folder};
use crate::printable::line;
use crate::service::take_state;
use crate::store::AuditEntry;
use crate::store::backup::{IssuedLater, issued_after, record_restore, settle};
use crate::store::database_file::logs;
use crate::toml_error::where_and_why;
use crate::unix_seconds::UnixSeconds;
use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Longest configuration, in bytes.
const CONFIGURATION_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The setting that a restore needs. Other settings may need secrets that are absent.
#[derive(Deserialize)]
struct StateFile {
    state_dir: PathBuf,
}

/// The result of a restore.
#[derive(Debug, Serialize)]
struct Restored {
    /// The manifest of the backup.
    manifest: Manifest,
    /// The folder that keeps the replaced database, if there was one.
    replaced: Option<PathBuf>,
    /// Certificates that only the replaced database has; `None` if it cannot be read.
    unknown: Option<Vec<IssuedLater>>,
}

/// Runs `command` for `hallmark backup`. Writes a line of JSON for each step, then its result:
/// `{"done": …, "text": "…"}` or `{"refused": "…"}`.
pub fn answer(command: &BackupCommand, out: &mut (impl Write + Send)) -> anyhow::Result<()> {
    let out = Mutex::new(out);
    let write = |line: &Value| {
        let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(out, "{line}").and_then(|()| out.flush())
    };
    // Without a reader the work goes to its end.
    let report = |step, done, total| drop(write(&progress_line(step, done, total)));
    let done = run(command, &report);
    let answer = done.unwrap_or_else(|error| json!({ "refused": format!("{error:#}") }));
    write(&answer).context("cannot write")
}

fn run(command: &BackupCommand, report: Report<'_>) -> anyhow::Result<Value> {
    Ok(match command {
        BackupCommand::Verify { file, identity } => {
            let identities = identities(identity.as_deref())?;
            json!({ "done": verify(file, identities.as_ref(), report)? })
        }
        BackupCommand::Preview {
            file,
            config,
            identity,
        } => {
            let preview = Restore::new(file, config, identity.as_deref())?.preview(report)?;
            json!({ "done": preview, "text": preview.to_text() })
        }
        BackupCommand::Copy { file, folder } => {
            json!({ "done": copy_backup(file, folder, report)? })
        }
        BackupCommand::Restore {
            file,
            config,
            identity,
        } => {
            let restored = Restore::new(file, config, identity.as_deref())?.run(report)?;
            json!({ "done": restored, "text": restored.to_text() })
        }
    })
}

fn identities(file: Option<&Path>) -> anyhow::Result<Option<Identities>> {
    let read = file.map(Identities::read).transpose();
    read.map_err(|reason| anyhow!(reason))
}

/// A backup that is to take the place of the database that a configuration names.
///
/// The files that the operator names are opened with the caller's rights; all the rest is done with
/// the rights of the state folder's owner.
struct Restore {
    backup: OpenBackup,
    identities: Option<Identities>,
    state_dir: PathBuf,
}

impl Restore {
    fn new(file: &Path, configuration: &Path, identity: Option<&Path>) -> anyhow::Result<Self> {
        let text = files::read_text(configuration, CONFIGURATION_BYTES_MAX)
            .with_context(|| format!("cannot read {}", configuration.display()))?;
        let StateFile { state_dir } = toml::from_str(&text)
            .map_err(|error| anyhow!(where_and_why(&text, &error)))
            .with_context(|| format!("cannot use {}", configuration.display()))?;
        Ok(Self {
            backup: OpenBackup::open(file)?,
            identities: identities(identity)?,
            state_dir,
        })
    }

    /// Says what the restore would do, and changes nothing.
    fn preview(self, report: Report<'_>) -> anyhow::Result<Preview> {
        self.with_rights_of_owner(|mut it| {
            let _lock = take_state(&it.state_dir)?;
            let (restored, manifest) = it.unpack(report)?;
            let database = it.state_dir.join("hallmark.db");
            let preview = Preview::of(manifest, &restored, &database, now()?);
            clear(&restored)?;
            preview
        })
    }

    fn run(self, report: Report<'_>) -> anyhow::Result<Restored> {
        let caller = rustix::process::getuid().as_raw();
        self.with_rights_of_owner(|it| it.replace(caller, report))
    }

    fn with_rights_of_owner<T: Send>(
        self,
        work: impl FnOnce(Self) -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let state_dir = self.state_dir.clone();
        let owner = files::owner_of(&state_dir)?;
        let done = files::as_owner(owner, || work(self))?;
        done.with_context(|| match owner {
            Some(owner) => format!("as user {}, who owns {}", owner.uid(), state_dir.display()),
            None => format!("in {}", state_dir.display()),
        })
    }

    /// Writes the database of the backup beside the one that it may replace.
    fn unpack(&mut self, report: Report<'_>) -> anyhow::Result<(PathBuf, Manifest)> {
        let restored = self.state_dir.join("hallmark.db.restored");
        clear(&restored)?;
        let identities = self.identities.as_ref();
        self.backup.database_to(identities, &restored, report)?;
        report(CHECKING, 0, 0);
        let manifest = self.backup.judged(&restored).inspect_err(|_| {
            // The next restore removes what remains.
            let _ = clear(&restored);
        })?;
        Ok((restored, manifest))
    }

    /// Replaces the database.
    fn replace(mut self, caller: u32, report: Report<'_>) -> anyhow::Result<Restored> {
        let _lock = take_state(&self.state_dir)?;
        let now = now()?;
        let database = self.state_dir.join("hallmark.db");
        let (restored, manifest) = self.unpack(report)?;
        let replaced = if files::is_there(&database)? {
            Some(set_aside(&database, now, report).context("cannot keep the old database aside")?)
        } else {
            None
        };
        let unknown = replaced
            .as_ref()
            .and_then(|it| issued_after(&it.join("hallmark.db"), manifest.contents.intents).ok());
        let entry = entry(
            &manifest,
            replaced.as_deref(),
            unknown.as_deref(),
            caller,
            now,
        );
        let lost_since = manifest.made()?;
        record_restore(&restored, lost_since, &entry)
            .context("cannot write the restore into the journal")?;
        // SQLite would apply a log of the old database to the new one.
        for log in logs(&database) {
            remove(&log)?;
        }
        files::rename(&restored, &database)?;
        sync_folder(&database)?;
        Ok(Restored {
            manifest,
            replaced,
            unknown,
        })
    }
}

fn now() -> anyhow::Result<UnixSeconds> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(UnixSeconds::new(since.as_secs().cast_signed()))
}

/// Removes the files of an interrupted restore: SQLite would apply its logs to the backup.
fn clear(restored: &Path) -> io::Result<()> {
    remove(restored)?;
    logs(restored).try_for_each(|it| remove(&it))
}

impl Restored {
    /// Returns the consequences and the next steps for the operator.
    fn to_text(&self) -> String {
        let made_at = &self.manifest.made_at;
        let mut text = format!("The state of {made_at} is restored; start the daemon.\n");
        if let Some(folder) = &self.replaced {
            text += &format!("The replaced database is in {}.\n", folder.display());
        }
        text += &format!(
            "\nWHAT WAS DONE AFTER {made_at} IS UNKNOWN TO IT:\n\
             - Certificates issued since are on no revocation list, and cannot be revoked one by \
             one. Their devices have to ask for new ones.\n\
             - Revocations and blocks since then are undone. Make them again, first of all.\n\
             - Provisioning services may hold what came since; the daemon compares them when it \
             starts: `hallmark enrollment list --unknown`.\n\
             - Generations that authorities were given since are unknown, and so are their keys.\n"
        );
        match &self.unknown {
            Some(unknown) if unknown.is_empty() => {
                text += "The replaced database has no certificate that is missing now.\n";
            }
            Some(unknown) => {
                text += &format!("{} certificates are missing now:\n", unknown.len());
                for it in unknown {
                    let missing = format!("{} {} {}", it.serial, it.profile, it.subject);
                    text += &format!("{}\n", line(&missing));
                }
            }
            None => {
                text += "These certificates are unknown: the replaced database cannot be read.\n"
            }
        }
        text
    }
}

/// Returns the entry for the restored journal.
fn entry(
    manifest: &Manifest,
    replaced: Option<&Path>,
    unknown: Option<&[IssuedLater]>,
    caller: u32,
    now: UnixSeconds,
) -> AuditEntry {
    AuditEntry {
        at: now,
        actor: format!("local uid {caller}"),
        action: "backup.restored",
        subject: manifest.sha256.clone(),
        detail: json!({
            "made_at": manifest.made_at,
            "audit_hash": manifest.contents.audit_hash,
            "replaced": replaced.map(|it| it.display().to_string()),
            "unknown_certificates": unknown.map(<[_]>::len),
        }),
    }
}

/// Copies the database with its logs into a new folder, and leaves it where it is.
fn set_aside(database: &Path, now: UnixSeconds, report: Report<'_>) -> io::Result<PathBuf> {
    report("keeping the replaced database", 0, 0);
    // An intact database becomes one file; a damaged one keeps its logs.
    let _ = settle(database);
    let folder = database.with_file_name(format!("replaced-{}", compact(now)));
    files::make_new_folder(&folder, 0o700)?;
    for file in [database.to_owned()].into_iter().chain(logs(database)) {
        if files::is_there(&file)? {
            copy(&file, &folder.join(file.file_name().unwrap_or_default()))?;
        }
    }
    sync_folder(&folder)?;
    Ok(folder)
}

/// Copies a file of ours durably and for its owner alone.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut input = files::open_ours(from)?;
    let mut output = files::create_new(to, 0o600)?;
    io::copy(&mut input, &mut output)?;
    output.sync_all()
}

/// Copies a backup that the daemon made, manifest and all, into `folder`. Each byte is compared
/// with the manifest on its way. Files that interrupted copies left in the folder are removed.
fn copy_backup(file: &Path, folder: &Path, report: Report<'_>) -> anyhow::Result<PathBuf> {
    let Some(name) = file.file_name() else {
        bail!("{} is no file", file.display());
    };
    let copied = folder.join(name);
    let failed = || format!("cannot copy {} to {}", file.display(), folder.display());
    let mut backup = OpenBackup::open(file).with_context(failed)?;
    // Held until the copy is made: a copy under way is no interrupted one. A file system without
    // such locks keeps what interruptions leave.
    let alone = files::open_folder(folder).and_then(|it| it.lock().map(|()| it));
    if alone.is_ok() {
        remove_unfinished(folder).with_context(failed)?;
    }
    let beside = atomic::temporary_path(&copied);
    remove(&beside)?;
    backup.copy_to(&beside, report).with_context(failed)?;
    let manifest = manifest_beside(&copied);
    atomic::write(&manifest, backup.manifest_text(), 0o600).with_context(failed)?;
    files::rename(&beside, &copied).with_context(failed)?;
    sync_folder(&copied)?;
    Ok(copied)
}

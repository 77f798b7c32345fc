//! `hallmark backup restore`: a backup takes the place of the database, while no daemon runs.
//!
//! The database of before is kept aside, whole. What was done after the backup is unknown to what is
//! restored, and that is told: to whoever restores, and to the audit journal, in the restored database
//! itself. It must never touch a database that a daemon has open, nor leave a write-ahead log beside another
//! database.

pub use crate::ca::backup::verify;

use crate::ca::backup::{Manifest, compact};
use crate::durable::{remove, sync_folder};
use crate::printable::line;
use crate::service::take_state;
use crate::store::AuditEntry;
use crate::store::backup::{IssuedLater, issued_after, record_restore, settle};
use crate::toml_error::where_and_why;
use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a restore needs to know of the configuration: the rest may need secrets that are not there.
#[derive(Deserialize)]
struct StateFile {
    state_dir: PathBuf,
}

/// What was restored, and what that means.
#[derive(Debug, Serialize)]
pub struct Restored {
    /// What stands beside the copy.
    pub manifest: Manifest,
    /// Where the database of before is, if there was one.
    pub replaced: Option<PathBuf>,
    /// Certificates that the database of before knows and the restored one does not; none if it cannot
    /// be read.
    pub unknown: Option<Vec<IssuedLater>>,
}

/// Puts the backup `file` in the place of the database that `configuration` names.
pub fn restore(file: &Path, configuration: &Path) -> anyhow::Result<Restored> {
    let text = fs::read_to_string(configuration)
        .with_context(|| format!("cannot read {}", configuration.display()))?;
    let StateFile { state_dir } = toml::from_str(&text)
        .map_err(|error| anyhow!(where_and_why(&text, &error)))
        .with_context(|| format!("cannot use {}", configuration.display()))?;
    let manifest = verify(file)?;
    let _lock = take_state(&state_dir)?;
    let owner = fs::metadata(&state_dir)?;
    let own = |path: &Path| chown(path, Some(owner.uid()), Some(owner.gid()));

    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)?
        .as_secs()
        .cast_signed();
    let database = state_dir.join("hallmark.db");
    let restored = state_dir.join("hallmark.db.restored");
    // Of a restore that was cut off: SQLite would take its journal for one of this backup.
    for left in ["", "-journal", "-wal", "-shm"] {
        remove(&state_dir.join(format!("hallmark.db.restored{left}")))?;
    }
    copy(file, &restored).context("cannot copy the backup")?;
    own(&restored)?;
    let replaced = match database.exists() {
        true => Some(set_aside(&database, now).context("cannot keep the old database aside")?),
        false => None,
    };
    let unknown = replaced
        .as_ref()
        .and_then(|it| issued_after(&it.join("hallmark.db"), manifest.contents.intents).ok());
    let entry = entry(&manifest, replaced.as_deref(), unknown.as_deref(), now);
    record_restore(&restored, &entry).context("cannot write the restore into the journal")?;
    if let Some(folder) = &replaced {
        own(folder)?;
        for file in fs::read_dir(folder)? {
            own(&file?.path())?;
        }
    }
    // A log of the old database would be taken for one of the new.
    for log in logs(&database) {
        remove(&log)?;
    }
    fs::rename(&restored, &database)?;
    sync_folder(&database)?;
    Ok(Restored {
        manifest,
        replaced,
        unknown,
    })
}

impl Restored {
    /// What a person has to know, and to do.
    pub fn to_text(&self) -> String {
        let made_at = &self.manifest.made_at;
        let mut text = format!("The state of {made_at} is restored; start the daemon.\n");
        if let Some(folder) = &self.replaced {
            text += &format!("The database of before is in {}.\n", folder.display());
        }
        text += &format!(
            "\nWHAT WAS DONE AFTER {made_at} IS UNKNOWN TO IT:\n\
             - Certificates issued since are on no revocation list, and cannot be revoked one by one. \
             Their devices have to ask for new ones.\n\
             - Revocations and blocks since then are undone. Make them again, first of all.\n\
             - Provisioning services may hold what came since: `hallmark push list`, \
             `hallmark enrollment list`.\n\
             - Generations that authorities were given since are unknown, and so are their keys.\n"
        );
        match &self.unknown {
            Some(unknown) if unknown.is_empty() => {
                text += "The database of before knows of no certificate that is missing now.\n";
            }
            Some(unknown) => {
                text += &format!("{} certificates are missing now:\n", unknown.len());
                for it in unknown {
                    let missing = format!("{} {} {}", it.serial, it.profile, it.subject);
                    text += &format!("{}\n", line(&missing));
                }
            }
            None => text += "Which certificates these are, nobody here can tell.\n",
        }
        text
    }
}

/// For the journal that goes on from here.
fn entry(
    manifest: &Manifest,
    replaced: Option<&Path>,
    unknown: Option<&[IssuedLater]>,
    now: i64,
) -> AuditEntry {
    AuditEntry {
        at: now,
        actor: format!("local uid {}", rustix::process::getuid().as_raw()),
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

/// Keeps the database with its logs in a folder of its own, and leaves it where it is.
fn set_aside(database: &Path, now: i64) -> io::Result<PathBuf> {
    // One that is whole is one file afterwards; one that is damaged keeps its logs.
    let _ = settle(database);
    let folder = database.with_file_name(format!("replaced-{}", compact(now)));
    DirBuilder::new().mode(0o700).create(&folder)?;
    let files = [database.to_owned()].into_iter().chain(logs(database));
    for file in files.filter(|it| it.exists()) {
        let name = file.file_name().unwrap_or_default();
        copy(&file, &folder.join(name))?;
    }
    sync_folder(&folder)?;
    Ok(folder)
}

fn logs(database: &Path) -> impl Iterator<Item = PathBuf> {
    ["hallmark.db-wal", "hallmark.db-shm", "hallmark.db-journal"]
        .map(|name| database.with_file_name(name))
        .into_iter()
}

/// Copies durably, for nobody else to read.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let (mut input, mut options) = (File::open(from)?, OpenOptions::new());
    let mut output = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(to)?;
    io::copy(&mut input, &mut output)?;
    output.sync_all()
}

/// Copies a backup that the daemon made, manifest and all, into `folder`, and reads the copy whole.
pub fn copy_backup(file: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let Some(name) = file.file_name() else {
        bail!("{} is no file", file.display());
    };
    let copied = folder.join(name);
    for extension in ["json", "db"] {
        let from = file.with_extension(extension);
        copy(&from, &copied.with_extension(extension))
            .with_context(|| format!("cannot copy {} to {}", from.display(), folder.display()))?;
    }
    sync_folder(&copied)?;
    verify(&copied)?;
    Ok(copied)
}

//! Makes backups: copies of the database, each with a manifest that describes its state and proves
//! its bytes.
//!
//! A backup is `hallmark-TIME.db` and `hallmark-TIME.json` beside it; without its manifest it is
//! none. With recipients it is encrypted, and is `hallmark-TIME.db.age`. It is made while the
//! daemon issues, and read whole before it counts. No private key is
//! ever in one: a PKCS#11 token keeps its keys, and what a TPM handed out is encrypted for that
//! TPM.

mod folder;
mod open;

pub(crate) use folder::remove_unfinished;
pub use open::{OpenBackup, Verified, manifest_of, verify};

use super::authorize::{Authorized, Operate};
use super::{Code, Error, Issuer, crash_point};
use crate::encryption::Recipients;
use crate::files;
use crate::files::atomic;
use crate::store::backup::{Contents, inspect};
use crate::store::{AuditEntry, StoreError};
use crate::unix_seconds::UnixSeconds;
use open::{digest, unreadable};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

/// Takes how many bytes of how many a step of the work has done.
pub type Report<'a> = &'a (dyn Fn(&'static str, u64, u64) + Sync);

/// The line of JSON that reports a step: in bytes, or without a number if `total` is 0.
pub fn progress_line(step: &'static str, done: u64, total: u64) -> Value {
    match total {
        0 => json!({ "progress": step, "unit": "bytes" }),
        _ => json!({ "progress": step, "done": done, "total": total, "unit": "bytes" }),
    }
}

/// The manifest beside a copy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the daemon that made it.
    pub hallmark: String,
    /// RFC 3339: what was committed by then is in it.
    pub made_at: String,
    pub bytes: u64,
    /// Hex SHA-256 of the copy.
    pub sha256: String,
    /// The contents of the copy.
    pub contents: Contents,
    /// The file, if the copy is encrypted in it; `bytes` and `sha256` are of the copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<Encrypted>,
}

/// The file of an encrypted copy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Encrypted {
    pub bytes: u64,
    /// Hex SHA-256 of the file.
    pub sha256: String,
    /// The recipients of age, whose identities decrypt it.
    pub recipients: Vec<String>,
}

/// How backups are made.
#[derive(Clone, Debug, Default)]
pub struct BackupSettings {
    /// How many are kept.
    pub kept: usize,
    pub recipients: Recipients,
}

impl Manifest {
    /// Returns when the backup was made.
    pub fn made(&self) -> Result<UnixSeconds, BackupInvalid> {
        let made = OffsetDateTime::parse(&self.made_at, &Rfc3339);
        let made = made.map_err(|_| BackupInvalid::Unreadable {
            path: "its manifest".into(),
            reason: format!("{:?} is no time", self.made_at),
        })?;
        Ok(UnixSeconds::new(made.unix_timestamp()))
    }
}

/// A backup that was made.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Backup {
    /// The copy; its manifest lies beside it.
    pub file: PathBuf,
    #[serde(flatten)]
    pub manifest: Manifest,
    /// Older ones that were deleted for it.
    pub deleted: usize,
}

/// Why a file is no backup, or not one any more.
#[derive(Debug, thiserror::Error)]
pub enum BackupInvalid {
    /// A file cannot be read.
    #[error("{path}: {reason}")]
    Unreadable { path: String, reason: String },
    /// The manifest says something else.
    #[error("{path} is not what its manifest says: {what}; take another backup")]
    Differs { path: String, what: String },
    /// It is encrypted, and cannot be decrypted.
    #[error("{path} is encrypted: {reason}")]
    Encrypted { path: String, reason: String },
    /// It is no database that holds together.
    #[error("{path} is damaged: {source}; take another backup")]
    Damaged {
        path: String,
        /// The contents that were read.
        source: StoreError,
    },
}

/// Makes backups beside the database, and keeps the newest.
pub struct Backups {
    issuer: Arc<Issuer>,
    settings: BackupSettings,
    /// One backup at a time.
    running: Arc<Mutex<()>>,
}

impl Backups {
    pub(super) fn new(
        issuer: Arc<Issuer>,
        settings: BackupSettings,
        running: Arc<Mutex<()>>,
    ) -> Self {
        Self {
            issuer,
            settings,
            running,
        }
    }

    /// Removes the files of backups that the end of the process interrupted. A failure is logged:
    /// the next backup tries again.
    pub fn remove_unfinished(&self) {
        let Ok(_alone) = self.running.try_lock() else {
            return;
        };
        match folder::remove_unfinished(&self.folder()) {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, "files of interrupted backups removed"),
            Err(error) => tracing::warn!(%error, "files of interrupted backups not removed"),
        }
    }

    fn folder(&self) -> PathBuf {
        folder_beside(self.issuer.store().path())
    }

    /// Returns when the newest backup beside the database was made, by its name.
    pub fn newest(&self) -> Option<UnixSeconds> {
        let newest = folder::backups(&self.folder()).ok()?.pop()?;
        let (made, _) = time_of_name(newest.file_name()?.to_str()?)?;
        let form = format_description!("[year][month][day]T[hour][minute][second]Z");
        let made = PrimitiveDateTime::parse(made, form).ok()?;
        Some(UnixSeconds::new(made.assume_utc().unix_timestamp()))
    }

    /// Makes a backup beside the database, reads it whole, and deletes those that are too many.
    pub fn create(
        &self,
        permission: &Authorized<Operate>,
        report: Report<'_>,
    ) -> Result<Backup, Error> {
        let _alone = self.running.try_lock().map_err(|_| {
            Error::conflict(Code::BackupUnderWay, "a backup is being made; wait for it")
        })?;
        let now = self.issuer.now();
        let folder = self.folder();
        let recipients = &self.settings.recipients;
        let extension = if recipients.is_empty() {
            "db"
        } else {
            "db.age"
        };
        let name = format!("hallmark-{}", compact(now));
        let file = folder.join(format!("{name}.{extension}"));
        let failed = |error: &io::Error| {
            let message = format!("no backup in {}: {error}", folder.display());
            Error::later(60, Code::BackupFailed, message)
        };
        let prepared = files::make_folder(&folder, 0o700);
        let prepared = prepared.and_then(|()| folder::remove_unfinished(&folder));
        let kept = prepared.and_then(|_| folder::backups(&folder));
        let kept = kept.map_err(|error| failed(&error))?;
        let is_of_now = |it: &PathBuf| manifest_beside(it) == manifest_beside(&file);
        if kept.iter().any(is_of_now) {
            let message = "a backup of this second exists; try again in a second";
            return Err(Error::later(1, Code::BackupExists, message));
        }
        let partial = folder.join(format!("{name}.partial"));
        let copied = |done, total| report("copying the database", done, total);
        let made = self.issuer.store().copy_to(&partial, &copied);
        let made = made.map_err(Error::from);
        let made = made.and_then(|()| {
            crash_point("backup-copied");
            let mut manifest = manifest(&partial, now, report).map_err(|error| {
                // A copy that does not hold together says so of what it was made from.
                Error::stop(Code::BackupFailed, error.to_string())
            })?;
            if !recipients.is_empty() {
                report("encrypting the copy", 0, 0);
                let encrypted = encrypt(&partial, recipients);
                manifest.encrypted = Some(encrypted.map_err(|error| failed(&error))?);
            }
            publish(&partial, &file, &manifest).map_err(|error| failed(&error))?;
            Ok(manifest)
        });
        let manifest = made.inspect_err(|_| {
            // The disk may be full; what stays is removed by the next one.
            let _ = folder::remove_unfinished(&folder);
        })?;
        let entry = AuditEntry {
            at: now,
            actor: permission.caller().to_string(),
            action: "backup.created",
            subject: file.display().to_string(),
            detail: json!({
                "sha256": manifest.sha256,
                "audit_hash": manifest.contents.audit_hash,
            }),
        };
        pollster::block_on(self.issuer.store().record_audit(entry))?;
        let deleted = delete_oldest(kept, self.settings.kept.saturating_sub(1));
        Ok(Backup {
            deleted: deleted.map_err(|error| failed(&error))?,
            file,
            manifest,
        })
    }
}

/// Returns the folder with the backups of a database.
pub fn folder_beside(database: &Path) -> PathBuf {
    database.with_file_name("backup")
}

/// Returns the newest backup of a folder, by its name.
pub fn newest(folder: &Path) -> io::Result<Option<PathBuf>> {
    Ok(folder::backups(folder)?.pop())
}

/// The check of a copy, which has no number.
pub const CHECKING: &str = "checking that the copy holds together";

fn manifest(copy: &Path, now: UnixSeconds, report: Report<'_>) -> Result<Manifest, BackupInvalid> {
    report(CHECKING, 0, 0);
    let contents = inspect(copy).map_err(|source| BackupInvalid::Damaged {
        path: copy.display().to_string(),
        source,
    })?;
    let digested = files::open_ours(copy).and_then(|mut it| {
        let total = it.metadata()?.len();
        let read = |done| report("reading the copy", done, total);
        digest(&mut it, &mut io::sink(), &read)
    });
    let (bytes, sha256) = digested.map_err(|error| unreadable(copy, &error))?;
    Ok(Manifest {
        hallmark: env!("CARGO_PKG_VERSION").into(),
        made_at: now.to_string(),
        bytes,
        sha256,
        contents,
        encrypted: None,
    })
}

/// Puts the encrypted copy in the place of `partial`.
fn encrypt(partial: &Path, recipients: &Recipients) -> io::Result<Encrypted> {
    let to = partial.with_extension("partial-age");
    recipients.encrypt(&mut files::open_ours(partial)?, &to)?;
    crash_point("backup-encrypted");
    let (bytes, sha256) = digest(&mut files::open_ours(&to)?, &mut io::sink(), &|_| {})?;
    files::rename(&to, partial)?;
    Ok(Encrypted {
        bytes,
        sha256,
        recipients: recipients.names(),
    })
}

/// Returns the path of a backup's manifest.
pub fn manifest_beside(file: &Path) -> PathBuf {
    let encrypted = file.extension().is_some_and(|it| it == "age");
    let copy = encrypted.then(|| file.with_extension(""));
    copy.as_deref().unwrap_or(file).with_extension("json")
}

/// The manifest first: a copy that has its name has its manifest.
fn publish(partial: &Path, file: &Path, manifest: &Manifest) -> io::Result<()> {
    let text = format!("{:#}\n", json!(manifest));
    atomic::write(&manifest_beside(file), text.as_bytes(), 0o600)?;
    crash_point("backup-manifest");
    files::rename(partial, file)?;
    atomic::sync_folder(file)
}

fn delete_oldest(backups: Vec<PathBuf>, keep: usize) -> io::Result<usize> {
    let surplus = backups.len().saturating_sub(keep);
    for file in &backups[..surplus] {
        files::remove(file)?;
        let _ = files::remove(&manifest_beside(file));
    }
    Ok(surplus)
}

/// RFC 3339 without the marks that a file's name is better without.
pub fn compact(moment: UnixSeconds) -> String {
    moment.to_string().replace(['-', ':'], "")
}

/// Splits the name of a backup's file into its time, as [`compact`] writes it, and its extension.
/// Returns `None` for a name that no backup has.
fn time_of_name(name: &str) -> Option<(&str, &str)> {
    let (time, extension) = name.strip_prefix("hallmark-")?.split_once('.')?;
    let fits = |(at, byte): (usize, u8)| match at {
        8 => byte == b'T',
        15 => byte == b'Z',
        _ => byte.is_ascii_digit(),
    };
    let is_time = time.len() == 16 && time.bytes().enumerate().all(fits);
    is_time.then_some((time, extension))
}

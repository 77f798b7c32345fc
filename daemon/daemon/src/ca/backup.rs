//! Makes backups: copies of the database, each with a manifest that describes its state and proves
//! its bytes.
//!
//! A backup is `hallmark-TIME.db` and `hallmark-TIME.json` beside it; without its manifest it is
//! none. It is made while the daemon issues, and read whole before it counts. No private key is
//! ever in one: a PKCS#11 token keeps its keys, and what a TPM handed out is encrypted for that
//! TPM.

mod folder;

pub(crate) use folder::remove_unfinished;

use super::authorize::{Authorized, Operate};
use super::{Code, Error, Issuer, crash_point};
use crate::files;
use crate::files::atomic;
use crate::store::backup::{Contents, inspect};
use crate::store::{AuditEntry, StoreError};
use crate::unix_seconds::UnixSeconds;
use aws_lc_rs::digest::{Context, SHA256};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

/// The largest manifest, in bytes.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024;
/// Bytes that are digested at a time.
const DIGEST_BYTES: usize = 1024 * 1024;

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
    kept: usize,
    /// One backup at a time.
    running: Arc<Mutex<()>>,
}

impl Backups {
    pub(super) fn new(issuer: Arc<Issuer>, kept: usize, running: Arc<Mutex<()>>) -> Self {
        Self {
            issuer,
            kept,
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
        let file = folder.join(format!("hallmark-{}.db", compact(now)));
        let failed = |error: &io::Error| {
            let message = format!("no backup in {}: {error}", folder.display());
            Error::later(60, Code::BackupFailed, message)
        };
        let prepared = files::make_folder(&folder, 0o700);
        let prepared = prepared.and_then(|()| folder::remove_unfinished(&folder));
        let kept = prepared.and_then(|_| folder::backups(&folder));
        let kept = kept.map_err(|error| failed(&error))?;
        if kept.contains(&file) {
            let message = "a backup of this second exists; try again in a second";
            return Err(Error::later(1, Code::BackupExists, message));
        }
        let partial = file.with_extension("partial");
        let copied = |done, total| report("copying the database", done, total);
        let made = self.issuer.store().copy_to(&partial, &copied);
        let made = made.map_err(Error::from);
        let made = made.and_then(|()| {
            crash_point("backup-copied");
            let manifest = manifest(&partial, now, report).map_err(|error| {
                // A copy that does not hold together says so of what it was made from.
                Error::stop(Code::BackupFailed, error.to_string())
            })?;
            publish(&partial, &file, &manifest).map_err(|error| failed(&error))?;
            Ok(manifest)
        });
        let manifest = made.inspect_err(|_| {
            // The disk may be full; what stays is removed by the next one.
            let _ = atomic::remove(&partial);
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
        let deleted = delete_oldest(kept, self.kept.saturating_sub(1));
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

/// Reads the manifest of a backup, and not its copy.
pub fn manifest_of(file: &Path) -> Result<Manifest, BackupInvalid> {
    Ok(OpenBackup::open(file)?.manifest)
}

/// Reads a backup whole: it is what its manifest says, and a database that holds together. In
/// another user's folder root reads it with that user's rights.
pub fn verify(file: &Path, report: Report<'_>) -> Result<Manifest, BackupInvalid> {
    let folder = file.parent().filter(|it| !it.as_os_str().is_empty());
    let owner = files::owner_of(folder.unwrap_or(Path::new(".")));
    let owner = owner.map_err(|error| unreadable(file, &error))?;
    let verified = files::as_owner(owner, || {
        let mut backup = OpenBackup::open(file)?;
        backup.check_bytes(&mut io::sink(), "reading the backup", report)?;
        report(CHECKING, 0, 0);
        backup.judged(file)
    });
    verified.map_err(|error| unreadable(file, &error))?
}

/// A backup whose files are open: what is judged is what was opened.
#[derive(Debug)]
pub struct OpenBackup {
    path: PathBuf,
    copy: File,
    text: Vec<u8>,
    manifest: Manifest,
}

impl OpenBackup {
    /// Opens the copy `file` and reads the manifest beside it.
    pub fn open(file: &Path) -> Result<Self, BackupInvalid> {
        let beside = file.with_extension("json");
        let wrong = |what: &str, error: &dyn std::fmt::Display| {
            unreadable(&beside, &format!("{what}: {error}"))
        };
        let text = files::read(&beside, MANIFEST_BYTES_MAX)
            .map_err(|error| wrong("its manifest cannot be read", &error))?;
        let manifest =
            serde_json::from_slice(&text).map_err(|error| wrong("it is no manifest", &error))?;
        Ok(Self {
            path: file.to_owned(),
            copy: files::open(file).map_err(|error| unreadable(file, &error))?,
            text,
            manifest,
        })
    }

    /// The manifest as it was read.
    pub fn manifest_text(&self) -> &[u8] {
        &self.text
    }

    /// Copies it into a new file at `to`, durably and for its owner alone. A copy that differs from
    /// the manifest does not stay.
    pub fn copy_to(&mut self, to: &Path, report: Report<'_>) -> Result<(), BackupInvalid> {
        let mut output = files::create_new(to, 0o600).map_err(|error| unreadable(to, &error))?;
        let copied = self.check_bytes(&mut output, "copying the backup", report);
        let copied = copied.and_then(|()| {
            let synced = output.sync_all();
            synced.map_err(|error| unreadable(to, &error))
        });
        copied.inspect_err(|_| {
            let _ = files::remove(to);
        })
    }

    /// Writes the copy to `to`, and compares it with the manifest.
    fn check_bytes(
        &mut self,
        to: &mut dyn Write,
        step: &'static str,
        report: Report<'_>,
    ) -> Result<(), BackupInvalid> {
        let total = self.manifest.bytes;
        let digested = digest(&mut self.copy, to, &|done| report(step, done, total));
        let (bytes, sha256) = digested.map_err(|error| unreadable(&self.path, &error))?;
        if bytes != self.manifest.bytes || sha256 != self.manifest.sha256 {
            return Err(self.differs(format!("it has {bytes} bytes and SHA-256 {sha256}")));
        }
        Ok(())
    }

    /// The manifest, if the database at `copied` holds what it says.
    pub fn judged(&self, copied: &Path) -> Result<Manifest, BackupInvalid> {
        let contents = inspect(copied).map_err(|source| BackupInvalid::Damaged {
            path: self.path.display().to_string(),
            source,
        })?;
        if contents != self.manifest.contents {
            return Err(self.differs(format!("it holds {contents:?}")));
        }
        Ok(self.manifest.clone())
    }

    fn differs(&self, what: String) -> BackupInvalid {
        let path = self.path.display().to_string();
        BackupInvalid::Differs { path, what }
    }
}

fn unreadable(path: &Path, reason: &dyn std::fmt::Display) -> BackupInvalid {
    BackupInvalid::Unreadable {
        path: path.display().to_string(),
        reason: reason.to_string(),
    }
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
    })
}

/// The manifest first: a copy that has its name has its manifest.
fn publish(partial: &Path, file: &Path, manifest: &Manifest) -> io::Result<()> {
    let text = format!("{:#}\n", json!(manifest));
    atomic::write(&file.with_extension("json"), text.as_bytes(), 0o600)?;
    crash_point("backup-manifest");
    files::rename(partial, file)?;
    atomic::sync_folder(file)
}

fn delete_oldest(backups: Vec<PathBuf>, keep: usize) -> io::Result<usize> {
    let surplus = backups.len().saturating_sub(keep);
    for file in &backups[..surplus] {
        files::remove(file)?;
        let _ = files::remove(&file.with_extension("json"));
    }
    Ok(surplus)
}

/// Size and hex SHA-256 of what is read, which goes on to `output`. `report` gets how many bytes
/// were read so far.
fn digest(
    input: &mut dyn Read,
    output: &mut dyn Write,
    report: &dyn Fn(u64),
) -> io::Result<(u64, String)> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; DIGEST_BYTES];
    let mut bytes = 0;
    loop {
        let read = input.read(&mut buffer)?;
        if read == 0 {
            return Ok((bytes, hex::encode(context.finish())));
        }
        context.update(&buffer[..read]);
        output.write_all(&buffer[..read])?;
        bytes += read as u64;
        report(bytes);
    }
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

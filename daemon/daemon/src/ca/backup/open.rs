//! Opens, verifies and copies a backup. No daemon needs to run.

use super::{BackupInvalid, CHECKING, Manifest, Report, manifest_beside};
use crate::encryption::Identities;
use crate::files;
use crate::store::backup::inspect;
use aws_lc_rs::digest::{Context, SHA256};
use serde::Serialize;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The largest manifest, in bytes.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024;
/// Bytes that are digested at a time.
const DIGEST_BYTES: usize = 1024 * 1024;

const READING: &str = "reading the backup";
const COPYING: &str = "copying the backup";

/// Reads the manifest of a backup, and not its copy.
pub fn manifest_of(file: &Path) -> Result<Manifest, BackupInvalid> {
    Ok(OpenBackup::open(file)?.manifest)
}

/// A backup that was read.
#[derive(Debug, Serialize)]
pub struct Verified {
    #[serde(flatten)]
    pub manifest: Manifest,
    /// `database`, or `file` of an encrypted one that was not decrypted: then its bytes are those
    /// of the manifest, and what they hold was not read.
    pub read: &'static str,
}

/// Reads a backup whole: it is what its manifest says, and a database that holds together. An
/// encrypted one is decrypted with `identities`; its database was read before it was encrypted, so
/// its digest suffices. In another user's folder root reads it with that user's rights.
pub fn verify(
    file: &Path,
    identities: Option<&Identities>,
    report: Report<'_>,
) -> Result<Verified, BackupInvalid> {
    let folder = file.parent().filter(|it| !it.as_os_str().is_empty());
    let owner = files::owner_of(folder.unwrap_or(Path::new(".")));
    let owner = owner.map_err(|error| unreadable(file, &error))?;
    let verified = files::as_owner(owner, || {
        let mut backup = OpenBackup::open(file)?;
        if backup.manifest.encrypted.is_none() {
            backup.check_file(&mut io::sink(), READING, report)?;
            report(CHECKING, 0, 0);
            backup.judged(file)?;
        } else if identities.is_some() {
            backup.check_copy(identities, &mut io::sink(), READING, report)?;
        } else {
            backup.check_file(&mut io::sink(), READING, report)?;
            return Ok(backup.verified("file"));
        }
        Ok(backup.verified("database"))
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
        let beside = manifest_beside(file);
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

    /// Copies the file as it is into a new one at `to`, durably and for its owner alone. A copy
    /// that differs from the manifest does not stay.
    pub fn copy_to(&mut self, to: &Path, report: Report<'_>) -> Result<(), BackupInvalid> {
        write_new(to, |output| self.check_file(output, COPYING, report))
    }

    /// Writes the database into a new file at `to`, like [`Self::copy_to`]; an encrypted one is
    /// decrypted.
    pub fn database_to(
        &mut self,
        identities: Option<&Identities>,
        to: &Path,
        report: Report<'_>,
    ) -> Result<(), BackupInvalid> {
        write_new(to, |output| {
            self.check_copy(identities, output, COPYING, report)
        })
    }

    /// Writes the file to `to`, and compares it with the manifest.
    fn check_file(
        &mut self,
        to: &mut dyn Write,
        step: &'static str,
        report: Report<'_>,
    ) -> Result<(), BackupInvalid> {
        let manifest = &self.manifest;
        let of_copy = (manifest.bytes, &manifest.sha256);
        let encrypted = manifest.encrypted.as_ref();
        let expected = encrypted.map_or(of_copy, |it| (it.bytes, &it.sha256));
        let digested = digest(&mut self.copy, to, &|done| report(step, done, expected.0));
        let found = digested.map_err(|error| unreadable(&self.path, &error))?;
        self.compare(expected, &found)
    }

    /// Writes the database to `to`, and compares file and database with the manifest.
    fn check_copy(
        &mut self,
        identities: Option<&Identities>,
        to: &mut dyn Write,
        step: &'static str,
        report: Report<'_>,
    ) -> Result<(), BackupInvalid> {
        let Some(encrypted) = &self.manifest.encrypted else {
            return self.check_file(to, step, report);
        };
        let failed = |reason: String| BackupInvalid::Encrypted {
            path: self.path.display().to_string(),
            reason,
        };
        let identities = identities.ok_or_else(|| {
            failed(format!(
                "name the file with the identity of {} by `--identity`",
                encrypted.recipients.join(" or ")
            ))
        })?;
        self.check_file(&mut io::sink(), READING, report)?;
        let rewound = self.copy.rewind();
        rewound.map_err(|error| unreadable(&self.path, &error))?;
        let decrypted = identities.decrypt(&self.copy);
        let mut decrypted = decrypted.map_err(|reason| BackupInvalid::Encrypted {
            path: self.path.display().to_string(),
            reason,
        })?;
        let total = self.manifest.bytes;
        let digested = digest(&mut decrypted, to, &|done| report(step, done, total));
        let found = digested.map_err(|error| unreadable(&self.path, &error))?;
        drop(decrypted);
        self.compare((self.manifest.bytes, &self.manifest.sha256), &found)
    }

    fn compare(
        &self,
        expected: (u64, &String),
        (bytes, sha256): &(u64, String),
    ) -> Result<(), BackupInvalid> {
        if expected != (*bytes, sha256) {
            return Err(self.differs(format!("it has {bytes} bytes and SHA-256 {sha256}")));
        }
        Ok(())
    }

    fn verified(self, read: &'static str) -> Verified {
        Verified {
            manifest: self.manifest,
            read,
        }
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

/// Makes a file that stays only if all of it was written.
fn write_new(
    to: &Path,
    write: impl FnOnce(&mut File) -> Result<(), BackupInvalid>,
) -> Result<(), BackupInvalid> {
    let mut output = files::create_new(to, 0o600).map_err(|error| unreadable(to, &error))?;
    let written = write(&mut output).and_then(|()| {
        let synced = output.sync_all();
        synced.map_err(|error| unreadable(to, &error))
    });
    written.inspect_err(|_| {
        let _ = files::remove(to);
    })
}

pub(super) fn unreadable(path: &Path, reason: &dyn std::fmt::Display) -> BackupInvalid {
    BackupInvalid::Unreadable {
        path: path.display().to_string(),
        reason: reason.to_string(),
    }
}

/// Size and hex SHA-256 of what is read, which goes on to `output`. `report` gets how many bytes
/// were read so far.
pub(super) fn digest(
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

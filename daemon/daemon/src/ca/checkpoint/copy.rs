//! Appends each checkpoint to a file outside the database, one JSON object per line.
//!
//! It is of use where the database's owner cannot write it: append-only (`chattr +a`), on another
//! file system, or read by another machine.

use crate::ca::{Code, Error, Issuer};
use crate::files;
use crate::journal::checkpoint::Checkpoint;
use crate::journal::checkpoints::SignedCheckpoint;
use crate::journal::finding::{Finding, FindingKind};
use crate::x509::key::PublicKey;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// How many checkpoints are copied at once, where the copy lacks some.
const COPIED_MAX: u32 = 10_000;
/// How much of the end of a copy is read to find its newest checkpoint, in octets.
const TAIL_BYTES: u64 = 16 * 1024;
/// The longest copy that is read whole, in octets: some 300,000 checkpoints.
const COPY_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The checkpoints of a copy, or why a line of it is none.
pub(super) type Copied = Result<Vec<Checkpoint>, Finding>;

impl Issuer {
    /// Appends the checkpoints that the copy lacks.
    pub(super) fn copy_checkpoints(&self) -> Result<(), Error> {
        let Some(path) = &self.settings().audit.copy_to else {
            return Ok(());
        };
        let failed = |error: std::io::Error| {
            let message = format!(
                "the checkpoint cannot be copied to {}: {error}; make room there or correct \
                 [audit] copy_to",
                path.display()
            );
            Error::later(5, Code::AuditNotCheckpointed, message)
        };
        let last = newest_number(path).map_err(failed)?;
        let missing = self.store().checkpoints_after(last, COPIED_MAX)?;
        append(path, &missing).map_err(failed)
    }

    /// Returns the checkpoints of the copy that `keys` have signed; none without a copy.
    pub(super) fn copied_checkpoints(&self, keys: &[PublicKey], whole: bool) -> Copied {
        let Some(path) = &self.settings().audit.copy_to else {
            return Ok(Vec::new());
        };
        let text = if whole {
            text_of(path, COPY_BYTES_MAX)
        } else {
            text_of(path, TAIL_BYTES)
        };
        let text = match text {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "copy of the checkpoints not read");
                return Ok(Vec::new());
            }
        };
        let lines = complete_lines(&text);
        lines.map(|line| checkpoint_of(line, keys)).collect()
    }
}

fn checkpoint_of(line: &str, keys: &[PublicKey]) -> Result<Checkpoint, Finding> {
    let signed = serde_json::from_str::<SignedCheckpoint>(line).map_err(|_| {
        let text = "the copy has a line that is no checkpoint".to_owned();
        Finding::new(FindingKind::CheckpointForged, 0, 0, text)
    })?;
    signed.verify(keys)
}

/// Returns up to `limit` octets of the end of a file, from the begin of a line on.
fn text_of(path: &Path, limit: u64) -> std::io::Result<String> {
    let mut file = files::open(path)?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(limit);
    file.seek(SeekFrom::Start(from))?;
    let mut octets = Vec::new();
    file.take(limit).read_to_end(&mut octets)?;
    let text = String::from_utf8_lossy(&octets).into_owned();
    if from == 0 {
        return Ok(text);
    }
    Ok(text
        .split_once('\n')
        .map_or(String::new(), |it| it.1.to_owned()))
}

/// Returns the lines that end: a crash may have cut off the last one.
fn complete_lines(text: &str) -> impl Iterator<Item = &str> {
    let end = text.rfind('\n').map_or(0, |it| it + 1);
    text[..end].lines().filter(|it| !it.is_empty())
}

fn newest_number(path: &Path) -> std::io::Result<i64> {
    let text = match text_of(path, TAIL_BYTES) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        text => text?,
    };
    let numbers = complete_lines(&text)
        .filter_map(|line| serde_json::from_str::<SignedCheckpoint>(line).ok());
    Ok(numbers.map(|it| it.number).max().unwrap_or(0))
}

fn append(path: &Path, checkpoints: &[SignedCheckpoint]) -> std::io::Result<()> {
    if checkpoints.is_empty() {
        return Ok(());
    }
    let mut file = files::open_for_lines(path)?;
    let mut lines = String::new();
    if !ends_line(&mut file)? {
        lines.push('\n');
    }
    for checkpoint in checkpoints {
        lines.push_str(&serde_json::to_string(checkpoint)?);
        lines.push('\n');
    }
    file.write_all(lines.as_bytes())?;
    file.sync_data()
}

/// Returns true if the file is empty or ends with a line feed.
fn ends_line(file: &mut std::fs::File) -> std::io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

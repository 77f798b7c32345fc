//! Verifies an export of the audit journal without a daemon, by the public key alone.

use super::failure::Failure;
use hallmark_base::files;
use hallmark_pki::journal::checkpoint::Checkpoint;
use hallmark_pki::journal::checkpoints::{Checkpoints, SignedCheckpoint};
use hallmark_pki::journal::finding::Finding;
use hallmark_pki::journal::verification::{Chain, ENTRIES_AHEAD};
use hallmark_pki::journal::{Entry, Place};
use hallmark_pki::unix_seconds::UnixSeconds;
use hallmark_pki::x509::key::PublicKey;
use hallmark_pki::x509::key_pem::public_keys;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// The longest line, in octets.
const LINE_BYTES_MAX: u64 = 1024 * 1024;
/// The largest file of keys or of checkpoints, in octets.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A line of an export.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Entry(Box<ExportedEntry>),
    Checkpoint(SignedCheckpoint),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportedEntry {
    sequence: i64,
    at: i64,
    actor: String,
    action: String,
    subject: String,
    detail: Value,
    hash: String,
}

impl ExportedEntry {
    fn entry(self) -> Option<Entry> {
        let hash = hex::decode(self.hash).ok()?.try_into().ok()?;
        Some(Entry {
            sequence: self.sequence,
            at: UnixSeconds::new(self.at),
            fields: [
                self.actor,
                self.action,
                self.subject,
                self.detail.to_string(),
            ],
            hash,
        })
    }
}

/// Verifies an export with the public keys in `key`, and with the copy of checkpoints `expect`.
/// Returns the verdict as the daemon gives it.
pub(super) fn verify(export: &Path, key: &Path, expect: Option<&Path>) -> Result<Value, Failure> {
    let keys = read_keys(key)?;
    let recorded = read_checkpoints(export)?;
    if recorded.is_empty() {
        return Err(malformed(
            export,
            "it has no checkpoint, so no key shows that its entries are genuine; export it whole, \
             and set [audit] checkpoints where there are none",
        ));
    }
    let copied = expect.map_or(Ok(Vec::new()), read_checkpoints)?;
    let (checkpoints, mut finding) = match (signed(&recorded, &keys), signed(&copied, &keys)) {
        (Ok(recorded), Ok(copied)) => Checkpoints::judge(recorded, copied),
        (Err(forged), _) | (_, Err(forged)) => (Checkpoints::default(), Some(forged)),
    };
    let accepted = checkpoints.last().and_then(|it| it.accepted);
    let mut chain = Chain::whole(&checkpoints, accepted);
    if finding.is_none() {
        finding = follow(export, &mut chain)?.or_else(|| chain.end());
    }
    let Place { sequence, hash } = chain.place();
    let covered = checkpoints.last().map_or(0, |it| it.sequence);
    Ok(json!({
        "entries": sequence,
        "last_hash": hex::encode(hash),
        "broken_at": finding.as_ref().map(|it| it.from),
        "finding": finding,
        "checkpoints": checkpoints.iter().count(),
        "covered": covered,
        "accepted": accepted.map_or(0, |it| it.sequence),
    }))
}

fn signed(
    checkpoints: &[SignedCheckpoint],
    keys: &[PublicKey],
) -> Result<Vec<Checkpoint>, Finding> {
    checkpoints.iter().map(|it| it.verify(keys)).collect()
}

fn read_keys(path: &Path) -> Result<Vec<PublicKey>, Failure> {
    let text = files::read_text(path, FILE_BYTES_MAX);
    let text = text.map_err(|error| Failure::file(path, &error))?;
    let keys = public_keys(&text).map_err(|reason| malformed(path, &reason))?;
    if keys.is_empty() {
        return Err(malformed(path, "it has no public key in PEM"));
    }
    Ok(keys)
}

fn read_checkpoints(path: &Path) -> Result<Vec<SignedCheckpoint>, Failure> {
    let mut checkpoints = Vec::new();
    for_each_line(path, |line| {
        if let Line::Checkpoint(checkpoint) = line {
            checkpoints.push(checkpoint);
        }
        None
    })?;
    Ok(checkpoints)
}

/// Follows the entries of an export, with those ahead that name what breaks the chain.
fn follow(export: &Path, chain: &mut Chain) -> Result<Option<Finding>, Failure> {
    let mut ahead = VecDeque::new();
    let mut step = |ahead: &mut VecDeque<Entry>| {
        let found = chain.follow(ahead.make_contiguous(), 1);
        ahead.pop_front();
        found
    };
    let found = for_each_line(export, |line| {
        if let Line::Entry(entry) = line {
            ahead.push_back(entry.entry()?);
        }
        if ahead.len() <= ENTRIES_AHEAD {
            return None;
        }
        step(&mut ahead)
    })?;
    if found.is_some() {
        return Ok(found);
    }
    while !ahead.is_empty() {
        let found = step(&mut ahead);
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Calls `visit` with each line until it returns a finding.
fn for_each_line(
    path: &Path,
    mut visit: impl FnMut(Line) -> Option<Finding>,
) -> Result<Option<Finding>, Failure> {
    let file = files::open(path).map_err(|error| Failure::file(path, &error))?;
    let mut lines = BufReader::new(file);
    let mut number = 0;
    while let Some(text) = next_line(&mut lines, path)? {
        number += 1;
        let line = serde_json::from_str(&text).ok().filter(is_readable);
        let line = line.ok_or_else(|| {
            let reason = format!("line {number} is neither an entry nor a checkpoint");
            malformed(path, &reason)
        })?;
        let found = visit(line);
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn next_line(lines: &mut BufReader<File>, path: &Path) -> Result<Option<String>, Failure> {
    let mut text = String::new();
    let read = lines.take(LINE_BYTES_MAX).read_line(&mut text);
    let read = read.map_err(|error| Failure::file(path, &error))?;
    Ok((read > 0).then_some(text))
}

fn is_readable(line: &Line) -> bool {
    match line {
        Line::Entry(entry) => hex::decode(&entry.hash).is_ok_and(|it| it.len() == 32),
        Line::Checkpoint(_) => true,
    }
}

fn malformed(path: &Path, reason: &str) -> Failure {
    Failure::Failed(format!("{}: {reason}", path.display()))
}

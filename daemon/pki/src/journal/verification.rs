//! Follows the hash chain, compares it with checkpoints, and names the first thing that is wrong.

use super::checkpoint::{Accepted, Checkpoint, State};
use super::checkpoints::Checkpoints;
use super::finding::{Finding, FindingKind};
use super::{Entry, Place, finished};
use aws_lc_rs::digest;
use std::collections::BTreeMap;

/// How many entries after a break of the chain are read to name its cause.
pub const ENTRIES_AHEAD: usize = 64;

/// Follows a chain in portions.
pub struct Chain {
    at: Place,
    /// The places that checkpoints name, by the number of the entry; with the checkpoint's number.
    marks: BTreeMap<i64, (i64, [u8; 32])>,
    /// The entry of the checkpoint with which the verification begins; 0 if it begins before the
    /// first entry.
    begins_at: i64,
    /// The last entry that a checkpoint has confirmed.
    confirmed: i64,
    accepted: Option<Accepted>,
    digest: Digest,
}

/// A digest over entries as they are recorded, whether or not they verify.
#[derive(Clone)]
pub struct Digest(digest::Context);

impl Default for Digest {
    fn default() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }
}

impl Digest {
    /// Adds the next entry.
    pub fn add(&mut self, entry: &Entry) {
        self.0.update(&entry.seal_as(&[0; 32], entry.sequence));
        self.0.update(&entry.hash);
    }

    /// Returns SHA-256 over, for each entry, its hash as if it followed 32 octets of zero, and its
    /// recorded hash.
    pub fn finish(self) -> [u8; 32] {
        finished(self.0)
    }
}

impl Chain {
    /// Begins before the first entry. Entries up to `accepted` may be as they were then.
    pub fn whole(checkpoints: &Checkpoints, accepted: Option<Accepted>) -> Self {
        Self {
            at: Place::default(),
            marks: checkpoints.iter().map(mark).collect(),
            begins_at: 0,
            confirmed: 0,
            accepted,
            digest: Digest::default(),
        }
    }

    /// Begins after the entry of a checkpoint, which confirms all entries before. The entry itself
    /// must be the first that is followed.
    pub fn since(checkpoint: &Checkpoint) -> Self {
        Self {
            at: Place::default(),
            marks: BTreeMap::from([mark(checkpoint)]),
            begins_at: checkpoint.sequence,
            confirmed: 0,
            accepted: None,
            digest: Digest::default(),
        }
    }

    /// Returns the last entry that was followed.
    pub fn place(&self) -> Place {
        self.at
    }

    /// Follows the first `count` entries; the rest is read to name what breaks the chain.
    pub fn follow(&mut self, entries: &[Entry], count: usize) -> Option<Finding> {
        for (index, entry) in entries.iter().enumerate().take(count) {
            let finding = match self.accepted {
                Some(accepted) if entry.sequence <= accepted.sequence => {
                    self.follow_accepted(entry, accepted)
                }
                _ => self.follow_one(entry, &entries[index..]),
            };
            if finding.is_some() {
                return finding;
            }
            self.at = entry.place();
        }
        None
    }

    /// An entry up to the accepted one: it may be anything that it was when it was accepted.
    fn follow_accepted(&mut self, entry: &Entry, accepted: Accepted) -> Option<Finding> {
        self.digest.add(entry);
        if entry.sequence < accepted.sequence {
            return None;
        }
        self.confirmed = entry.sequence;
        if self.digest.clone().finish() == accepted.digest {
            return None;
        }
        let text = format!(
            "entries up to {} are not those that were accepted as they were",
            accepted.sequence
        );
        Some(Finding::new(
            FindingKind::Rewritten,
            1,
            accepted.sequence,
            text,
        ))
    }

    fn follow_one(&mut self, entry: &Entry, ahead: &[Entry]) -> Option<Finding> {
        // Where the verification begins at a checkpoint, that alone confirms the first entry.
        let begins_here = self.at.sequence == 0 && self.begins_at == entry.sequence;
        if !begins_here && !entry.follows(&self.at) {
            return Some(name(&self.at, ahead));
        }
        let (number, hash) = *self.marks.get(&entry.sequence)?;
        if hash == entry.hash {
            self.confirmed = entry.sequence;
            return None;
        }
        let from = (self.confirmed + 1).min(entry.sequence);
        let text = format!(
            "entries {from} to {} were changed, removed or inserted, and sealed again: checkpoint \
             {number} has another hash for entry {}",
            entry.sequence, entry.sequence
        );
        Some(Finding::new(
            FindingKind::Rewritten,
            from,
            entry.sequence,
            text,
        ))
    }

    /// Returns what is wrong after the last entry.
    pub fn end(&self) -> Option<Finding> {
        let (sequence, (number, _)) = self.marks.last_key_value()?;
        if *sequence <= self.at.sequence {
            return None;
        }
        let from = self.at.sequence + 1;
        let text = format!(
            "the end is cut off: checkpoint {number} is about entry {sequence}, and the last entry \
             is {}",
            self.at.sequence
        );
        Some(Finding::new(FindingKind::EndCutOff, from, *sequence, text))
    }
}

/// Returns the finding about entries after the checkpoint of an orderly stop.
pub fn after_closing(closing: &Checkpoint, last: i64) -> Option<Finding> {
    if closing.state != State::Closed || last <= closing.sequence {
        return None;
    }
    let from = closing.sequence + 1;
    let text = format!(
        "entries {from} to {last} follow checkpoint {}, which closed the journal at an orderly \
         stop; they were added while the daemon was stopped, or it ended before the token of the \
         checkpoints was there",
        closing.number
    );
    Some(Finding::new(FindingKind::AfterClosing, from, last, text))
}

fn mark(checkpoint: &Checkpoint) -> (i64, (i64, [u8; 32])) {
    (checkpoint.sequence, (checkpoint.number, checkpoint.hash))
}

/// Names why the first of `entries` does not follow `at`.
fn name(at: &Place, entries: &[Entry]) -> Finding {
    let expected = at.sequence + 1;
    let Some((entry, rest)) = entries.split_first() else {
        let text = format!("entry {expected} is missing");
        return Finding::new(FindingKind::Removed, expected, expected, text);
    };
    if let Some(late) = rest.iter().position(|it| it.sequence == expected)
        && entry.sequence != expected
    {
        let text = format!("entry {expected} comes {} entries too late", late + 1);
        return Finding::new(FindingKind::Reordered, expected, entry.sequence, text);
    }
    if entry.sequence > expected {
        let last = entry.sequence - 1;
        let text = format!("entries {expected} to {last} were removed");
        return Finding::new(FindingKind::Removed, expected, last, text);
    }
    if entry.sequence < expected {
        let text = format!(
            "entry {} is out of its order, after {}",
            entry.sequence, at.sequence
        );
        return Finding::new(FindingKind::Reordered, entry.sequence, expected, text);
    }
    if let Some(elsewhere) = found_later(at, entry, rest) {
        return elsewhere;
    }
    if let Some(count) = removed_before(entry, rest) {
        let last = expected + count - 1;
        let text = format!(
            "entries {expected} to {last} were removed, and those after them numbered again"
        );
        return Finding::new(FindingKind::Removed, expected, last, text);
    }
    let text = format!("entry {expected} was changed");
    Finding::new(FindingKind::Changed, expected, expected, text)
}

/// The entry that belongs here is at a later place: it was moved there, or another was inserted.
fn found_later(at: &Place, entry: &Entry, rest: &[Entry]) -> Option<Finding> {
    let expected = at.sequence + 1;
    let later = rest.iter().take(ENTRIES_AHEAD).find(|it| {
        let hash = it.seal_as(&at.hash, expected);
        hash == it.hash || hash == entry.hash
    })?;
    let seal = later.seal_as(&at.hash, expected);
    // Where another one of them follows the entry that belongs here, they were moved; else those
    // before it never were here.
    let next = |it: &Entry| it.seal_as(&seal, expected + 1);
    let is_moved = [later.hash, entry.hash].contains(&next(entry))
        || (later.sequence > expected + 1 && rest.first().is_some_and(|it| next(it) == it.hash));
    if is_moved {
        let text = format!("entry {expected} is at place {}", later.sequence);
        return Some(Finding::new(
            FindingKind::Reordered,
            expected,
            later.sequence,
            text,
        ));
    }
    let last = later.sequence - 1;
    let text = format!("entries {expected} to {last} were inserted");
    Some(Finding::new(FindingKind::Inserted, expected, last, text))
}

/// Returns how many entries were removed before `entry`, if those that follow still have the hashes
/// of greater numbers.
fn removed_before(entry: &Entry, rest: &[Entry]) -> Option<i64> {
    let next = rest.first()?;
    (1..=64).find(|removed| next.seal_as(&entry.hash, next.sequence + removed) == next.hash)
}

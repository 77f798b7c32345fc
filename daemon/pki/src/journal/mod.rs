//! Defines the audit journal as values: the hash chain of its entries, the signed checkpoints of
//! its end, and the verification of both.
//!
//! Daemon, worker and command read them alike, so an export can be verified without the daemon.

pub mod checkpoint;
pub mod checkpoints;
pub mod finding;
pub mod verification;

#[cfg(test)]
mod tests;

use crate::unix_seconds::UnixSeconds;
use aws_lc_rs::digest;

/// An entry of the journal, as it is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// 1, 2, 3 … without gaps.
    pub sequence: i64,
    pub at: UnixSeconds,
    /// Actor, action, subject, and the detail as JSON text.
    pub fields: [String; 4],
    /// The recorded hash.
    pub hash: [u8; 32],
}

/// A place in the chain: the number and the hash of an entry. The default is before the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub sequence: i64,
    pub hash: [u8; 32],
}

impl Entry {
    /// Returns the place of this entry, by its recorded hash.
    pub fn place(&self) -> Place {
        Place {
            sequence: self.sequence,
            hash: self.hash,
        }
    }

    /// Returns the hash that this entry would have as number `sequence` after `previous`.
    pub fn seal_as(&self, previous: &[u8; 32], sequence: i64) -> [u8; 32] {
        let [actor, action, subject, detail] = &self.fields;
        seal(
            previous,
            sequence,
            self.at,
            [actor, action, subject, detail],
        )
    }

    /// Returns true if this is the entry that follows `previous`.
    pub fn follows(&self, previous: &Place) -> bool {
        self.sequence == previous.sequence + 1
            && self.hash == self.seal_as(&previous.hash, self.sequence)
    }
}

/// Returns the hash of an entry: SHA-256 over the previous hash, number and time as eight octets
/// each (big-endian), and actor, action, subject and detail, each preceded by its length in octets
/// (eight octets, big-endian).
pub fn seal(previous: &[u8; 32], sequence: i64, at: UnixSeconds, fields: [&str; 4]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(previous);
    context.update(&sequence.to_be_bytes());
    context.update(&at.get().to_be_bytes());
    for field in fields {
        context.update(&(field.len() as u64).to_be_bytes());
        context.update(field.as_bytes());
    }
    finished(context)
}

fn finished(context: digest::Context) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

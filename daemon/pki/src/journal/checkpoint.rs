//! Defines a checkpoint: what a key of a token signs about the end of the audit journal.
//!
//! It is text of eight lines after a first line that is its domain. DER of a certificate, list,
//! request or OCSP answer begins with the octet of a SEQUENCE (0x30), a test message with other
//! text, and an assertion with base64, so a signature over a checkpoint is never one over those.

use crate::unix_seconds::UnixSeconds;
use std::fmt::Write;

/// The first line of every checkpoint.
pub const DOMAIN: &str = "Hallmark audit checkpoint 1\n";

/// The longest checkpoint, in octets; a usual one has fewer than 400.
pub const CHECKPOINT_BYTES_MAX: usize = 1_024;

/// Prefix of the label of every key of the journal. No label of an authority has it.
const LABEL_PREFIX: &str = "hallmark-audit ";

/// Returns `CKA_LABEL` of the journal's key with this number.
pub fn key_label(number: i64) -> String {
    format!("{LABEL_PREFIX}{number}")
}

/// Returns true if a key with this label is one of the journal.
pub fn is_audit_label(label: &str) -> bool {
    label.starts_with(LABEL_PREFIX)
}

/// Returns true if `bytes` are a checkpoint in its one encoding.
pub fn is_checkpoint(bytes: &[u8]) -> bool {
    Checkpoint::decode(bytes).is_some()
}

/// The end of the journal at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The hash of the journal's first entry when its first checkpoint was signed: it names the
    /// journal.
    pub journal: [u8; 32],
    /// 1, 2, 3 …, greater than that of every earlier checkpoint.
    pub number: i64,
    /// The number of the last entry.
    pub sequence: i64,
    /// The hash of the last entry, which covers all entries before it.
    pub hash: [u8; 32],
    pub at: UnixSeconds,
    /// SHA-256 over the tables, indexes and triggers of the database.
    pub schema: [u8; 32],
    /// The entries that an operator has accepted although they do not verify.
    pub accepted: Option<Accepted>,
    pub state: State,
}

/// The state of the journal at a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The daemon runs, and the next entries follow.
    Open,
    /// The daemon stops in order: no entry follows before the next checkpoint.
    Closed,
    /// The journal or the schema did not verify, and no operator has accepted that yet.
    Broken,
}

impl State {
    const ALL: [Self; 3] = [Self::Open, Self::Closed, Self::Broken];

    fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Broken => "broken",
        }
    }
}

/// The entries up to which findings were accepted, as they were then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The number of the last of these entries, at least 1.
    pub sequence: i64,
    /// The result of [`super::verification::Digest`] over them.
    pub digest: [u8; 32],
}

impl Checkpoint {
    /// Returns the octets to sign.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = DOMAIN.to_owned();
        let accepted = self.accepted.map_or("0 -".to_owned(), |it| {
            format!("{} {}", it.sequence, hex::encode(it.digest))
        });
        let lines = [
            ("journal", hex::encode(self.journal)),
            ("number", self.number.to_string()),
            ("entry", self.sequence.to_string()),
            ("hash", hex::encode(self.hash)),
            ("time", self.at.get().to_string()),
            ("schema", hex::encode(self.schema)),
            ("accepted", accepted),
            ("state", self.state.name().to_owned()),
        ];
        for (name, value) in lines {
            writeln!(text, "{name} {value}").expect("writing to a string does not fail");
        }
        text.into_bytes()
    }

    /// Reads what [`Self::encode`] has written; `None` for every other encoding.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > CHECKPOINT_BYTES_MAX {
            return None;
        }
        let text = std::str::from_utf8(bytes).ok()?.strip_prefix(DOMAIN)?;
        let mut lines = text.lines();
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let decoded = Self {
            journal: hash_of(value("journal")?)?,
            number: value("number")?.parse().ok()?,
            sequence: value("entry")?.parse().ok()?,
            hash: hash_of(value("hash")?)?,
            at: UnixSeconds::new(value("time")?.parse().ok()?),
            schema: hash_of(value("schema")?)?,
            accepted: accepted_of(value("accepted")?)?,
            state: state_of(value("state")?)?,
        };
        let is_in_range = decoded.number >= 1 && decoded.sequence >= 1;
        (is_in_range && decoded.encode() == bytes).then_some(decoded)
    }
}

fn state_of(text: &str) -> Option<State> {
    State::ALL.into_iter().find(|it| it.name() == text)
}

fn hash_of(text: &str) -> Option<[u8; 32]> {
    hex::decode(text).ok()?.try_into().ok()
}

fn accepted_of(text: &str) -> Option<Option<Accepted>> {
    if text == "0 -" {
        return Some(None);
    }
    let (sequence, digest) = text.split_once(' ')?;
    let accepted = Accepted {
        sequence: sequence.parse().ok().filter(|it| *it >= 1)?,
        digest: hash_of(digest)?,
    };
    Some(Some(accepted))
}

//! Reads signed checkpoints, and judges whether they agree with each other.

use super::checkpoint::Checkpoint;
use super::finding::{Finding, FindingKind};
use crate::x509::key::PublicKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A checkpoint with its signature, as exports and copies have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedCheckpoint {
    pub number: i64,
    /// The signed text ([`Checkpoint::encode`]).
    pub message: String,
    /// Hex SHA-256 of the key's SubjectPublicKeyInfo.
    pub key: String,
    /// The signature over the text, in hex.
    pub signature: String,
}

impl SignedCheckpoint {
    /// Returns the checkpoint, if one of `keys` has signed it.
    pub fn verify(&self, keys: &[PublicKey]) -> Result<Checkpoint, Finding> {
        let decoded = Checkpoint::decode(self.message.as_bytes());
        let decoded = decoded.filter(|it| it.number == self.number);
        let at = decoded.as_ref().map_or(0, |it| it.sequence);
        let forged = |kind, reason: &str| {
            let text = format!("checkpoint {} {reason}", self.number);
            Finding::new(kind, at, at, text)
        };
        let Some(checkpoint) = decoded else {
            return Err(forged(FindingKind::CheckpointForged, "is no checkpoint"));
        };
        let key = keys.iter().find(|it| hex::encode(it.sha256()) == self.key);
        let Some(key) = key else {
            let reason = "is signed by a key that is not one of the journal's";
            return Err(forged(FindingKind::KeyUnknown, reason));
        };
        let algorithm = key.key_type().signature_algorithm();
        let signature = hex::decode(&self.signature).unwrap_or_default();
        if !key.verify(algorithm, self.message.as_bytes(), &signature) {
            let reason = "has a signature that its key has not made";
            return Err(forged(FindingKind::CheckpointForged, reason));
        }
        Ok(checkpoint)
    }
}

/// The checkpoints of one journal that count, by their numbers.
#[derive(Clone, Debug, Default)]
pub struct Checkpoints(BTreeMap<i64, Checkpoint>);

impl Checkpoints {
    /// Judges the checkpoints of a journal, and those of a copy that was kept elsewhere. Those from
    /// before the last acceptance of findings do not count any more.
    pub fn judge(
        recorded: impl IntoIterator<Item = Checkpoint>,
        copied: impl IntoIterator<Item = Checkpoint>,
    ) -> (Self, Option<Finding>) {
        let recorded = by_number(recorded);
        let copied = by_number(copied);
        let mut all = copied.clone();
        all.extend(recorded.clone());
        let accepted = all.values().next_back().and_then(|it| it.accepted);
        let first = accepted.and_then(|accepted| {
            let mut since = all.values().filter(|it| it.accepted == Some(accepted));
            since.next().map(|it| it.number)
        });
        let counts = |number: &i64| first.is_none_or(|first| *number >= first);
        all.retain(|number, _| counts(number));
        let finding = copied
            .iter()
            .filter(|(number, _)| counts(number))
            .find_map(|(number, copy)| differs(*number, copy, recorded.get(number)))
            .or_else(|| order(&all));
        (Self(all), finding)
    }

    /// Returns the newest one.
    pub fn last(&self) -> Option<&Checkpoint> {
        self.0.values().next_back()
    }

    /// Returns all, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Checkpoint> {
        self.0.values()
    }
}

fn by_number(checkpoints: impl IntoIterator<Item = Checkpoint>) -> BTreeMap<i64, Checkpoint> {
    checkpoints.into_iter().map(|it| (it.number, it)).collect()
}

/// Compares a copy with the recorded checkpoint of the same number.
fn differs(number: i64, copy: &Checkpoint, recorded: Option<&Checkpoint>) -> Option<Finding> {
    let at = copy.sequence;
    match recorded {
        Some(recorded) if recorded == copy => None,
        Some(_) => {
            let text = format!("checkpoint {number} is another one than in the copy");
            Some(Finding::new(FindingKind::Rewritten, at, at, text))
        }
        None => {
            let text = format!("checkpoint {number}, which the copy has, is missing");
            Some(Finding::new(FindingKind::CheckpointMissing, at, at, text))
        }
    }
}

/// Finds checkpoints that are missing, or that contradict each other.
fn order(all: &BTreeMap<i64, Checkpoint>) -> Option<Finding> {
    all.values()
        .zip(all.values().skip(1))
        .find_map(|(one, next)| {
            let from = one.sequence;
            let to = next.sequence;
            if next.number != one.number + 1 {
                let text = format!(
                    "checkpoints {} to {} are missing",
                    one.number + 1,
                    next.number - 1
                );
                return Some(Finding::new(FindingKind::CheckpointMissing, from, to, text));
            }
            if next.sequence < one.sequence || next.journal != one.journal {
                let text = format!("checkpoint {} contradicts the one before it", next.number);
                return Some(Finding::new(FindingKind::Rewritten, to, from, text));
            }
            None
        })
}

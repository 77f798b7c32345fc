//! Records signatures that no certificate, list or request explains: test signatures of keys, those
//! of credentials' keys, and OCSP answers. Each worker counts them and reports the counts with its
//! health; this module writes them into the store and the audit journal.
//!
//! One entry has all new counts of a token, and each token gets [`ENTRIES_PER_MINUTE_MAX`] of them
//! at most. Counts in between are in the next entry.

use super::Issuer;
use crate::ca::{Error, lock};
use crate::store::{KeyCount, KeyUse};
use crate::token::client::KeyCounts;
use crate::unix_seconds::UnixSeconds;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Most entries for each token in a minute.
const ENTRIES_PER_MINUTE_MAX: usize = 12;
const MINUTE: Duration = Duration::from_secs(60);
/// Pause, in seconds, after which a token that has used its entries of this minute is recorded
/// again.
const PAUSE_SECONDS: i64 = 5;

/// The recorded counts of each token's keys.
pub(super) type RecordedKeyUses = BTreeMap<String, Recorded>;

#[derive(Default)]
pub(super) struct Recorded {
    last: Option<KeyCounts>,
    entries: VecDeque<Instant>,
}

impl Recorded {
    /// Whether there may be one more entry now.
    fn has_room(&mut self, now: Instant) -> bool {
        self.entries
            .retain(|entry| now.duration_since(*entry) < MINUTE);
        self.entries.len() < ENTRIES_PER_MINUTE_MAX
    }
}

impl Issuer {
    /// Records what is new. With `at_once`, however many entries there were. Returns when to look
    /// again, in Unix seconds, if something had to wait.
    pub fn record_key_uses(&self, at_once: bool) -> Result<Option<UnixSeconds>, Error> {
        let mut due = None;
        for name in self.tokens.keys() {
            if !self.record_key_uses_of(name, at_once)? {
                due = Some(self.now() + PAUSE_SECONDS);
            }
        }
        Ok(due)
    }

    /// False if something has to wait.
    fn record_key_uses_of(&self, name: &str, at_once: bool) -> Result<bool, Error> {
        let client = &self.token(name)?.client;
        let mut recorded = lock(&self.shared.key_uses);
        let recorded = recorded.entry(name.to_owned()).or_default();
        let now = Instant::now();
        for counts in client.key_counts() {
            if recorded.last.as_ref() == Some(&counts) {
                // Else those of a worker that has ended would be added a second time.
                client.forget_key_counts(counts.worker);
                continue;
            }
            if !at_once && !recorded.has_room(now) {
                return Ok(false);
            }
            let by_purpose = counts_of(&counts);
            self.store
                .record_key_counts(name.to_owned(), counts.worker, by_purpose, self.now())?;
            recorded.entries.push_back(now);
            client.forget_key_counts(counts.worker);
            recorded.last = Some(counts);
        }
        Ok(true)
    }
}

fn counts_of(counts: &KeyCounts) -> Vec<KeyCount> {
    let counts = counts.keys.iter().flat_map(|report| {
        let key = report.spki_sha256.map(hex::encode);
        let count = |kind, made| KeyCount {
            key: key.clone().unwrap_or_else(|| report.label.clone()),
            label: report.label.clone(),
            kind,
            made,
        };
        [
            count(KeyUse::Proof, report.proofs),
            count(KeyUse::Credential, report.credentials),
            count(KeyUse::Answer, report.answers),
        ]
    });
    counts.filter(|count| count.made > 0).collect()
}

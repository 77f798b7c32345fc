//! Holds the current revocation lists, and what keeps the next ones from being signed. A reload
//! keeps all of it.

use super::{FAILURE_PAUSE_SECONDS_MAX, TOKEN_PAUSE_SECONDS};
use crate::ca::Error;
use crate::ids::GenerationId;
use crate::store::{CrlPart, CrlRow};
use crate::unix_seconds::UnixSeconds;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The current lists, and what keeps the next ones from being signed.
pub(in crate::ca) struct RevocationLists {
    current: ArcSwap<BTreeMap<Key, Arc<CrlRow>>>,
    failures: Mutex<BTreeMap<GenerationId, Failure>>,
    /// One at a time makes lists.
    pub(super) updating: Mutex<()>,
}

/// A generation, a part of it, and whether the list is a delta list.
type Key = (GenerationId, u16, bool);

#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) message: String,
    attempts: u32,
    pub(super) retry_at: UnixSeconds,
}

fn key(row: &CrlRow) -> Key {
    (row.generation, row.part, row.base.is_some())
}

impl RevocationLists {
    pub(in crate::ca) fn new(current: Vec<CrlRow>) -> Self {
        let current = current.into_iter().map(|it| (key(&it), Arc::new(it)));
        Self {
            current: ArcSwap::from_pointee(current.collect()),
            failures: Mutex::default(),
            updating: Mutex::default(),
        }
    }

    /// Returns the newest complete list of a part, also a restored one, which is not served.
    pub(super) fn newest(&self, of: CrlPart) -> Option<Arc<CrlRow>> {
        let lists = self.current.load();
        lists.get(&(of.generation, of.part, false)).cloned()
    }

    /// Returns the newest delta list of a part, if the complete list names its address, and if it
    /// has all that the complete list has: after a restore, and when a complete list came first
    /// with a change, an older one lacks something.
    pub(super) fn delta(&self, of: CrlPart) -> Option<Arc<CrlRow>> {
        let complete = self.newest(of);
        let complete = complete.filter(|it| !it.withheld && it.names_delta)?;
        let lists = self.current.load();
        let delta = lists.get(&(of.generation, of.part, true))?;
        (delta.revocations >= complete.revocations).then(|| Arc::clone(delta))
    }

    pub(super) fn publish(&self, row: CrlRow) {
        let mut lists = BTreeMap::clone(&self.current.load());
        lists.insert(key(&row), Arc::new(row));
        self.current.store(Arc::new(lists));
    }

    pub(super) fn failures(&self) -> MutexGuard<'_, BTreeMap<GenerationId, Failure>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn failed(
        &self,
        generation: GenerationId,
        error: &Error,
        now: UnixSeconds,
    ) -> UnixSeconds {
        let mut failures = self.failures();
        let attempts = failures.get(&generation).map_or(0, |it| it.attempts);
        let pause = TOKEN_PAUSE_SECONDS.saturating_mul(1 << attempts.min(8));
        let retry_at = now + pause.min(FAILURE_PAUSE_SECONDS_MAX);
        let failure = Failure {
            message: error.message.clone(),
            attempts: attempts + 1,
            retry_at,
        };
        failures.insert(generation, failure);
        retry_at
    }

    /// The token is there and the key does not sign: nothing was recorded, so the pause is short.
    pub(super) fn waits_for_its_key(
        &self,
        generation: GenerationId,
        error: &Error,
        now: UnixSeconds,
    ) -> UnixSeconds {
        let retry_at = now + TOKEN_PAUSE_SECONDS;
        let mut failures = self.failures();
        let failure = failures.entry(generation).or_insert_with(|| Failure {
            message: String::new(),
            attempts: 0,
            retry_at,
        });
        failure.message.clone_from(&error.message);
        failure.retry_at = retry_at;
        retry_at
    }
}

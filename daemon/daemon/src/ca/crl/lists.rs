//! Holds the current revocation lists, and what keeps the next ones from being signed. A reload
//! keeps all of it.

use crate::ca::failures::Failures;
use crate::ids::GenerationId;
use crate::store::{CrlPart, CrlRow};
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// The current lists, and what keeps the next ones from being signed.
pub(in crate::ca) struct RevocationLists {
    current: ArcSwap<BTreeMap<Key, Arc<CrlRow>>>,
    pub(super) failures: Failures<GenerationId>,
    /// One at a time makes lists.
    pub(super) updating: Mutex<()>,
}

/// A generation, a part of it, and whether the list is a delta list.
type Key = (GenerationId, u16, bool);

fn key(row: &CrlRow) -> Key {
    (row.generation, row.part, row.base.is_some())
}

impl RevocationLists {
    pub(in crate::ca) fn new(current: Vec<CrlRow>) -> Self {
        let current = current.into_iter().map(|it| (key(&it), Arc::new(it)));
        Self {
            current: ArcSwap::from_pointee(current.collect()),
            failures: Failures::default(),
            updating: Mutex::default(),
        }
    }

    /// Returns the newest complete list of a part, also a restored one, which is not served.
    pub(super) fn newest(&self, of: CrlPart) -> Option<Arc<CrlRow>> {
        self.last(of, false)
    }

    /// Returns the newest list of a part that was signed, whether it is served or not.
    pub(super) fn last(&self, of: CrlPart, is_delta: bool) -> Option<Arc<CrlRow>> {
        let lists = self.current.load();
        lists.get(&(of.generation, of.part, is_delta)).cloned()
    }

    /// Returns the newest delta list of a part, if the complete list names its address, and if it
    /// has all that the complete list has: after a restore, and when a complete list came first
    /// with a change, an older one lacks something.
    pub(super) fn delta(&self, of: CrlPart) -> Option<Arc<CrlRow>> {
        let complete = self.newest(of);
        let complete = complete.filter(|it| !it.withheld && it.names_delta)?;
        let delta = self.last(of, true)?;
        (delta.revocations >= complete.revocations).then_some(delta)
    }

    pub(super) fn publish(&self, row: CrlRow) {
        let mut lists = BTreeMap::clone(&self.current.load());
        lists.insert(key(&row), Arc::new(row));
        self.current.store(Arc::new(lists));
    }
}

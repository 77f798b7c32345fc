//! Collects remarks about keys, which sessions find when they look for keys and the backend
//! reports.

use hallmark_pki::der_bytes::Der;
use hallmark_protocol::KeyReference;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// Most keys with a remark; further remarks are dropped.
const REMARKS_MAX: usize = 16;

/// Remarks for the operator, one for each key. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Remarks(Arc<Mutex<Kept>>);

type Kept = BTreeMap<Der, (KeyReference, String)>;

impl Remarks {
    /// Replaces the remark about this key; `None` removes it.
    pub(super) fn note(&self, key: &KeyReference, remark: Option<String>) {
        let mut kept = self.lock();
        match remark {
            None => {
                kept.remove(&key.spki);
            }
            Some(remark) if kept.len() < REMARKS_MAX || kept.contains_key(&key.spki) => {
                kept.insert(key.spki.clone(), (key.clone(), remark));
            }
            Some(_) => {}
        }
    }

    /// Returns the keys that have a remark.
    pub(super) fn references(&self) -> Vec<KeyReference> {
        self.lock().values().map(|(key, _)| key.clone()).collect()
    }

    /// Returns all remarks as one text; `None` if there are none.
    pub(super) fn joined(&self) -> Option<String> {
        let remarks: Vec<String> = self.lock().values().map(|(_, it)| it.clone()).collect();
        (!remarks.is_empty()).then(|| remarks.join("; "))
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0
            .lock()
            .expect("no thread panics while it holds the remarks")
    }
}

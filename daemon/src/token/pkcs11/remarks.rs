//! What was found out about keys when they were looked for: shared by the sessions of one token,
//! and told by its backend.

use crate::token::KeyReference;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// Most keys that are remarked on; more are not told.
const REMARKS_MAX: usize = 16;

/// Keys with what an operator has to know of each.
#[derive(Clone, Default)]
pub(super) struct Remarks(Arc<Mutex<Kept>>);

/// By public key.
type Kept = BTreeMap<Vec<u8>, (KeyReference, String)>;

impl Remarks {
    /// What is true of this key now.
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

    /// The keys that are remarked on.
    pub(super) fn references(&self) -> Vec<KeyReference> {
        self.lock().values().map(|(key, _)| key.clone()).collect()
    }

    /// All remarks, for people.
    pub(super) fn told(&self) -> Option<String> {
        let remarks: Vec<String> = self.lock().values().map(|(_, it)| it.clone()).collect();
        (!remarks.is_empty()).then(|| remarks.join("; "))
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0
            .lock()
            .expect("no thread panics while it holds the remarks")
    }
}

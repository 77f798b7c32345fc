//! Open registrations, which devices poll.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most operations that are remembered; the oldest is forgotten first.
const OPERATIONS_MAX: usize = 10_000;

/// One registration, already decided, which the device learns when it asks often enough.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RegisterOperation {
    /// Key of the registration id: no other device may ask.
    pub(crate) key: String,
    /// SHA-256 thumbprint of the leaf that began it.
    pub(crate) leaf: String,
    /// Polls that are still answered `assigning`.
    pub(crate) assigning_polls: u32,
    pub(crate) result: Value,
}

/// All of them, by operation id.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Operations {
    by_id: BTreeMap<String, RegisterOperation>,
    oldest_first: VecDeque<String>,
}

impl Operations {
    pub(crate) fn add(&mut self, id: String, operation: RegisterOperation) {
        if self.oldest_first.len() >= OPERATIONS_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.by_id.remove(&oldest);
        }
        self.oldest_first.push_back(id.clone());
        self.by_id.insert(id, operation);
    }

    /// The operation that `key` began with this leaf.
    pub(crate) fn find_mut(
        &mut self,
        id: &str,
        key: &str,
        leaf: &str,
    ) -> Option<&mut RegisterOperation> {
        let found = self.by_id.get_mut(id)?;
        (found.key == key && found.leaf == leaf).then_some(found)
    }
}

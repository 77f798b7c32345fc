//! The keys that have signed in this worker, proven again after every login.

use crate::token::{KeyReference, Token, TokenError, proof};
use std::collections::HashMap;
use std::sync::RwLock;

/// Most keys that are remembered; an authority has a handful.
const KEYS_MAX: usize = 64;

/// References of keys that have signed, by their public keys.
#[derive(Default)]
pub(super) struct UsedKeys(RwLock<HashMap<Vec<u8>, KeyReference>>);

impl UsedKeys {
    /// Remembers a key; true if it is new. Cheap when it is known, as it is for all signatures but
    /// the first.
    pub(super) fn remember(&self, key: &KeyReference) -> bool {
        let is_settled =
            |keys: &HashMap<_, _>| keys.len() >= KEYS_MAX || keys.contains_key(&key.spki);
        if is_settled(
            &self
                .0
                .read()
                .expect("no thread panics while it holds the keys"),
        ) {
            return false;
        }
        let mut keys = self
            .0
            .write()
            .expect("no thread panics while it holds the keys");
        keys.insert(key.spki.clone(), key.clone()).is_none()
    }

    /// Forgets a key that was deleted on purpose.
    pub(super) fn forget(&self, key: &KeyReference) {
        let mut keys = self
            .0
            .write()
            .expect("no thread panics while it holds the keys");
        keys.remove(&key.spki);
    }

    /// Has every remembered key sign a test message, and verifies it.
    ///
    /// A key that is not there makes only itself unusable: its label is in the answer, for the
    /// operator. A signature that does not verify makes the token unusable.
    pub(super) fn prove(
        &self,
        name: &str,
        token: &mut dyn Token,
    ) -> Result<Vec<String>, TokenError> {
        let keys: Vec<KeyReference> = {
            let keys = self
                .0
                .read()
                .expect("no thread panics while it holds the keys");
            keys.values().cloned().collect()
        };
        let mut missing = Vec::new();
        for key in keys {
            match token.find(&key) {
                Ok(found) => proof::prove(name, &found, |key, algorithm, message| {
                    token.sign(key, algorithm, message)
                })?,
                Err(TokenError::Key { .. }) => missing.push(key.label),
                Err(error) => return Err(error),
            }
        }
        Ok(missing)
    }
}

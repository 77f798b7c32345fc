//! Records for each used key whether it signs, and how often it signed what is not recorded.
//!
//! A test signature shows that a key signs. It is made after every login for each key that has
//! signed before, and when the daemon asks for it. The counts are part of the worker's health, so
//! that the daemon can explain every signature of a token.

use hallmark_protocol::health::KeyReport;
use hallmark_protocol::key_proof::TEST_KEY_LABEL;
use hallmark_protocol::operation::{Operation, Token};
use hallmark_protocol::{KeyDescription, KeyReference, TokenError, key_proof, spki_sha256};
use std::collections::HashMap;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Most keys that are recorded; an authority has a few.
const KEYS_MAX: usize = 256;

/// Keys by the SHA-256 of their SPKI; shared secrets by the SHA-256 of their label.
#[derive(Default)]
pub(super) struct UsedKeys(RwLock<HashMap<[u8; 32], UsedKey>>);

struct UsedKey {
    /// Names the key after a login. `None` for credentials, which make no test signature, and for
    /// deleted keys.
    reference: Option<KeyReference>,
    /// The key is unusable because it was not found.
    missing: bool,
    report: KeyReport,
}

impl UsedKey {
    fn of(key: &KeyReference) -> Self {
        if is_throw_away(key) {
            return Self::without_proofs(None, TEST_KEY_LABEL);
        }
        Self {
            reference: Some(key.clone()),
            missing: false,
            report: KeyReport {
                spki_sha256: Some(spki_sha256(&key.spki)),
                label: key.label.clone(),
                ..KeyReport::default()
            },
        }
    }

    fn without_proofs(spki_sha256: Option<[u8; 32]>, label: &str) -> Self {
        Self {
            reference: None,
            missing: false,
            report: KeyReport {
                spki_sha256,
                label: label.to_owned(),
                ..KeyReport::default()
            },
        }
    }
}

impl UsedKeys {
    /// Records a key that has signed. Returns true if the reports have changed. The usual signature
    /// takes only a read lock.
    pub(super) fn remember(&self, key: &KeyReference) -> bool {
        if is_throw_away(key) || self.read().get(&place_of(key)).is_some_and(is_good) {
            return false;
        }
        let mut keys = self.write();
        let Some(used) = entry(&mut keys, place_of(key), || UsedKey::of(key)) else {
            return false;
        };
        used.reference = Some(key.clone());
        used.report.unusable = None;
        true
    }

    /// Removes the reference of a deleted key; its counts remain.
    pub(super) fn forget(&self, key: &KeyReference) {
        if let Some(used) = self.write().get_mut(&place_of(key)) {
            used.reference = None;
        }
    }

    /// Removes the references of keys that a new key with the same id has replaced; their counts
    /// remain.
    pub(super) fn forget_replaced(&self, id: &[u8]) {
        for used in self.write().values_mut() {
            used.reference.take_if(|reference| reference.id == id);
        }
    }

    /// Counts an assertion by a credential's key.
    pub(super) fn count_assertion(&self, key: &KeyReference) {
        let place = spki_sha256(&key.spki);
        self.count_credential(place, Some(place), &key.label);
    }

    /// Counts an HMAC with the shared secret of this label.
    pub(super) fn count_hmac(&self, label: &str) {
        self.count_credential(spki_sha256(label.as_bytes()), None, label);
    }

    /// Counts an OCSP answer by a responder's key, which has signed.
    pub(super) fn count_answer(&self, key: &KeyReference) {
        self.remember(key);
        let mut keys = self.write();
        if let Some(used) = entry(&mut keys, place_of(key), || UsedKey::of(key)) {
            used.report.answers += 1;
        }
    }

    fn count_credential(&self, place: [u8; 32], spki_sha256: Option<[u8; 32]>, label: &str) {
        let mut keys = self.write();
        let first = || UsedKey::without_proofs(spki_sha256, label);
        if let Some(used) = entry(&mut keys, place, first) {
            used.report.credentials += 1;
        }
    }

    /// Makes a test signature with one key, and verifies it.
    pub(super) fn prove(
        &self,
        name: &str,
        token: &mut dyn Token,
        key: &KeyReference,
    ) -> Result<KeyDescription, TokenError> {
        self.try_to_prove(name, token, key)
            .map_err(|unproven| unproven.error)
    }

    fn try_to_prove(
        &self,
        name: &str,
        token: &mut dyn Token,
        key: &KeyReference,
    ) -> Result<KeyDescription, Unproven> {
        let found = token.ask(Operation::Find(key.clone()));
        let found: KeyDescription =
            found.map_err(|error| self.failed(key, ProofStep::Finding, error))?;
        let mut step = ProofStep::Signing;
        let sign = |key: &KeyReference, algorithm, message: &[u8]| {
            let signature = token.ask(Operation::Sign {
                key: Arc::new(key.clone()),
                algorithm,
                message: message.to_vec(),
            })?;
            step = ProofStep::Verifying;
            Ok(signature)
        };
        match key_proof::prove(name, &found, sign) {
            Ok(()) => {
                self.note(key, ProofStep::Verifying, None);
                Ok(found)
            }
            Err(error) => Err(self.failed(key, step, error)),
        }
    }

    fn failed(&self, key: &KeyReference, step: ProofStep, error: TokenError) -> Unproven {
        self.note(key, step, Some(&error));
        Unproven { step, error }
    }

    fn note(&self, key: &KeyReference, step: ProofStep, failure: Option<&TokenError>) {
        let mut keys = self.write();
        let Some(used) = entry(&mut keys, place_of(key), || UsedKey::of(key)) else {
            return;
        };
        used.report.proofs += u64::from(step == ProofStep::Verifying);
        if is_throw_away(key) {
            return;
        }
        used.missing = step == ProofStep::Finding;
        match failure {
            None => {
                used.reference = Some(key.clone());
                used.report.unusable = None;
            }
            Some(TokenError::Key { reason, .. } | TokenError::Refused { reason, .. }) => {
                used.report.unusable = Some(reason.clone());
            }
            // The token has failed, and the key is proven again after the next login.
            Some(_) => {}
        }
    }

    /// Makes a test signature with every recorded key after a login, and verifies it.
    ///
    /// A key that is missing or does not sign is only unusable itself. A signature that does not
    /// verify makes the token unusable.
    pub(super) fn prove_all(&self, name: &str, token: &mut dyn Token) -> Result<(), TokenError> {
        for key in self.references() {
            match self.try_to_prove(name, token, &key) {
                Ok(_) => {}
                Err(unproven) if unproven.is_of_the_key_alone() => {}
                Err(unproven) => return Err(unproven.error),
            }
        }
        Ok(())
    }

    /// Returns what an operator should know about the keys.
    pub(super) fn remarks(&self) -> Vec<String> {
        let keys = self.read();
        let labels = |missing: bool| {
            let unusable = keys.values().filter(|used| {
                used.missing == missing
                    && used.reference.is_some()
                    && used.report.unusable.is_some()
            });
            let mut labels: Vec<&str> = unusable.map(|used| used.report.label.as_str()).collect();
            labels.sort_unstable();
            labels.join(", ")
        };
        let remarks = [
            ("keys not found", labels(true)),
            ("keys that do not sign", labels(false)),
        ];
        remarks
            .into_iter()
            .filter(|(_, labels)| !labels.is_empty())
            .map(|(what, labels)| format!("{what}: {labels}"))
            .collect()
    }

    /// Returns the reports about all keys, in a fixed order.
    pub(super) fn reports(&self) -> Vec<KeyReport> {
        let keys = self.read();
        let mut reports: Vec<_> = keys.iter().collect();
        reports.sort_unstable_by_key(|(place, _)| **place);
        reports
            .into_iter()
            .map(|(_, used)| used.report.clone())
            .collect()
    }

    fn references(&self) -> Vec<KeyReference> {
        let keys = self.read();
        let references = keys.values().filter_map(|used| used.reference.clone());
        references.collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<[u8; 32], UsedKey>> {
        self.0
            .read()
            .expect("no thread panics while it holds the keys")
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<[u8; 32], UsedKey>> {
        self.0
            .write()
            .expect("no thread panics while it holds the keys")
    }
}

/// The last step of a proof that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProofStep {
    Finding,
    Signing,
    /// The token has signed.
    Verifying,
}

/// A proof that failed.
struct Unproven {
    step: ProofStep,
    error: TokenError,
}

impl Unproven {
    /// Returns true if the token works and only this key does not.
    fn is_of_the_key_alone(&self) -> bool {
        let by_key = matches!(
            self.error,
            TokenError::Key { .. } | TokenError::Refused { .. }
        );
        by_key && self.step != ProofStep::Verifying
    }
}

/// Returns true for a test key of the contract check or the benchmark. Test keys share one report:
/// there are many, and each is deleted soon.
fn is_throw_away(key: &KeyReference) -> bool {
    key.label == TEST_KEY_LABEL
}

fn place_of(key: &KeyReference) -> [u8; 32] {
    if is_throw_away(key) {
        spki_sha256(TEST_KEY_LABEL.as_bytes())
    } else {
        spki_sha256(&key.spki)
    }
}

fn is_good(used: &UsedKey) -> bool {
    used.reference.is_some() && used.report.unusable.is_none()
}

/// Returns the entry at `place`, and makes it if there is room. The entry of a deleted key is
/// removed to make room.
fn entry(
    keys: &mut HashMap<[u8; 32], UsedKey>,
    place: [u8; 32],
    first: impl FnOnce() -> UsedKey,
) -> Option<&mut UsedKey> {
    if !keys.contains_key(&place) && keys.len() >= KEYS_MAX {
        let deleted = keys.iter().find(|(_, used)| used.reference.is_none());
        let deleted = deleted.map(|(place, _)| *place)?;
        keys.remove(&deleted);
    }
    Some(keys.entry(place).or_insert_with(first))
}

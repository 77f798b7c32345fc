//! Decides what the keys of a token sign, whatever the daemon asks for.
//!
//! The daemon faces the network. An attacker inside it can ask for anything, so the worker reads
//! by itself the bytes that it is to sign ([`signable`](hallmark_pki::x509::lint::signable)), and
//! goes by rules from a file that the daemon cannot write ([`hallmark_protocol::limits`]). A key
//! signs under one name only; its signatures are bounded in time and in number, counted, and
//! recorded where the daemon cannot write. Everything else is refused. docs/threats.md says what
//! is left.
//!
//! | module | what it does |
//! |---|---|
//! | `rules` | reads the rules, and reads them again |
//! | `rate` | bounds signatures within an hour |
//! | `held_keys` | records the keys of this installation, and their names |
//! | `journal` | counts and records signatures |
//! | `refusal` | names the reasons |

mod held_keys;
mod journal;
mod rate;
mod refusal;
mod rules;

use aws_lc_rs::digest::{SHA256, digest};
use hallmark_pki::unix_seconds::UnixSeconds;
use hallmark_pki::x509::key::SignatureAlgorithm;
use hallmark_pki::x509::lint::signable::{CertificateFacts, ListFacts, Signable};
use hallmark_protocol::credential::{self, is_credential};
use hallmark_protocol::key_proof::{TEST_KEY_LABEL, is_challenge};
use hallmark_protocol::limits::{
    AUTHORITY_SECONDS_MAX, AuthorityCertificates, LIST_SECONDS_MAX, SigningLimits, SigningRules,
};
use hallmark_protocol::operation::Operation;
use hallmark_protocol::signature_count::{SignatureClass, SignatureCounts};
use hallmark_protocol::{KeyDescription, KeyReference, spki_sha256};
use held_keys::HeldKeys;
use journal::{Journal, unix_ms};
use rate::Budget;
pub(crate) use refusal::Refusal;
pub(crate) use rules::Rules;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Most keys and classes whose signatures are bounded; an authority has a few.
const BUDGETS_MAX: usize = 4096;

/// The limits of one worker, and what it has done so far.
pub(crate) struct Wall {
    token: String,
    /// The worker serves one command, and signs for no authority.
    is_private: bool,
    rules: Rules,
    held: HeldKeys,
    journal: Journal,
    done: Mutex<Done>,
}

#[derive(Default)]
struct Done {
    budgets: HashMap<([u8; 32], SignatureClass), Budget>,
    /// Keys that this process has made and that have signed test messages at most.
    unused: HashSet<[u8; 32]>,
    /// Labels of the secrets that this process has imported.
    imported: HashSet<String>,
}

/// A request that is within the limits, and what the signature will be over.
#[derive(Clone, Copy)]
pub(crate) struct Admitted(Option<([u8; 32], SignatureClass)>);

impl Wall {
    /// Makes the limits of the worker that serves the token `name`, with its files in `folder`.
    pub(crate) fn of_usual(name: &str, rules: Rules, folder: &Path) -> io::Result<Self> {
        Ok(Self {
            token: name.to_owned(),
            is_private: false,
            rules,
            held: HeldKeys::read(folder, name)?,
            journal: Journal::go_on(folder, name)?,
            done: Mutex::default(),
        })
    }

    /// Makes the limits of a worker that serves one command.
    pub(crate) fn of_private(name: &str, rules: Rules, folder: &Path) -> io::Result<Self> {
        Ok(Self {
            token: name.to_owned(),
            is_private: true,
            rules,
            held: HeldKeys::read(folder, name)?,
            journal: Journal::unwritten(),
            done: Mutex::default(),
        })
    }

    /// Makes limits without files, by which any authority is certified.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn in_memory(name: &str) -> Self {
        let limits = SigningLimits {
            leaf_validity: Some(1 << 40),
            authority_certificates: AuthorityCertificates::Any,
            starts_within: 1 << 40,
            ..SigningLimits::default()
        };
        Self {
            token: name.to_owned(),
            is_private: false,
            rules: Rules::fixed(SigningRules::new(limits, &[])),
            held: HeldKeys::in_memory(),
            journal: Journal::unwritten(),
            done: Mutex::default(),
        }
    }

    /// Writes the record until [`close`](Self::close).
    pub(crate) fn keep_record(&self) {
        self.journal.keep(&self.token);
    }

    /// Writes the rest of the record. No signature may follow.
    pub(crate) fn close(&self) {
        self.journal.close(&self.token);
    }

    pub(crate) fn counts(&self) -> SignatureCounts {
        self.journal.counts()
    }

    pub(crate) fn count_refusal(&self) {
        self.journal.count_refusal();
    }

    /// Refuses what no signature may be over. A deletion is judged by [`may_destroy`] instead.
    ///
    /// [`may_destroy`]: Self::may_destroy
    pub(crate) fn admit(&self, operation: &Operation) -> Result<Admitted, Refusal> {
        match operation {
            Operation::Sign {
                key,
                algorithm,
                message,
            } => self.admit_signature(key, *algorithm, message),
            // The backend compares the key's label with the purpose.
            Operation::SignAnswer { key, .. } => {
                let place = self.for_authorities(key)?;
                self.take(place, SignatureClass::Answer)?;
                Ok(Admitted(Some((place, SignatureClass::Answer))))
            }
            Operation::SignAssertion { key, .. } => {
                let place = spki_sha256(&key.spki);
                self.take(place, SignatureClass::Assertion)?;
                Ok(Admitted(Some((place, SignatureClass::Assertion))))
            }
            // The backend compares label and message with the purpose.
            Operation::SignCheckpoint { key, .. } => {
                let place = spki_sha256(&key.spki);
                self.take(place, SignatureClass::Checkpoint)?;
                Ok(Admitted(Some((place, SignatureClass::Checkpoint))))
            }
            Operation::Hmac { label, .. } => {
                let place = spki_sha256(label.as_bytes());
                Ok(Admitted(Some((place, SignatureClass::Assertion))))
            }
            Operation::DestroySecret(label) => {
                let is_test = credential::label(TEST_KEY_LABEL).as_ref() == Some(label);
                if is_test || self.done().imported.contains(label) {
                    Ok(Admitted(None))
                } else {
                    Err(Refusal::SecretInUse)
                }
            }
            _ => Ok(Admitted(None)),
        }
    }

    /// Refuses to delete a key but a test key, by its label on the token, and a key that this
    /// process has made and that has signed nothing.
    pub(crate) fn may_destroy(&self, found: &KeyDescription) -> Result<(), Refusal> {
        let is_test = found.label == TEST_KEY_LABEL
            || credential::label(TEST_KEY_LABEL).as_ref() == Some(&found.label);
        if is_test || self.done().unused.contains(&spki_sha256(&found.spki)) {
            Ok(())
        } else {
            Err(Refusal::NotThrowAway)
        }
    }

    /// Counts a signature that was made.
    pub(crate) fn count(&self, operation: &Operation, Admitted(class): Admitted) {
        let Some((place, class)) = class else {
            return;
        };
        let message = match operation {
            Operation::Sign { message, .. } => message,
            Operation::SignAnswer { answer, .. } => answer,
            Operation::SignCheckpoint { checkpoint, .. } => checkpoint,
            Operation::SignAssertion { input, .. } => input,
            Operation::Hmac { text, .. } => text,
            _ => return,
        };
        let mut sum = [0; 32];
        sum.copy_from_slice(digest(&SHA256, message).as_ref());
        self.journal.count(place, &operation.subject(), class, &sum);
    }

    /// Records a key that this worker has made.
    pub(crate) fn note_made(&self, key: &KeyDescription) {
        self.done().unused.insert(spki_sha256(&key.spki));
        self.note_held(key);
    }

    /// Records that the token holds a key: it has made it, or a test signature has shown it.
    pub(crate) fn note_held(&self, key: &KeyDescription) {
        if self.is_private || key.label == TEST_KEY_LABEL || is_credential(&key.label) {
            return;
        }
        if let Err(error) = self.held.note(&key.spki, &key.label) {
            let error = error.to_string();
            tracing::error!(
                token = self.token,
                error,
                "cannot record a key of the token"
            );
        }
    }

    pub(crate) fn note_imported(&self, label: &str) {
        self.done().imported.insert(label.to_owned());
    }

    fn admit_signature(
        &self,
        key: &KeyReference,
        algorithm: SignatureAlgorithm,
        message: &[u8],
    ) -> Result<Admitted, Refusal> {
        if is_challenge(message) {
            let place = spki_sha256(&key.spki);
            return Ok(Admitted(Some((place, SignatureClass::Test))));
        }
        let place = self.for_authorities(key)?;
        let signable = Signable::read(message, algorithm)?;
        let rules = self.rules.current();
        let class = match self.judge(&rules, key, &signable) {
            Ok(class) => class,
            // The file may allow it now.
            Err(refusal) => match self.rules.changed() {
                Some(rules) => self.judge(&rules, key, &signable)?,
                None => return Err(refusal),
            },
        };
        self.check_issuer(place, key, &signable)?;
        Ok(Admitted(Some((place, class))))
    }

    /// Returns the key's place. Fails for a worker that signs for no authority, and for a key that
    /// is not known: requests with made-up keys must not fill the worker's files.
    fn for_authorities(&self, key: &KeyReference) -> Result<[u8; 32], Refusal> {
        let place = spki_sha256(&key.spki);
        if self.is_private {
            Err(Refusal::Private)
        } else if self.held.knows(&place) {
            Ok(place)
        } else {
            Err(Refusal::NotShown)
        }
    }

    fn judge(
        &self,
        rules: &SigningRules,
        key: &KeyReference,
        signable: &Signable<'_>,
    ) -> Result<SignatureClass, Refusal> {
        match signable {
            Signable::Certificate(facts) => {
                check_begin(&rules.limits, facts.not_before)?;
                if facts.is_authority {
                    self.judge_authority(rules, key, facts)
                } else {
                    self.judge_leaf(rules, facts)
                }
            }
            Signable::List(facts) => judge_list(rules, facts),
            Signable::Request { spki } if **spki == *key.spki => Ok(SignatureClass::Request),
            Signable::Request { .. } => Err(Refusal::AnothersRequest),
        }
    }

    fn judge_authority(
        &self,
        rules: &SigningRules,
        key: &KeyReference,
        facts: &CertificateFacts<'_>,
    ) -> Result<SignatureClass, Refusal> {
        let seconds = facts.not_after.seconds_since(facts.not_before);
        if !u64::try_from(seconds).is_ok_and(|it| it <= AUTHORITY_SECONDS_MAX) {
            return Err(Refusal::Validity);
        }
        match rules.limits.authority_certificates {
            AuthorityCertificates::None => Err(Refusal::NoAuthorities),
            AuthorityCertificates::Any => Ok(SignatureClass::Authority),
            AuthorityCertificates::OwnKeys => {
                if facts.spki == &*key.spki || self.held.holds(facts.spki) {
                    Ok(SignatureClass::Authority)
                } else {
                    Err(Refusal::KeyElsewhere)
                }
            }
        }
    }

    fn judge_leaf(
        &self,
        rules: &SigningRules,
        facts: &CertificateFacts<'_>,
    ) -> Result<SignatureClass, Refusal> {
        if !rules.leaves.allow(facts.not_before, facts.not_after) {
            return Err(Refusal::Validity);
        }
        let is_foreign = facts.answers_for_issuer && !rules.other_responders;
        if is_foreign && !self.held.holds(facts.spki) {
            return Err(Refusal::ResponderElsewhere);
        }
        Ok(SignatureClass::Leaf)
    }

    /// Refuses another issuer than the one under which the key has signed before. The first
    /// certificate for another key, or the first list, decides the name.
    ///
    /// The signature is taken from the key's hour last, so that a refused one costs nothing.
    fn check_issuer(
        &self,
        place: [u8; 32],
        key: &KeyReference,
        signable: &Signable<'_>,
    ) -> Result<(), Refusal> {
        let (issuer, class, decides) = match signable {
            Signable::Request { .. } => return self.take(place, SignatureClass::Authority),
            Signable::List(facts) => (facts.issuer, SignatureClass::List, true),
            Signable::Certificate(facts) => {
                let class = if facts.is_authority {
                    SignatureClass::Authority
                } else {
                    SignatureClass::Leaf
                };
                let is_own = facts.issuer == facts.subject && facts.spki == &*key.spki;
                (facts.issuer, class, !is_own)
            }
        };
        match self.held.signs_as(&place, issuer) {
            Some(true) => self.take(place, class),
            Some(false) => Err(Refusal::Issuer),
            None => {
                self.take(place, class)?;
                if decides {
                    let bound = self.held.bind(place, &key.label, issuer);
                    bound.map_err(|error| Refusal::Unrecorded(error.to_string()))?;
                }
                Ok(())
            }
        }
    }

    /// Takes one signature from the hour of a key.
    fn take(&self, key: [u8; 32], class: SignatureClass) -> Result<(), Refusal> {
        let rules = self.rules.current();
        let limits = &rules.limits;
        let mut done = self.done();
        // From here on it may have signed.
        done.unused.remove(&key);
        let per_hour = match class {
            SignatureClass::Leaf => limits.leaves_per_hour,
            SignatureClass::Authority | SignatureClass::Request => limits.authorities_per_hour,
            SignatureClass::List => limits.lists_per_hour,
            SignatureClass::Answer => limits.answers_per_hour,
            SignatureClass::Test | SignatureClass::Assertion | SignatureClass::Checkpoint => {
                return Ok(());
            }
        };
        let now = Instant::now();
        let budgets = &mut done.budgets;
        let is_full = budgets.len() >= BUDGETS_MAX;
        if is_full && !budgets.contains_key(&(key, class)) {
            return Err(Refusal::TooMany(class.name()));
        }
        let budget = budgets.entry((key, class));
        let budget = budget.or_insert_with(|| Budget::full(per_hour, now));
        if budget.take(per_hour, now) {
            Ok(())
        } else {
            Err(Refusal::TooMany(class.name()))
        }
    }

    fn done(&self) -> MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn judge_list(rules: &SigningRules, facts: &ListFacts<'_>) -> Result<SignatureClass, Refusal> {
    check_begin(&rules.limits, facts.this_update)?;
    let seconds = facts.next_update.seconds_since(facts.this_update);
    if u64::try_from(seconds).is_ok_and(|it| it <= LIST_SECONDS_MAX) {
        Ok(SignatureClass::List)
    } else {
        Err(Refusal::ListValidity)
    }
}

fn check_begin(limits: &SigningLimits, begin: UnixSeconds) -> Result<(), Refusal> {
    let now = i64::try_from(unix_ms() / 1000).unwrap_or(i64::MAX);
    let latest = UnixSeconds::new(now).saturating_add_unsigned(limits.starts_within);
    if begin > latest {
        Err(Refusal::Begin)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;

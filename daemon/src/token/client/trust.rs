//! Which keys have shown that they sign, so that nothing is recorded for a key that does not.
//!
//! A key is asked for a test signature before its first signature on a connection, and again after
//! a signature that failed. Many who need the same key wait for one test signature. After one that
//! failed, the key is not asked again for [`PROOF_PAUSE`].
//!
//! A token may make its test signature and then fail the signature of each request, for instance
//! because it is too slow for many at once. Each of those failures costs a serial number. So after
//! the second failure in a row the key is refused for a pause that doubles, up to
//! [`FAILURE_PAUSE_MAX`]; a good signature ends that.

use crate::token::worker::health::KeyReport;
use crate::token::{KeyReference, TokenError, spki_sha256};
use futures_util::future::{BoxFuture, FutureExt, Shared};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long after a failed test signature a key is not asked for another one.
pub(super) const PROOF_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause of a key whose signatures fail although its test signatures succeed.
pub(super) const FAILURE_PAUSE_MAX: Duration = Duration::from_secs(32);

/// A test signature that several may wait for.
pub(super) type KeyProof = Shared<BoxFuture<'static, Result<(), TokenError>>>;

/// What is known of each key, by the SHA-256 of its SPKI. Keys that are not here are unproven.
#[derive(Default)]
pub(super) struct Trust {
    keys: Mutex<HashMap<[u8; 32], Standing>>,
    /// How often in a row the signatures of a key failed, and how long it is refused.
    failures: Mutex<HashMap<[u8; 32], Failures>>,
    /// Whether `failures` has entries, so that a good signature costs no lock.
    has_failures: AtomicBool,
}

struct Failures {
    in_a_row: u32,
    refused_until: Instant,
}

enum Standing {
    /// It has signed, and nothing failed since.
    Proven,
    /// It is asked now.
    Asked(KeyProof),
    /// It did not sign.
    Failed { error: TokenError, at: Instant },
}

impl Trust {
    /// Ready once `key` is known to sign; `ask` is called if it has to show that. It is called under
    /// a lock, so what it gives MUST begin when it is waited for.
    pub(super) async fn shown(
        &self,
        key: &KeyReference,
        ask: impl FnOnce() -> KeyProof,
    ) -> Result<(), TokenError> {
        let key = spki_sha256(&key.spki);
        let Some(proof) = self.pending_proof(key, ask)? else {
            return Ok(());
        };
        let outcome = proof.clone().await;
        self.settle(key, &proof, &outcome);
        outcome
    }

    /// Whether `key` is known to sign.
    pub(super) fn is_proven(&self, key: &KeyReference) -> bool {
        let key = spki_sha256(&key.spki);
        matches!(self.keys().get(&key), Some(Standing::Proven))
    }

    /// The proof to wait for; `None` if the key is proven.
    fn pending_proof(
        &self,
        key: [u8; 32],
        ask: impl FnOnce() -> KeyProof,
    ) -> Result<Option<KeyProof>, TokenError> {
        let mut keys = self.keys();
        match keys.get(&key) {
            Some(Standing::Proven) => Ok(None),
            Some(Standing::Asked(proof)) => Ok(Some(proof.clone())),
            Some(Standing::Failed { error, at }) if at.elapsed() < PROOF_PAUSE => {
                Err(error.clone())
            }
            Some(Standing::Failed { .. }) | None => {
                let proof = ask();
                keys.insert(key, Standing::Asked(proof.clone()));
                Ok(Some(proof))
            }
        }
    }

    /// Takes the outcome, unless it is that of an earlier connection.
    fn settle(&self, key: [u8; 32], proof: &KeyProof, outcome: &Result<(), TokenError>) {
        let mut keys = self.keys();
        match keys.get(&key) {
            Some(Standing::Asked(asked)) if asked.ptr_eq(proof) => {}
            _ => return,
        }
        let standing = match outcome {
            Ok(()) => Standing::Proven,
            Err(error) => failed(error.clone()),
        };
        keys.insert(key, standing);
    }

    /// A signature failed that may have been asked of the token: the key has to make a test
    /// signature again. Requests that failed together count as one failure.
    pub(super) fn doubt(&self, key: &KeyReference) {
        let key = spki_sha256(&key.spki);
        if let Entry::Occupied(proven) = self.keys().entry(key)
            && matches!(proven.get(), Standing::Proven)
        {
            proven.remove();
            self.count_failure(key);
        }
    }

    fn count_failure(&self, key: [u8; 32]) {
        let mut keys = lock(&self.failures);
        let in_a_row = keys.get(&key).map_or(0, |it| it.in_a_row) + 1;
        // The first failure costs no pause: most are over at once.
        let doublings = in_a_row.saturating_sub(2).min(5);
        let pause = if in_a_row == 1 {
            Duration::ZERO
        } else {
            (PROOF_PAUSE * (1 << doublings)).min(FAILURE_PAUSE_MAX)
        };
        let refused_until = Instant::now() + pause;
        let failures = Failures {
            in_a_row,
            refused_until,
        };
        keys.insert(key, failures);
        self.has_failures.store(true, Ordering::Release);
    }

    /// A signature of this key was good.
    pub(super) fn confirm(&self, key: &KeyReference) {
        if self.has_failures.load(Ordering::Acquire) {
            let mut keys = lock(&self.failures);
            keys.remove(&spki_sha256(&key.spki));
            self.has_failures.store(!keys.is_empty(), Ordering::Release);
        }
    }

    /// How many signatures of this key failed in a row, if it is refused for that now.
    pub(super) fn failures_in_a_row(&self, key: &KeyReference) -> Option<u32> {
        if !self.has_failures.load(Ordering::Acquire) {
            return None;
        }
        let keys = lock(&self.failures);
        let failures = keys.get(&spki_sha256(&key.spki))?;
        (failures.refused_until > Instant::now()).then_some(failures.in_a_row)
    }

    /// Takes what the worker says of the keys. One that is usable again may be asked at once.
    pub(super) fn heard(&self, token: &str, reports: &[KeyReport]) {
        let mut keys = self.keys();
        for report in reports {
            let Some(key) = report.spki_sha256 else {
                continue;
            };
            match (&report.unusable, keys.get(&key)) {
                (Some(reason), Some(Standing::Proven)) => {
                    let error = TokenError::Key {
                        token: token.to_owned(),
                        label: report.label.clone(),
                        reason: reason.clone(),
                    };
                    keys.insert(key, failed(error));
                }
                (None, Some(Standing::Failed { .. })) => {
                    keys.remove(&key);
                }
                _ => {}
            }
        }
    }

    /// The token is ready again: keys that failed with it may be asked at once.
    pub(super) fn forget_failures(&self) {
        self.keys()
            .retain(|_, standing| !matches!(standing, Standing::Failed { .. }));
    }

    /// Another worker is there, and nothing is known of it.
    pub(super) fn forget_all(&self) {
        self.keys().clear();
        lock(&self.failures).clear();
        self.has_failures.store(false, Ordering::Release);
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<[u8; 32], Standing>> {
        lock(&self.keys)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("no thread panics while it holds the keys")
}

fn failed(error: TokenError) -> Standing {
    Standing::Failed {
        error,
        at: Instant::now(),
    }
}

/// A proof from what asks for it.
pub(super) fn key_proof(
    asked: impl Future<Output = Result<(), TokenError>> + Send + 'static,
) -> KeyProof {
    asked.boxed().shared()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_channel::oneshot;
    use pollster::block_on;
    use std::cell::Cell;
    use std::sync::Arc;

    fn key() -> KeyReference {
        KeyReference {
            spki: vec![1],
            label: "ca".into(),
            id: vec![1],
            wrapped: None,
        }
    }

    fn refused() -> TokenError {
        TokenError::unavailable("factory", "a test")
    }

    /// Asks through `trust`, counting in `asked`; the token answers `answer`.
    fn show(
        trust: &Trust,
        asked: &Cell<u32>,
        answer: Result<(), TokenError>,
    ) -> Result<(), TokenError> {
        block_on(trust.shown(&key(), || {
            asked.set(asked.get() + 1);
            key_proof(async { answer })
        }))
    }

    #[test]
    fn a_key_is_asked_once_and_again_after_a_failed_signature() {
        let (trust, asked) = (Trust::default(), Cell::new(0));
        for _ in 0..3 {
            show(&trust, &asked, Ok(())).unwrap();
        }
        assert_eq!(asked.get(), 1);
        trust.doubt(&key());
        show(&trust, &asked, Ok(())).unwrap();
        assert_eq!(asked.get(), 2);
    }

    #[test]
    fn after_a_failed_proof_the_key_is_left_alone_for_a_pause() {
        let (trust, asked) = (Trust::default(), Cell::new(0));
        for _ in 0..3 {
            assert_eq!(show(&trust, &asked, Err(refused())), Err(refused()));
        }
        assert_eq!(asked.get(), 1);
        trust.doubt(&key());
        assert_eq!(show(&trust, &asked, Ok(())), Err(refused()));
        std::thread::sleep(PROOF_PAUSE);
        show(&trust, &asked, Ok(())).unwrap();
        assert_eq!(asked.get(), 2);
    }

    /// The token makes its test signatures and fails the others, as one that is too slow for many at
    /// once does.
    #[test]
    fn a_key_that_only_makes_test_signatures_is_refused_for_longer_and_longer() {
        let (trust, asked) = (Trust::default(), Cell::new(0));
        let fails = || {
            show(&trust, &asked, Ok(())).unwrap();
            // Requests that were in hand together.
            for _ in 0..64 {
                trust.doubt(&key());
            }
            trust.failures_in_a_row(&key())
        };
        assert_eq!(fails(), None);
        assert_eq!(fails(), Some(2));
        std::thread::sleep(PROOF_PAUSE);
        assert_eq!(trust.failures_in_a_row(&key()), None);
        assert_eq!(fails(), Some(3));
        std::thread::sleep(PROOF_PAUSE);
        assert_eq!(trust.failures_in_a_row(&key()), Some(3));
        trust.confirm(&key());
        assert_eq!(trust.failures_in_a_row(&key()), None);
        assert_eq!(fails(), None);
    }

    #[test]
    fn many_wait_for_one_proof() {
        let trust = Trust::default();
        let (answer, answered) = oneshot::channel::<()>();
        let asked = Mutex::new(Some(answered));
        std::thread::scope(|scope| {
            let wait = || {
                block_on(trust.shown(&key(), || {
                    let answered = asked.lock().unwrap().take().expect("asked once");
                    key_proof(async { answered.await.map_err(|_| refused()) })
                }))
            };
            let waiters: Vec<_> = (0..8).map(|_| scope.spawn(wait)).collect();
            std::thread::sleep(Duration::from_millis(50));
            answer.send(()).unwrap();
            for waiter in waiters {
                waiter.join().unwrap().unwrap();
            }
        });
    }

    #[test]
    fn the_workers_word_counts_at_once() {
        let (trust, asked) = (Trust::default(), Cell::new(0));
        show(&trust, &asked, Ok(())).unwrap();
        let mut report = KeyReport {
            spki_sha256: Some(spki_sha256(&[1])),
            label: "ca".into(),
            unusable: Some("it is not on the token".into()),
            ..KeyReport::default()
        };
        trust.heard("factory", std::slice::from_ref(&report));
        let told = show(&trust, &asked, Ok(()));
        assert!(matches!(told, Err(TokenError::Key { .. })), "{told:?}");
        report.unusable = None;
        trust.heard("factory", &[report]);
        show(&trust, &asked, Ok(())).unwrap();
        assert_eq!(asked.get(), 2);
    }

    /// An answer that a worker gave before it was replaced says nothing of the next one.
    #[test]
    fn the_proof_of_an_earlier_connection_does_not_count() {
        let (trust, asked) = (Arc::new(Trust::default()), Cell::new(0));
        let replaced = trust.clone();
        let answer = async move {
            replaced.forget_all();
            Ok(())
        };
        block_on(trust.shown(&key(), || key_proof(answer))).unwrap();
        show(&trust, &asked, Ok(())).unwrap();
        assert_eq!(asked.get(), 1);
    }
}

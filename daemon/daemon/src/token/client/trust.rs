//! Records which keys have shown that they sign, so that no intent is recorded for one that does
//! not.
//!
//! A key makes a test signature before its first signature on a connection, and again after a
//! signature that failed. Callers that need the same key at once wait for one test signature. After
//! one that failed, the key makes no other for [`PROOF_PAUSE`].

use crate::token::health::KeyReport;
use crate::token::{KeyReference, TokenError, spki_sha256};
use futures_util::future::{BoxFuture, FutureExt, Shared};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The time after a failed test signature in which the key makes no other.
pub(super) const PROOF_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause of a key whose signatures fail although its test signatures succeed.
pub(super) const FAILURE_PAUSE_MAX: Duration = Duration::from_secs(32);

/// A test signature that several callers may wait for.
pub(super) type KeyProof = Shared<BoxFuture<'static, Result<(), TokenError>>>;

/// The keys that were used on this connection, by the SHA-256 of their SPKI. A missing key is not
/// proven.
#[derive(Default)]
pub(super) struct Trust {
    keys: Mutex<HashMap<[u8; 32], Key>>,
    /// True if a key has `failures`. Each good signature asks for that, so it must take no lock.
    has_failures: AtomicBool,
}

#[derive(Default)]
struct Key {
    state: KeyState,
    failures: Option<Failures>,
}

/// Signatures that failed in a row, although the test signatures in between succeeded.
#[derive(Clone, Copy)]
struct Failures {
    in_a_row: u32,
    refused_until: Instant,
}

#[derive(Default)]
enum KeyState {
    /// It has not signed, or a signature has failed since.
    #[default]
    Unproven,
    /// It has signed, and no signature has failed since.
    Proven,
    /// Its test signature is awaited.
    Pending(KeyProof),
    /// It did not sign.
    Failed { error: TokenError, at: Instant },
}

impl Trust {
    /// Waits until `key` is known to sign. Calls `ask` if it must make a test signature. `ask` is
    /// called under a lock, so the future that it returns MUST do its work when polled.
    pub(super) async fn require(
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

    /// Returns true if `key` is known to sign.
    pub(super) fn is_proven(&self, key: &KeyReference) -> bool {
        let key = spki_sha256(&key.spki);
        let keys = self.locked();
        keys.get(&key)
            .is_some_and(|it| matches!(it.state, KeyState::Proven))
    }

    /// Returns the proof to wait for; `None` if the key is proven.
    fn pending_proof(
        &self,
        key: [u8; 32],
        ask: impl FnOnce() -> KeyProof,
    ) -> Result<Option<KeyProof>, TokenError> {
        let mut keys = self.locked();
        let key = keys.entry(key).or_default();
        match &key.state {
            KeyState::Proven => Ok(None),
            KeyState::Pending(proof) => Ok(Some(proof.clone())),
            KeyState::Failed { error, at } if at.elapsed() < PROOF_PAUSE => Err(error.clone()),
            KeyState::Failed { .. } | KeyState::Unproven => {
                let proof = ask();
                key.state = KeyState::Pending(proof.clone());
                Ok(Some(proof))
            }
        }
    }

    /// Records the outcome, unless the proof is that of an earlier connection.
    fn settle(&self, key: [u8; 32], proof: &KeyProof, outcome: &Result<(), TokenError>) {
        if let Some(key) = self.locked().get_mut(&key)
            && matches!(&key.state, KeyState::Pending(asked) if asked.ptr_eq(proof))
        {
            key.state = match outcome {
                Ok(()) => KeyState::Proven,
                Err(error) => failed(error.clone()),
            };
        }
    }

    /// Records that a signature may have failed on the token: the key must be proven again.
    /// Requests that failed together count as one failure.
    pub(super) fn doubt(&self, key: &KeyReference) {
        let place = spki_sha256(&key.spki);
        if let Some(key) = self.locked().get_mut(&place)
            && matches!(key.state, KeyState::Proven)
        {
            key.state = KeyState::Unproven;
            key.failures = Some(Failures::after(key.failures));
            self.has_failures.store(true, Ordering::Release);
        }
    }

    /// Ends the count of failures of this key after a good signature.
    pub(super) fn confirm(&self, key: &KeyReference) {
        if !self.has_failures.load(Ordering::Acquire) {
            return;
        }
        let mut keys = self.locked();
        if let Some(key) = keys.get_mut(&spki_sha256(&key.spki)) {
            key.failures = None;
        }
        // Stored under the lock, so that no failure is counted between the look and the store.
        let has_failures = keys.values().any(|it| it.failures.is_some());
        self.has_failures.store(has_failures, Ordering::Release);
    }

    /// Returns how many signatures of this key failed in a row, if it is refused for that now.
    pub(super) fn failures_in_a_row(&self, key: &KeyReference) -> Option<u32> {
        if !self.has_failures.load(Ordering::Acquire) {
            return None;
        }
        let failures = self.locked().get(&spki_sha256(&key.spki))?.failures?;
        (failures.refused_until > Instant::now()).then_some(failures.in_a_row)
    }

    /// Takes the worker's reports about keys. A key that is usable again may be proven at once.
    pub(super) fn take_reports(&self, token: &str, reports: &[KeyReport]) {
        let mut keys = self.locked();
        for report in reports {
            let Some(key) = report.spki_sha256.and_then(|it| keys.get_mut(&it)) else {
                continue;
            };
            match (&report.unusable, &key.state) {
                (Some(reason), KeyState::Proven) => {
                    let error = TokenError::Key {
                        token: token.to_owned(),
                        label: report.label.clone(),
                        reason: reason.clone(),
                    };
                    key.state = failed(error);
                }
                (None, KeyState::Failed { .. }) => key.state = KeyState::Unproven,
                _ => {}
            }
        }
    }

    /// Forgets failures when the token is ready again, so that its keys may be proven at once.
    pub(super) fn forget_failures(&self) {
        for key in self.locked().values_mut() {
            if matches!(key.state, KeyState::Failed { .. }) {
                key.state = KeyState::Unproven;
            }
        }
    }

    /// Forgets all keys, for another worker.
    pub(super) fn forget_all(&self) {
        let mut keys = self.locked();
        keys.clear();
        self.has_failures.store(false, Ordering::Release);
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<[u8; 32], Key>> {
        self.keys
            .lock()
            .expect("no thread panics while it holds the keys")
    }
}

impl Failures {
    /// Counts one more failure. The first one costs no pause: most causes end at once.
    fn after(before: Option<Failures>) -> Self {
        let in_a_row = before.map_or(0, |it| it.in_a_row) + 1;
        let doublings = in_a_row.saturating_sub(2).min(5);
        let pause = if in_a_row == 1 {
            Duration::ZERO
        } else {
            (PROOF_PAUSE * (1 << doublings)).min(FAILURE_PAUSE_MAX)
        };
        Self {
            in_a_row,
            refused_until: Instant::now() + pause,
        }
    }
}

fn failed(error: TokenError) -> KeyState {
    KeyState::Failed {
        error,
        at: Instant::now(),
    }
}

/// Makes a proof of the future that asks for it.
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
            spki: vec![1].into(),
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
        block_on(trust.require(&key(), || {
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

    /// The token makes its test signatures and fails the others, as one that is too slow for many
    /// at once does.
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
                block_on(trust.require(&key(), || {
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
    fn the_workers_report_counts_at_once() {
        let (trust, asked) = (Trust::default(), Cell::new(0));
        show(&trust, &asked, Ok(())).unwrap();
        let mut report = KeyReport {
            spki_sha256: Some(spki_sha256(&[1])),
            label: "ca".into(),
            unusable: Some("it is not on the token".into()),
            ..KeyReport::default()
        };
        trust.take_reports("factory", std::slice::from_ref(&report));
        let shown = show(&trust, &asked, Ok(()));
        assert!(matches!(shown, Err(TokenError::Key { .. })), "{shown:?}");
        report.unusable = None;
        trust.take_reports("factory", &[report]);
        show(&trust, &asked, Ok(())).unwrap();
        assert_eq!(asked.get(), 2);
    }

    /// The answer of a worker that was replaced proves nothing about the next one.
    #[test]
    fn the_proof_of_an_earlier_connection_does_not_count() {
        let (trust, asked) = (Arc::new(Trust::default()), Cell::new(0));
        let replaced = trust.clone();
        let answer = async move {
            replaced.forget_all();
            Ok(())
        };
        block_on(trust.require(&key(), || key_proof(answer))).unwrap();
        show(&trust, &asked, Ok(())).unwrap();
        assert_eq!(asked.get(), 1);
    }
}

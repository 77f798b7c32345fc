//! Counts the failures of work that is tried again: proofs of possession, revocation lists,
//! certificates of OCSP responders. Each piece of work has its own reason and its own pauses.

use super::{Advice, Code, Error, lock};
use crate::unix_seconds::UnixSeconds;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// The pause in seconds before work is tried again that has used up nothing.
pub(super) const SHORT_PAUSE_SECONDS: i64 = 5;
/// The longest pause after failures, in seconds.
const PAUSE_SECONDS_MAX: i64 = 300;

/// The work that has failed, by what it is for.
pub(super) struct Failures<K>(Mutex<BTreeMap<K, Failure>>);

#[derive(Clone)]
struct Failure {
    reason: String,
    attempts: u32,
    retry_at: UnixSeconds,
}

/// The result of counting a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) retry_at: UnixSeconds,
    /// Whether its reason is another one than that of the failure before.
    pub(super) is_new: bool,
}

impl<K> Default for Failures<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Copy + Ord> Failures<K> {
    /// Returns why this work is not done yet.
    pub(super) fn reason(&self, of: K) -> Option<String> {
        lock(&self.0).get(&of).map(|it| it.reason.clone())
    }

    /// Returns the end of the pause of this work, if it has not come.
    pub(super) fn pause(&self, of: K, now: UnixSeconds) -> Option<UnixSeconds> {
        let retry_at = lock(&self.0).get(&of).map(|it| it.retry_at);
        retry_at.filter(|it| *it > now)
    }

    /// Returns when the first work that failed is tried again.
    pub(super) fn next_due(&self) -> Option<UnixSeconds> {
        lock(&self.0).values().map(|it| it.retry_at).min()
    }

    /// Counts a failure. The pauses double, except after those that have used up nothing.
    pub(super) fn failed(&self, of: K, error: &Error, now: UnixSeconds) -> Counted {
        if uses_up_nothing(error.code) {
            return self.waits(of, error, now);
        }
        self.count(of, |before| Failure::after(before, error, now))
    }

    fn count(&self, of: K, after: impl FnOnce(Option<&Failure>) -> Failure) -> Counted {
        let mut failures = lock(&self.0);
        let before = failures.get(&of);
        let failure = after(before);
        let counted = Counted {
            retry_at: failure.retry_at,
            is_new: before.is_none_or(|it| it.reason != failure.reason),
        };
        failures.insert(of, failure);
        counted
    }

    /// Counts a failure that has used up nothing, whatever its code.
    pub(super) fn waits(&self, of: K, error: &Error, now: UnixSeconds) -> Counted {
        self.count(of, |before| Failure {
            reason: error.message.clone(),
            attempts: before.map_or(0, |it| it.attempts),
            retry_at: now + SHORT_PAUSE_SECONDS,
        })
    }

    /// Ends the failures of this work, because it is done.
    pub(super) fn ended(&self, of: K) {
        lock(&self.0).remove(&of);
    }

    /// Forgets the failures of work that is not `open` any more.
    pub(super) fn keep_only(&self, is_open: impl Fn(K) -> bool) {
        lock(&self.0).retain(|of, _| is_open(*of));
    }

    /// Ends the pauses of all work.
    #[cfg(test)]
    pub(super) fn end_pauses(&self) {
        for failure in lock(&self.0).values_mut() {
            failure.retry_at = UnixSeconds::MIN;
        }
    }
}

impl Failure {
    fn after(before: Option<&Self>, error: &Error, now: UnixSeconds) -> Self {
        let attempts = before.map_or(0, |it| it.attempts);
        // The pace says when, not why: the reason stays that of the signature that failed.
        if let Some(before) = before
            && let Advice::Later { seconds } = error.advice
            && error.code == Code::SigningPaused
        {
            return Self {
                retry_at: now + i64::from(seconds),
                ..before.clone()
            };
        }
        let doubled = SHORT_PAUSE_SECONDS.saturating_mul(1 << attempts.min(8));
        Self {
            reason: error.message.clone(),
            attempts: attempts.saturating_add(1),
            retry_at: now + doubled.min(PAUSE_SECONDS_MAX),
        }
    }
}

/// Returns true if nothing was recorded, and no token had to sign.
fn uses_up_nothing(code: Code) -> bool {
    matches!(code, Code::TokenUnavailable | Code::TokenParked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> UnixSeconds {
        UnixSeconds::new(seconds)
    }

    fn failure(code: Code, message: &str) -> Error {
        Error::later(30, code, message)
    }

    #[test]
    fn each_piece_of_work_has_its_own_pauses_and_its_own_reason() {
        let failures = Failures::default();
        assert!(
            failures
                .failed(1, &failure(Code::TokenDeadline, "slow"), at(1_000))
                .is_new
        );
        assert_eq!(failures.pause(1, at(1_004)), Some(at(1_005)));
        assert_eq!(failures.pause(1, at(1_005)), None);
        assert_eq!(failures.pause(2, at(1_000)), None);
        assert!(
            !failures
                .failed(1, &failure(Code::TokenDeadline, "slow"), at(1_005))
                .is_new
        );
        assert_eq!(failures.next_due(), Some(at(1_015)));
        assert_eq!(failures.reason(1).as_deref(), Some("slow"));
        assert_eq!(failures.reason(2), None);
        failures.keep_only(|it| it == 2);
        assert_eq!(failures.reason(1), None);
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        let failures = Failures::default();
        let error = Error::stop(Code::TokenRefused, "a test");
        let pauses: Vec<i64> = (0..8)
            .map(|_| failures.failed(1, &error, at(0)).retry_at - at(0))
            .collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_pause_keeps_the_reason_of_the_signature_that_failed() {
        let failures = Failures::default();
        failures.failed(1, &failure(Code::SignatureWrong, "wrong"), at(1_000));
        let paused = Error::later(40, Code::SigningPaused, "paused");
        let counted = failures.failed(1, &paused, at(1_005));
        assert_eq!(
            counted,
            Counted {
                retry_at: at(1_045),
                is_new: false
            }
        );
        assert_eq!(failures.reason(1).as_deref(), Some("wrong"));
    }

    #[test]
    fn a_token_that_is_unavailable_costs_no_longer_pauses() {
        let failures = Failures::default();
        for second in 0..20 {
            failures.failed(1, &failure(Code::TokenUnavailable, "absent"), at(second));
        }
        assert_eq!(failures.next_due(), Some(at(19 + SHORT_PAUSE_SECONDS)));
        failures.failed(1, &failure(Code::TokenDeadline, "slow"), at(30));
        assert_eq!(failures.next_due(), Some(at(35)));
        failures.ended(1);
        assert_eq!(failures.next_due(), None);
    }
}

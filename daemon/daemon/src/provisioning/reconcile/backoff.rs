//! Bounds the waits of the reconciler: for an answer of the service, and after a failure of this
//! daemon.
//!
//! Work stays due when its outcome cannot be recorded. Without a pause that no wake-up cuts short,
//! the reconciler would call the service in a loop.

use crate::ca::CertificateAuthority;
use crate::provisioning::http::REQUEST_TIMEOUT;
use std::time::Duration;

/// The first pause after a failure; it doubles …
const PAUSE: Duration = Duration::from_secs(1);
/// … up to this.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often the store is polled until it can write.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// How long the first call for a change waits for its answer. A service that hangs must not outlive
/// a short leaf, and a lost answer is read back.
const ANSWER_SECONDS: u64 = 5;

/// Returns how long a call waits for its answer after `attempts` failures: doubled each time, so
/// that a slow service is met too, up to the bound of every call.
pub(super) fn answer_timeout(attempts: i64) -> Duration {
    let doubled = Duration::from_secs(ANSWER_SECONDS << attempts.clamp(0, 8));
    doubled.min(REQUEST_TIMEOUT)
}

/// How long a loop rests after its next failure.
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(PAUSE)
    }
}

impl Backoff {
    /// Rests after a failure.
    pub(super) async fn rest(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(PAUSE_MAX);
    }

    /// There was no failure.
    pub(super) fn over(&mut self) {
        self.0 = PAUSE;
    }
}

/// Ends at once, or when the store can write again. Nothing that is begun before could be recorded.
pub(super) async fn while_the_store_fails(ca: &CertificateAuthority) {
    while ca.store().write_fault().is_some() {
        tokio::time::sleep(STORE_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_waits_longer_after_each_failure() {
        let seconds = [0, 1, 2, 3, 1_000, i64::MAX].map(|it| answer_timeout(it).as_secs());
        assert_eq!(seconds, [5, 10, 20, 30, 30, 30]);
        assert_eq!(answer_timeout(-1).as_secs(), 5);
    }
}

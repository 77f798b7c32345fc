//! Pauses after a failure of this daemon, as opposed to one of the service.
//!
//! Work stays due when its outcome cannot be recorded. Without a pause that no wake-up cuts short,
//! the reconciler would call the service in a loop.

use crate::ca::CertificateAuthority;
use std::time::Duration;

/// The first pause after a failure; it doubles …
const PAUSE: Duration = Duration::from_secs(1);
/// … up to this.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often the store is polled until it can write.
const STORE_PAUSE: Duration = Duration::from_secs(1);

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

//! Counts the certificates that were issued in the last hour and day.

use super::{CertificateAuthority, Error, lock};
use schemars::JsonSchema;
use serde::Serialize;
use std::time::{Duration, Instant};

const HOUR_SECONDS: i64 = 3_600;
const DAY_SECONDS: i64 = 86_400;
/// The numbers are kept for at least so long …
const KEPT: Duration = Duration::from_secs(2);
/// … and for so many times the time that it took to count.
const KEPT_TIMES: u32 = 100;

/// How many certificates were issued lately.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
pub struct IssuedLately {
    pub last_hour: i64,
    pub last_day: i64,
}

/// The numbers, and until when they are shown.
pub(super) struct KeptCount {
    good_until: Instant,
    issued: IssuedLately,
}

impl CertificateAuthority {
    /// Returns how many certificates were issued in the last hour and day.
    pub(super) fn issued_lately(&self) -> Result<IssuedLately, Error> {
        let mut kept = lock(&self.issued);
        let begun = Instant::now();
        if let Some(count) = kept.as_ref().filter(|it| begun < it.good_until) {
            return Ok(count.issued);
        }
        let now = self.now();
        let issued = IssuedLately {
            last_hour: self.store.issued_since(now - HOUR_SECONDS)?,
            last_day: self.store.issued_since(now - DAY_SECONDS)?,
        };
        *kept = Some(KeptCount {
            good_until: Instant::now() + KEPT.max(begun.elapsed() * KEPT_TIMES),
            issued,
        });
        Ok(issued)
    }
}

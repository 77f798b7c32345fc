//! Counts on which day the newest leaves of devices end, by profile and issuer.

use super::engine::params;
use super::{Store, StoreError, UnixSeconds};
use crate::ids::GenerationId;

const DAY_SECONDS: i64 = 86_400;

/// The devices of a profile and issuer whose leaves end on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndsOfDay {
    /// Whole days from the moment of the count, 0 for the first 24 hours.
    pub day: i64,
    pub issuer: GenerationId,
    pub devices: i64,
}

impl Store {
    /// Counts the newest leaves of devices registered with `profile` that end in the `days` after
    /// `now` and are not revoked. Reads as many intents as it counts devices.
    pub fn ends_by_day(
        &self,
        profile: &str,
        now: UnixSeconds,
        days: i64,
    ) -> Result<Vec<EndsOfDay>, StoreError> {
        let until = now.saturating_add(days.saturating_mul(DAY_SECONDS));
        self.read(|tx| {
            tx.query_all(
                "SELECT (d.not_after - ?2 - 1) / 86400, i.issuer, count(*)
                 FROM device d INDEXED BY device_ending JOIN intent i ON i.id = d.certificate
                 WHERE d.profile = ?1 AND d.not_after > ?2 AND d.not_after <= ?3
                   AND NOT EXISTS (
                       SELECT 1 FROM certificate c INDEXED BY certificate_revoked
                       WHERE c.intent = d.certificate AND c.revoked_at IS NOT NULL)
                 GROUP BY 1, 2 ORDER BY 1, 2",
                params![profile, now, until],
                |row| {
                    Ok(EndsOfDay {
                        day: row.get(0)?,
                        issuer: row.get(1)?,
                        devices: row.get(2)?,
                    })
                },
            )
        })
    }
}

//! Counts the certificates that expire soon, and finds the next one to expire.
//!
//! Devices are counted in the index `device_ending`, which orders their newest leaves by their end:
//! the cost of a count depends only on the number counted. All other certificates are read from the
//! index `intent_of_others`, which contains no device.

use super::engine::dialect::greatest;
use super::engine::params;
use super::{Store, StoreError, UnixSeconds};
use crate::enrollment::role::Role;

/// The windows for which expiries are counted: a day, a week, 30 days; in seconds.
pub const WINDOWS: [i64; 3] = [86_400, 7 * 86_400, 30 * 86_400];

/// How many current certificates expire soon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// Within the time of an alarm.
    pub alarming: i64,
    /// Within each of [`WINDOWS`].
    pub within: [i64; 3],
    /// The next expiry and the common name.
    pub next: Option<(UnixSeconds, String)>,
}

/// The newest certificate of a name by a profile, valid and not revoked.
#[derive(Clone, Debug)]
pub struct CurrentLeaf {
    /// The role on record.
    pub role: Role,
    /// The profile on record.
    pub profile: String,
    pub subject: String,
    pub not_after: UnixSeconds,
}

impl Ending {
    /// Counts the ends after `now`.
    pub fn of(ends: &[(UnixSeconds, String)], now: UnixSeconds, alarm: i64) -> Self {
        let within = |window: i64| {
            let until = now.saturating_add(window);
            let ending = ends.iter().filter(|it| it.0 > now && it.0 <= until);
            i64::try_from(ending.count()).unwrap_or(i64::MAX)
        };
        Self {
            alarming: within(alarm),
            within: WINDOWS.map(within),
            next: ends.iter().filter(|it| it.0 > now).min().cloned(),
        }
    }
}

/// The device's newest leaf is not revoked: answered from the index of revoked certificates.
const NOT_REVOKED: &str = "NOT EXISTS (
    SELECT 1 FROM certificate c INDEXED BY certificate_revoked
    WHERE c.intent = device.certificate AND c.revoked_at IS NOT NULL)";

impl Store {
    /// The newest leaves of devices registered with `profile` that end after `now`; `alarm` is the
    /// time of an alarm, in seconds.
    pub fn ending_devices(
        &self,
        profile: &str,
        now: UnixSeconds,
        alarm: i64,
    ) -> Result<Ending, StoreError> {
        let until = |window: i64| now.saturating_add(window);
        let [day, week, month] = WINDOWS.map(until);
        self.read(|tx| {
            let count = format!(
                "SELECT count(*) FILTER (WHERE not_after <= ?3),
                        count(*) FILTER (WHERE not_after <= ?4),
                        count(*) FILTER (WHERE not_after <= ?5),
                        count(*) FILTER (WHERE not_after <= ?6)
                 FROM device INDEXED BY device_ending
                 WHERE profile = ?1 AND not_after > ?2 AND not_after <= {}(?3, ?4, ?5, ?6)
                   AND {NOT_REVOKED}",
                greatest!()
            );
            let bounds = params![profile, now, until(alarm), day, week, month];
            let (alarming, within) = tx.query_one(&count, bounds, |row| {
                Ok((row.get(0)?, [row.get(1)?, row.get(2)?, row.get(3)?]))
            })?;
            let next = format!(
                "SELECT not_after, registration_id FROM device INDEXED BY device_ending
                 WHERE profile = ?1 AND not_after > ?2 AND {NOT_REVOKED}
                 ORDER BY not_after LIMIT 1"
            );
            let next = tx.query_optional(&next, params![profile, now], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
            Ok(Ending {
                alarming,
                within,
                next,
            })
        })
    }

    /// Of each name that is no device's the newest certificate by each profile that ends after
    /// `now` and is not revoked. Certificates that the daemon issued to itself count as one name,
    /// because its listener may be renamed.
    pub fn current_leaves_of_others(
        &self,
        now: UnixSeconds,
    ) -> Result<Vec<CurrentLeaf>, StoreError> {
        self.read(|tx| {
            let leaves: Vec<Option<CurrentLeaf>> = tx.query_all(
                "SELECT i.role, i.profile, i.subject, i.not_after, max(i.id)
                 FROM intent i INDEXED BY intent_of_others JOIN certificate c ON c.intent = i.id
                 WHERE i.role <> 'device' AND i.not_after > ?1
                   AND c.revoked_at IS NULL
                 GROUP BY i.role, i.profile,
                     CASE WHEN i.caller = 'hallmarkd' THEN '' ELSE i.subject END COLLATE NOCASE",
                params![now],
                |row| {
                    let role: String = row.get(0)?;
                    let leaf = |role| -> Result<CurrentLeaf, StoreError> {
                        Ok(CurrentLeaf {
                            role,
                            profile: row.get(1)?,
                            subject: row.get(2)?,
                            not_after: row.get(3)?,
                        })
                    };
                    Role::from_name(&role).map(leaf).transpose()
                },
            )?;
            Ok(leaves.into_iter().flatten().collect())
        })
    }
}

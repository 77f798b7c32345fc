//! Records restores of backups, and finds what may exist at services without a record since.
//!
//! Leaves that were issued after the backup are unknown, so after a restore a device may have a
//! leaf by any generation, and any group may admit it.

use super::engine::{Tx, params};
use super::individual::REMOVED_UNKNOWN;
use super::{Store, StoreError, UnixSeconds};
use crate::der_bytes::Der;
use crate::enrollment::exclusion::AccessPath;
use crate::enrollment::thumbprint::Thumbprint;

/// The period whose records were lost by restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostPeriod {
    /// When the oldest of the restored backups was made.
    pub since: UnixSeconds,
    /// When the last one was restored.
    pub until: UnixSeconds,
}

impl Store {
    /// Returns the period whose records were lost; `None` if no backup was ever restored.
    pub fn lost_period(&self) -> Result<Option<LostPeriod>, StoreError> {
        self.read(lost_period)
    }

    /// Returns whether every enrollment at a service was compared with the store since the last
    /// restore.
    pub fn is_compared_since_restore(&self, provisioning: &str) -> Result<bool, StoreError> {
        self.read(|tx| is_compared_since_restore(tx, provisioning))
    }

    /// Returns the longest validity of a device's leaf on record, in seconds.
    pub fn longest_leaf_seconds(&self) -> Result<u64, StoreError> {
        let longest: Option<i64> = self.read(|tx| {
            tx.query_one(
                "SELECT max(not_after - not_before) FROM intent
                 WHERE purpose = 'leaf' AND role = 'device' AND ended IS NULL",
                params![],
                |row| row.get(0),
            )
        })?;
        Ok(longest.unwrap_or(0).unsigned_abs())
    }

    /// Returns whether a compromise of this device was reported after a restore.
    pub fn has_lost_compromise(&self, device: &str) -> Result<bool, StoreError> {
        self.read(|tx| has_lost_compromise(tx, device))
    }

    /// Returns the placeholder with this thumbprint.
    pub fn placeholder(&self, thumbprint: Thumbprint) -> Result<Option<Der>, StoreError> {
        self.read(|tx| {
            tx.query_optional(
                "SELECT der FROM placeholder WHERE sha256 = ?1",
                params![thumbprint.as_bytes()],
                |row| row.get(0),
            )
        })
    }
}

pub(super) fn record(
    tx: &Tx<'_>,
    lost_since: UnixSeconds,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO restore (lost_since, restored_at) VALUES (?1, ?2)",
        params![lost_since, at],
    )?;
    // A change that waits now is older than the state at the service, also if it came in the same
    // second, or by a clock that was ahead.
    tx.execute(
        "UPDATE mark SET since = ?1 - 1 WHERE since >= ?1",
        params![at],
    )?;
    for table in ["enrollment", "ca_certificate"] {
        tx.execute(&format!("UPDATE {table} SET restored = 1"), params![])?;
    }
    Ok(())
}

pub(super) fn lost_period(tx: &Tx<'_>) -> Result<Option<LostPeriod>, StoreError> {
    tx.query_one(
        "SELECT min(lost_since), max(restored_at) FROM restore",
        params![],
        |row| {
            let ends: (Option<UnixSeconds>, Option<UnixSeconds>) = (row.get(0)?, row.get(1)?);
            Ok(ends
                .0
                .zip(ends.1)
                .map(|(since, until)| LostPeriod { since, until }))
        },
    )
}

fn is_compared_since_restore(tx: &Tx<'_>, provisioning: &str) -> Result<bool, StoreError> {
    tx.query_one(
        "SELECT NOT EXISTS (SELECT 1 FROM restore) OR EXISTS (
             SELECT 1 FROM service_load WHERE provisioning = ?1
               AND scanned_restore = (SELECT max(id) FROM restore))",
        params![provisioning],
        |row| row.get(0),
    )
}

/// Adds the services at which a device may have access by what is not on record: those with its
/// enrollment or a group that a scan has found, also while that is being removed. After a restore,
/// also those with any group, because its leaf may be lost, and those of `services` that were not
/// compared since.
pub(super) fn add_lost_paths(
    tx: &Tx<'_>,
    device: &str,
    services: &[String],
    paths: &mut Vec<AccessPath>,
) -> Result<(), StoreError> {
    let sql = format!(
        "SELECT provisioning, min(name) FILTER (WHERE kind = 'group') FROM (
             SELECT provisioning, kind, name FROM enrollment e
             WHERE kind = 'group' AND overlay_of IS NULL
               AND (EXISTS (SELECT 1 FROM restore) OR {REMOVED_UNKNOWN})
             UNION ALL SELECT provisioning, kind, name FROM unknown_enrollment
             WHERE kind = 'group' OR name = ?1)
         GROUP BY provisioning ORDER BY provisioning"
    );
    let mut possible: Vec<(String, Option<String>)> =
        tx.query_all(&sql, params![device], |row| Ok((row.get(0)?, row.get(1)?)))?;
    for service in services {
        if !is_compared_since_restore(tx, service)? {
            possible.push((service.clone(), None));
        }
    }
    for (provisioning, group) in possible {
        if !paths.iter().any(|it| it.provisioning == provisioning) {
            paths.push(AccessPath {
                provisioning,
                device: device.to_owned(),
                individual: None,
                // It is removed with its exclusion, as one beside a group.
                group: Some(group.unwrap_or_else(|| device.to_owned())),
            });
        }
    }
    Ok(())
}

/// Records the placeholder of a device, unless it has one.
pub(super) fn add_placeholder(tx: &Tx<'_>, device: &str, der: &Der) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO placeholder (device, sha256, der) VALUES (?1, ?2, ?3)
         ON CONFLICT (device) DO NOTHING",
        params![device, Thumbprint::of(der).as_bytes(), der],
    )?;
    Ok(())
}

/// Returns the thumbprint of a device's placeholder.
pub(super) fn placeholder_of(tx: &Tx<'_>, device: &str) -> Result<Option<Thumbprint>, StoreError> {
    let sql = "SELECT sha256 FROM placeholder WHERE device = ?1";
    let found: Option<[u8; 32]> = tx.query_optional(sql, params![device], |row| row.get(0))?;
    Ok(found.map(Thumbprint::from_bytes))
}

/// Returns whether a compromise of this device was reported after a restore: a leaf that is not on
/// record may be the compromised one, and no date ends that.
pub(super) fn has_lost_compromise(tx: &Tx<'_>, device: &str) -> Result<bool, StoreError> {
    tx.query_one(
        "SELECT EXISTS (
             SELECT 1 FROM roll r JOIN enrollment e ON e.id = r.enrollment
             WHERE e.kind = 'individual' AND e.name = ?1 AND r.after_restore = 1)",
        params![device],
        |row| row.get(0),
    )
}

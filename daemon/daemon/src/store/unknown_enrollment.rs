//! Records enrollments that a scan has found at a service and that are not on record.

use super::engine::dialect::greatest;
use super::engine::{Parameters, Row, Tx, params};
use super::enrollment::{EnrollmentRow, enrollment_rows};
use super::individual::REMOVED_UNKNOWN;
use super::json::from_json;
use super::{EnrollmentKind, Store, StoreError, UnixSeconds};
use serde_json::Value;

/// The most such enrollments of one service that are listed. A scan that finds more is not
/// complete.
pub const UNKNOWN_MAX: i64 = 10_000;

/// How many of them a receipt names.
const NAMES_MAX: u32 = 5;

/// An enrollment on the page of a scan that is not on record.
#[derive(Clone, Debug)]
pub struct FoundEnrollment {
    pub provisioning: String,
    pub kind: EnrollmentKind,
    pub name: String,
    pub enabled: bool,
    /// As the service showed it.
    pub record: Value,
}

/// An enrollment at a service that is not on record.
#[derive(Clone, Debug)]
pub struct UnknownEnrollment {
    /// The row id.
    pub id: i64,
    pub found: FoundEnrollment,
    pub observed_at: UnixSeconds,
}

/// Enrollments at a service by which it may admit devices, and of which nothing is on record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MayAdmit {
    pub total: i64,
    /// The first of them.
    pub names: Vec<String>,
}

/// The enrollments `u` that are still not on record.
const UNKNOWN: &str = "FROM unknown_enrollment u WHERE NOT EXISTS (
    SELECT 1 FROM enrollment e WHERE e.provisioning = u.provisioning AND e.kind = u.kind
      AND e.name = u.name)";

impl Store {
    /// Returns the enrollments at services that are not on record, after row id `after`.
    pub fn unknown_enrollments(
        &self,
        after: i64,
        limit: u32,
    ) -> Result<Vec<UnknownEnrollment>, StoreError> {
        self.read(|tx| {
            let condition = "AND u.id > ?1 ORDER BY u.id LIMIT ?2";
            rows(tx, condition, params![after, limit])
        })
    }

    /// Returns the enrollments with this id that are not on record, at all services.
    pub fn unknown_enrollments_named(
        &self,
        kind: EnrollmentKind,
        name: &str,
    ) -> Result<Vec<UnknownEnrollment>, StoreError> {
        self.read(|tx| {
            let condition = "AND u.kind = ?1 AND u.name = ?2 ORDER BY u.id";
            rows(tx, condition, params![kind.name(), name])
        })
    }

    /// Returns the first enrollments of a service that are being removed, and of which nothing else
    /// is on record: each may admit devices until the service was observed without it.
    pub fn unknown_being_removed(
        &self,
        provisioning: &str,
    ) -> Result<Vec<EnrollmentRow>, StoreError> {
        self.read(|tx| {
            let condition = format!(
                "WHERE e.provisioning = ?1 AND e.status = 'enabled' AND {REMOVED_UNKNOWN}
                 ORDER BY e.id LIMIT ?2"
            );
            enrollment_rows(tx, &condition, params![provisioning, NAMES_MAX])
        })
    }

    /// Returns the enabled enrollments of a service that are not on record. After a restore, also
    /// those on record that were changed since: what they hold may be unknown.
    pub fn may_admit_unknown(&self, provisioning: &str) -> Result<MayAdmit, StoreError> {
        let both = format!(
            "SELECT u.name {UNKNOWN} AND u.provisioning = ?1 AND u.enabled = 1
             UNION SELECT name FROM enrollment
             WHERE provisioning = ?1 AND drift IS NOT NULL AND status = 'enabled'
               AND EXISTS (SELECT 1 FROM restore)"
        );
        self.read(|tx| {
            let count = format!("SELECT count(*) FROM ({both})");
            let names = format!("SELECT name FROM ({both}) ORDER BY name LIMIT ?2");
            Ok(MayAdmit {
                total: tx.query_one(&count, params![provisioning], |row| row.get(0))?,
                names: tx.query_all(&names, params![provisioning, NAMES_MAX], |row| row.get(0))?,
            })
        })
    }

    /// Returns the enabled enrollments that are not on record and may admit this device, as pairs
    /// of service and name: its own, and groups where no enrollment on record takes precedence.
    pub fn unknown_enrollments_for(
        &self,
        device: &str,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let sql = format!(
            "SELECT u.provisioning, u.name {UNKNOWN} AND u.enabled = 1
               AND (u.kind = 'individual' AND u.name = ?1
                 OR u.kind = 'group' AND NOT EXISTS (
                     SELECT 1 FROM enrollment o WHERE o.provisioning = u.provisioning
                       AND o.kind = 'individual' AND o.name = ?1))
             ORDER BY u.provisioning, u.name"
        );
        self.read(|tx| tx.query_all(&sql, params![device], |row| Ok((row.get(0)?, row.get(1)?))))
    }

    /// Returns the enrollments that are being removed, of which nothing else is on record, and that
    /// may admit this device until its service was observed without them.
    pub fn unknown_being_removed_for(
        &self,
        device: &str,
    ) -> Result<Vec<EnrollmentRow>, StoreError> {
        self.read(|tx| {
            let condition = format!(
                "WHERE e.status = 'enabled' AND {REMOVED_UNKNOWN}
                   AND (e.kind = 'individual' AND e.name = ?1
                     OR e.kind = 'group' AND NOT EXISTS (
                         SELECT 1 FROM enrollment o WHERE o.provisioning = e.provisioning
                           AND o.kind = 'individual' AND o.name = ?1))
                 ORDER BY e.id"
            );
            enrollment_rows(tx, &condition, params![device])
        })
    }

    /// Returns how many enabled enrollments of each service are not on record, with the name of the
    /// first one.
    pub fn unknown_by_service(&self) -> Result<Vec<(String, i64, String)>, StoreError> {
        let sql = format!(
            "SELECT u.provisioning, count(*), min(u.name) {UNKNOWN} AND u.enabled = 1
             GROUP BY u.provisioning ORDER BY u.provisioning"
        );
        self.read(|tx| {
            tx.query_all(&sql, params![], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
        })
    }

    /// Returns the services that have enabled enrollments which are not on record; with `group`,
    /// those that have such a group of this name.
    pub fn services_with_unknown(&self, group: Option<&str>) -> Result<Vec<String>, StoreError> {
        let sql = format!(
            "SELECT DISTINCT u.provisioning {UNKNOWN} AND u.enabled = 1
               AND (?1 IS NULL OR u.kind = 'group' AND u.name = ?1) ORDER BY u.provisioning"
        );
        self.read(|tx| tx.query_all(&sql, params![group], |row| row.get(0)))
    }
}

/// Records what a page of one service has shown. Returns how many were left out, because too many
/// are recorded.
pub(super) fn record(
    tx: &Tx<'_>,
    scan: i64,
    found: &[FoundEnrollment],
    at: UnixSeconds,
) -> Result<usize, StoreError> {
    let Some(first) = found.first() else {
        return Ok(0);
    };
    let count = "SELECT count(*) FROM unknown_enrollment WHERE provisioning = ?1";
    let mut count: i64 = tx.query_one(count, params![first.provisioning], |row| row.get(0))?;
    let mut left_out = 0;
    for it in found {
        let kind = it.kind.name();
        let listed = "SELECT EXISTS (SELECT 1 FROM unknown_enrollment
                      WHERE provisioning = ?1 AND kind = ?2 AND name = ?3)";
        let is_listed: bool =
            tx.query_one(listed, params![it.provisioning, kind, it.name], |row| {
                row.get(0)
            })?;
        if !is_listed && count >= UNKNOWN_MAX {
            left_out += 1;
            continue;
        }
        count += i64::from(!is_listed);
        tx.execute(
            concat!(
                "INSERT INTO unknown_enrollment
                     (provisioning, kind, name, record, enabled, seen_in_scan, observed_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (provisioning, kind, name) DO UPDATE SET record = excluded.record,
                     enabled = excluded.enabled, observed_at = excluded.observed_at,
                     seen_in_scan = ",
                greatest!(),
                "(seen_in_scan, excluded.seen_in_scan)"
            ),
            params![
                it.provisioning,
                kind,
                it.name,
                it.record.to_string(),
                it.enabled,
                scan,
                at
            ],
        )?;
    }
    Ok(left_out)
}

/// Forgets the enrollments that a complete scan has not met.
pub(super) fn forget_unseen(
    tx: &Tx<'_>,
    provisioning: &str,
    kind: EnrollmentKind,
    scan: i64,
) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM unknown_enrollment
         WHERE provisioning = ?1 AND kind = ?2 AND seen_in_scan < ?3",
        params![provisioning, kind.name(), scan],
    )?;
    Ok(())
}

fn rows(
    tx: &Tx<'_>,
    condition: &str,
    parameters: Parameters<'_>,
) -> Result<Vec<UnknownEnrollment>, StoreError> {
    let sql = format!(
        "SELECT u.id, u.provisioning, u.kind, u.name, u.enabled, u.record, u.observed_at
         {UNKNOWN} {condition}"
    );
    tx.query_all(&sql, parameters, from_row)
}

fn from_row(row: &Row<'_>) -> Result<UnknownEnrollment, StoreError> {
    Ok(UnknownEnrollment {
        id: row.get(0)?,
        found: FoundEnrollment {
            provisioning: row.get(1)?,
            kind: row.get(2)?,
            name: row.get(3)?,
            enabled: row.get(4)?,
            record: from_json(&row.get::<String>(5)?)?,
        },
        observed_at: row.get(6)?,
    })
}

//! Finds the access paths of a device: by which enrollments the provisioning services admit it.
//!
//! A device's individual enrollment comes first, its groups only where it has none (contract,
//! section 10). An exclusion reads the paths in its own transaction, so it finds an enrollment that
//! was added a moment before. A later addition is refused: then the leaf is revoked or the device
//! blocked. Services that are not configured count: they may be configured again.

use super::engine::{Tx, params};
use super::enrollment::{self, EnrollmentRow, enrollment_rows, individual};
use super::{Store, StoreError, UnixSeconds, restore};
use crate::enrollment::exclusion::AccessPath;
use crate::enrollment::slots::Slots;
use std::collections::BTreeSet;

/// Whether the individual enrollment `e` takes precedence for good: it is not being removed, and is
/// no overlay that only excludes a device of a group, which is removed when the exclusion ends.
pub(super) const TAKES_PRECEDENCE: &str =
    "e.leaving = 0 AND (e.overlay_of IS NULL OR e.status = 'enabled')";

impl Store {
    /// Returns whether a device has an individual enrollment at this service, which takes
    /// precedence over its group.
    pub fn has_own_enrollment(
        &self,
        provisioning: &str,
        registration_id: &str,
    ) -> Result<bool, StoreError> {
        self.read(|tx| {
            let sql = format!(
                "SELECT EXISTS (SELECT 1 FROM enrollment e WHERE e.provisioning = ?1
                     AND e.kind = 'individual' AND e.name = ?2 AND {TAKES_PRECEDENCE})"
            );
            tx.query_one(&sql, params![provisioning, registration_id], |row| {
                row.get(0)
            })
        })
    }

    /// Returns the groups that admit a device by one of its leaves that have not expired, those
    /// that are being removed too.
    pub fn groups_admitting(
        &self,
        device: &str,
        now: UnixSeconds,
    ) -> Result<Vec<EnrollmentRow>, StoreError> {
        self.read(|tx| groups_admitting(tx, device, now))
    }
}

/// Returns every path by which a service admits the device, or may admit it by what is not on
/// record. `services` are the configured ones.
pub(super) fn access_paths(
    tx: &Tx<'_>,
    device: &str,
    services: &[String],
    now: UnixSeconds,
) -> Result<Vec<AccessPath>, StoreError> {
    let own = individual(tx, device)?;
    let groups = groups_admitting(tx, device, now)?;
    let known = own.iter().chain(&groups).map(|row| &row.provisioning);
    let path = |provisioning: &String| {
        let individual = own.iter().find(|row| row.provisioning == *provisioning);
        let group = groups.iter().find(|row| row.provisioning == *provisioning);
        AccessPath {
            provisioning: provisioning.clone(),
            device: device.to_owned(),
            individual: individual.map(|row| row.id),
            group: group.map(|row| row.name.clone()),
        }
    };
    let known: BTreeSet<&String> = known.collect();
    let mut paths = Vec::from_iter(known.into_iter().map(path));
    restore::add_lost_paths(tx, device, services, &mut paths)?;
    Ok(paths)
}

/// Returns the individual enrollment that takes precedence on this path, and whether it was being
/// removed. Adds it if need be, with the device's current leaf or its placeholder: the service
/// knows no enrollment without a certificate. One of which nothing was on record gets these, too.
pub(super) fn ensure_individual(
    tx: &Tx<'_>,
    path: &AccessPath,
    at: UnixSeconds,
) -> Result<(EnrollmentRow, bool), StoreError> {
    let Some(id) = path.individual else {
        return Ok((enrollment::add_overlay(tx, path, at)?, false));
    };
    let mut row = enrollment::by_id(tx, id)?;
    enrollment::set_leaving(tx, id, false)?;
    if row.slots == Slots::Empty {
        row.slots = enrollment::leaf_or_placeholder(tx, &path.device)?;
    }
    let leaving = row.leaving;
    Ok((row, leaving))
}

pub(super) fn groups_admitting(
    tx: &Tx<'_>,
    device: &str,
    now: UnixSeconds,
) -> Result<Vec<EnrollmentRow>, StoreError> {
    let condition = "WHERE e.kind = 'group' AND e.authority IN (
             WITH RECURSIVE above (id) AS (
                 SELECT i.issuer FROM intent i JOIN certificate c ON c.intent = i.id
                 WHERE i.subject = ?1 AND i.purpose = 'leaf' AND i.not_after >= ?2
                 UNION SELECT g.parent FROM generation g JOIN above ON g.id = above.id
                 WHERE g.parent IS NOT NULL)
             SELECT authority FROM generation WHERE id IN (SELECT id FROM above))
         ORDER BY e.id";
    enrollment_rows(tx, condition, params![device, now])
}

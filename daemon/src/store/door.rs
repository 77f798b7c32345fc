//! Doors: by which enrollments the provisioning services let a device in.
//!
//! A device's own enrollment comes first, its groups only where it has none (contract section 10).
//! Whoever shuts a device out reads them in the transaction that does it: an enrollment that was
//! added a moment before is a door too, and one that is added later is refused, because then the
//! leaf is revoked or the device blocked.

use super::engine::{Tx, params};
use super::enrollment::{EnrollmentKind, EnrollmentRow, enrollment_rows, named};
use super::{Store, StoreError, UnixSeconds};

/// One way by which a service lets a device in.
#[derive(Clone, Debug)]
pub(super) struct Door {
    /// The provisioning service.
    pub(super) provisioning: String,
    /// The device's individual enrollment there.
    pub(super) individual: Option<i64>,
    /// The group that lets it in where it has none.
    pub(super) group: Option<String>,
}

/// Whether the individual enrollment `e` takes its device out of its group. One that only keeps a
/// device of the group out does not: it goes when that has an end.
pub(super) const TAKES_PRECEDENCE: &str =
    "e.removed = 0 AND (e.overlay_of IS NULL OR e.status = 'enabled')";

impl Store {
    /// Whether a device has an enrollment of its own at this service, which takes precedence over
    /// its group.
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

    /// The groups that let a device in by one of its leaves that have not expired.
    pub fn groups_letting_in(
        &self,
        device: &str,
        now: UnixSeconds,
    ) -> Result<Vec<EnrollmentRow>, StoreError> {
        self.read(|tx| groups_letting_in(tx, device, now))
    }
}

/// Every way by which one of these services lets the device in.
pub(super) fn doors(
    tx: &Tx<'_>,
    device: &str,
    services: &[String],
    now: UnixSeconds,
) -> Result<Vec<Door>, StoreError> {
    let own = named(tx, device)?;
    let groups = groups_letting_in(tx, device, now)?;
    let doors = services.iter().filter_map(|provisioning| {
        let individual = own.iter().find(|row| {
            row.kind == EnrollmentKind::Individual && row.provisioning == *provisioning
        });
        let group = groups.iter().find(|row| row.provisioning == *provisioning);
        (individual.is_some() || group.is_some()).then(|| Door {
            provisioning: provisioning.clone(),
            individual: individual.map(|row| row.id),
            group: group.map(|row| row.name.clone()),
        })
    });
    Ok(doors.collect())
}

fn groups_letting_in(
    tx: &Tx<'_>,
    device: &str,
    now: UnixSeconds,
) -> Result<Vec<EnrollmentRow>, StoreError> {
    let condition = "WHERE e.kind = 'group' AND e.removed = 0 AND e.authority IN (
             WITH RECURSIVE above (id) AS (
                 SELECT i.issuer FROM intent i
                 WHERE i.subject = ?1 AND i.purpose = 'leaf' AND i.state = 'issued'
                   AND i.not_after >= ?2
                 UNION SELECT g.parent FROM generation g JOIN above ON g.id = above.id
                 WHERE g.parent IS NOT NULL)
             SELECT authority FROM generation WHERE id IN (SELECT id FROM above))
         ORDER BY e.id";
    enrollment_rows(tx, condition, params![device, now])
}

//! Enrollments: what each provisioning service must hold, and what it was observed to hold.

use super::device::current_leaf;
use super::engine::{Parameters, Row, Tx, params};
use super::json::{from_json, optional_json, to_json};
use super::mark::{self, MarkSubject};
use super::{Store, StoreError, UnixSeconds, restore};
use crate::enrollment::exclusion::{AccessPath, BlockingGroup};
use crate::enrollment::history::History;
use crate::enrollment::slots::{SlotName, Slots};
use crate::ids::EnrollmentId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The kind of an enrollment (docs/dps-contract.md, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EnrollmentKind {
    /// For one device; its slots hold leaves.
    Individual,
    /// For all devices under an authority; its slots hold that authority's certificates.
    Group,
}

impl EnrollmentKind {
    /// The name on record.
    pub fn name(self) -> &'static str {
        match self {
            EnrollmentKind::Individual => "individual",
            EnrollmentKind::Group => "group",
        }
    }
}

/// An enrollment on record.
#[derive(Clone, Debug)]
pub struct EnrollmentRow {
    /// The enrollment's row id.
    pub id: EnrollmentId,
    pub provisioning: String,
    pub kind: EnrollmentKind,
    /// Registration id or enrollment group id.
    pub name: String,
    /// The authority of a group.
    pub authority: Option<String>,
    /// A group that names CA certificates of the service, instead of holding certificates.
    pub by_reference: bool,
    /// The desired contents of its slots.
    pub slots: Slots,
    pub enabled: bool,
    /// It is to be removed. It admits what it holds until the service was observed without it; that
    /// observation deletes the row.
    pub leaving: bool,
    /// The states that were sent, and those that were observed in place.
    pub history: History,
    /// The record as last observed at the service.
    pub observed: Option<Value>,
    /// When it was observed.
    pub observed_at: Option<UnixSeconds>,
    /// How another program has changed it, as `enrollment::plan::Drift`.
    pub drift: Option<Value>,
    /// The dirty mark, if it has one.
    pub mark: Option<super::MarkRow>,
    /// For an exclusion: the group whose device this individual enrollment excludes.
    pub overlay_of: Option<String>,
    /// Not observed as desired since a restore, and not retried by an operator: what differs may be
    /// from the lost period.
    pub restored: bool,
}

impl EnrollmentRow {
    /// Returns what is known of it at the service, in words.
    pub fn state(&self) -> &'static str {
        match &self.mark {
            Some(mark) if mark.parked => "parked",
            _ if self.leaving => "being removed",
            Some(_) => "pending",
            None if self.drift.is_some() => "drifted",
            None if self.slots == Slots::Empty => "waits for a certificate",
            None => "in step",
        }
    }
}

pub(super) const SELECT: &str = "SELECT e.id, e.provisioning, e.kind, e.name, e.authority, \
     e.slots, e.status = 'enabled', e.leaving, e.history, e.observed, e.observed_at, e.drift, \
     m.id, m.version, m.cause, m.since, m.due_at, m.attempts, m.last_error, m.parked, \
     e.overlay_of, e.by_reference, e.restored FROM enrollment e LEFT JOIN mark m ON m.enrollment = \
     e.id";

pub(super) const INDIVIDUALS_BETWEEN: &str =
    "WHERE e.name > ?1 AND e.name <= ?2 AND e.kind = 'individual' ORDER BY e.name, e.id";

impl Store {
    /// Records what is going to be sent, so that a lost answer cannot make our own change look like
    /// drift.
    pub fn record_attempt(&self, id: EnrollmentId, history: &History) -> Result<(), StoreError> {
        let history = to_json(history)?;
        self.write(move |tx| {
            tx.execute(
                "UPDATE enrollment SET history = ?2 WHERE id = ?1",
                params![id, history],
            )?;
            Ok(())
        })
    }

    /// Returns the enrollments after row id `after`, at most `limit`.
    pub fn enrollments(
        &self,
        after: EnrollmentId,
        limit: u32,
    ) -> Result<Vec<EnrollmentRow>, StoreError> {
        self.read(|tx| {
            enrollment_rows(
                tx,
                "WHERE e.id > ?1 ORDER BY e.id LIMIT ?2",
                params![after, limit],
            )
        })
    }

    /// Returns the enrollments with this registration or group id, at all services.
    pub fn enrollments_named(&self, name: &str) -> Result<Vec<EnrollmentRow>, StoreError> {
        self.read(|tx| named(tx, name))
    }

    /// Returns the individual enrollments of devices after registration id `after`, up to `last`,
    /// those that are being removed too.
    pub fn individuals_between(
        &self,
        after: &str,
        last: &str,
    ) -> Result<Vec<EnrollmentRow>, StoreError> {
        self.read(|tx| enrollment_rows(tx, INDIVIDUALS_BETWEEN, params![after, last]))
    }

    /// Returns every group that a service may hold, those that are being removed too.
    pub fn groups(&self) -> Result<Vec<EnrollmentRow>, StoreError> {
        self.read(groups)
    }

    /// Returns one enrollment.
    pub fn enrollment(&self, id: EnrollmentId) -> Result<EnrollmentRow, StoreError> {
        self.read(|tx| by_id(tx, id))
    }

    /// Returns one enrollment, or `None` once its row is deleted.
    pub fn find_enrollment(&self, id: EnrollmentId) -> Result<Option<EnrollmentRow>, StoreError> {
        self.read(|tx| find(tx, id))
    }
}

/// Adds a disabled individual enrollment with the current leaf of a group's device, or with its
/// placeholder. It takes precedence over the group.
pub(super) fn add_overlay(
    tx: &Tx<'_>,
    path: &AccessPath,
    at: UnixSeconds,
) -> Result<EnrollmentRow, StoreError> {
    let device = &path.device;
    let slots = leaf_or_placeholder(tx, device)?;
    if slots == Slots::Empty {
        let message = format!("leaf of {device}, so there is nothing to exclude");
        return Err(StoreError::Missing(message));
    }
    let id = tx.insert(
        "INSERT INTO enrollment (provisioning, kind, name, slots, status, created_at, overlay_of)
         VALUES (?1, 'individual', ?2, ?3, 'disabled', ?4, ?5) RETURNING id",
        params![path.provisioning, device, to_json(&slots)?, at, path.group],
    )?;
    by_id(tx, id)
}

/// Returns slots with the current leaf of a device, or with its placeholder.
pub(super) fn leaf_or_placeholder(tx: &Tx<'_>, device: &str) -> Result<Slots, StoreError> {
    let current = current_leaf(tx, device)?;
    Ok(match (&current, restore::placeholder_of(tx, device)?) {
        (Slots::Empty, Some(certificate)) => Slots::Serving {
            slot: SlotName::Primary,
            certificate,
        },
        _ => current,
    })
}

/// Adds a blocking group, unless it exists. Returns its row id.
pub(super) fn add_blocking_group(
    tx: &Tx<'_>,
    group: &BlockingGroup,
    at: UnixSeconds,
) -> Result<EnrollmentId, StoreError> {
    let slots = Slots::Serving {
        slot: SlotName::Primary,
        certificate: group.certificate,
    };
    let slots = to_json(&slots)?;
    let name = group.name();
    tx.insert(
        "INSERT INTO enrollment
             (provisioning, kind, name, authority, slots, status, created_at, after,
              overlay_of)
         VALUES (?1, 'group', ?2, ?3, ?4, 'disabled', ?5, ?6, ?3)
         ON CONFLICT (provisioning, kind, name) DO UPDATE SET slots = excluded.slots,
             status = 'disabled', leaving = 0, after = excluded.after
         RETURNING id",
        params![
            group.provisioning,
            name,
            group.authority,
            slots,
            at,
            group.after
        ],
    )
}

/// Sets the desired `provisioningStatus`.
pub(super) fn set_status(tx: &Tx<'_>, id: EnrollmentId, enabled: bool) -> Result<(), StoreError> {
    let status = if enabled { "enabled" } else { "disabled" };
    tx.execute(
        "UPDATE enrollment SET status = ?2 WHERE id = ?1",
        params![id, status],
    )?;
    Ok(())
}

/// Marks the enrollment for removal, or keeps it.
pub(super) fn set_leaving(tx: &Tx<'_>, id: EnrollmentId, leaving: bool) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE enrollment SET leaving = ?2 WHERE id = ?1",
        params![id, leaving],
    )?;
    Ok(())
}

/// Makes the enrollment wait while `after` has a mark.
pub(super) fn set_after(
    tx: &Tx<'_>,
    id: EnrollmentId,
    after: Option<EnrollmentId>,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE enrollment SET after = ?2 WHERE id = ?1",
        params![id, after],
    )?;
    Ok(())
}

/// Replaces the slots. Callers have read them in the same transaction.
pub(super) fn save_slots(tx: &Tx<'_>, id: EnrollmentId, slots: &Slots) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE enrollment SET slots = ?2 WHERE id = ?1",
        params![id, to_json(slots)?],
    )?;
    Ok(())
}

pub(super) fn by_id(tx: &Tx<'_>, id: EnrollmentId) -> Result<EnrollmentRow, StoreError> {
    find(tx, id)?.ok_or_else(|| StoreError::Missing(format!("enrollment {id}")))
}

pub(super) fn find(tx: &Tx<'_>, id: EnrollmentId) -> Result<Option<EnrollmentRow>, StoreError> {
    Ok(enrollment_rows(tx, "WHERE e.id = ?1", params![id])?.pop())
}

/// Returns the rows that `condition` selects; `e` is the enrollment, `m` its mark.
pub(super) fn enrollment_rows(
    tx: &Tx<'_>,
    condition: &str,
    parameters: Parameters<'_>,
) -> Result<Vec<EnrollmentRow>, StoreError> {
    tx.query_all(&format!("{SELECT} {condition}"), parameters, from_row)
}

pub(super) fn groups(tx: &Tx<'_>) -> Result<Vec<EnrollmentRow>, StoreError> {
    enrollment_rows(tx, "WHERE e.kind = 'group' ORDER BY e.id", params![])
}

pub(super) fn named(tx: &Tx<'_>, name: &str) -> Result<Vec<EnrollmentRow>, StoreError> {
    enrollment_rows(tx, "WHERE e.name = ?1 ORDER BY e.id", params![name])
}

/// Returns a device's individual enrollments, at most one per service, those that are being removed
/// too.
pub(super) fn individual(
    tx: &Tx<'_>,
    registration_id: &str,
) -> Result<Vec<EnrollmentRow>, StoreError> {
    let mut enrollments = named(tx, registration_id)?;
    enrollments.retain(|row| row.kind == EnrollmentKind::Individual);
    Ok(enrollments)
}

/// Returns a device's individual enrollments that stay.
pub(super) fn staying(
    tx: &Tx<'_>,
    registration_id: &str,
) -> Result<Vec<EnrollmentRow>, StoreError> {
    let mut enrollments = individual(tx, registration_id)?;
    enrollments.retain(|row| !row.leaving);
    Ok(enrollments)
}

fn from_row(row: &Row<'_>) -> Result<EnrollmentRow, StoreError> {
    let id = row.get(0)?;
    let [observed, drift] = [row.get(9)?, row.get(11)?];
    Ok(EnrollmentRow {
        id,
        provisioning: row.get(1)?,
        kind: row.get(2)?,
        name: row.get(3)?,
        authority: row.get(4)?,
        by_reference: row.get(21)?,
        slots: from_json(&row.get::<String>(5)?)?,
        enabled: row.get(6)?,
        leaving: row.get(7)?,
        history: from_json(&row.get::<String>(8)?)?,
        observed: optional_json(observed)?,
        observed_at: row.get(10)?,
        drift: optional_json(drift)?,
        mark: mark::from_columns(row, 12, MarkSubject::Enrollment(id))?,
        overlay_of: row.get(20)?,
        restored: row.get(22)?,
    })
}

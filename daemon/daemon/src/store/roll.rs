//! Records rolls, the replacement of a certificate step by step.
//!
//! The slots of the enrollments say which certificate is where; a roll says why, since when and at
//! whose request. Each step changes both in one transaction, and only if the slots are still those
//! on which the step was decided.

use super::audit::AuditEntry;
use super::engine::{Parameters, Row, Tx, params};
use super::json::from_json;
use super::{Store, StoreError, UnixSeconds};
use crate::enrollment::roll::{RollReason, RollState};
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::{EnrollmentId, GenerationId, RollId};
use serde_json::Value;

/// The subject of a roll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RollSubject {
    /// The leaf of an individual enrollment.
    Enrollment {
        /// The enrollment's row id.
        id: EnrollmentId,
        provisioning: String,
        name: String,
    },
    Authority {
        name: String,
        /// The generation that is replaced.
        old_generation: GenerationId,
        /// The generation that replaces it, once it is planned.
        new_generation: Option<GenerationId>,
    },
}

impl RollSubject {
    /// Returns the registration id or the authority's name.
    pub fn name(&self) -> &str {
        match self {
            RollSubject::Enrollment { name, .. } | RollSubject::Authority { name, .. } => name,
        }
    }
}

/// A roll on record.
#[derive(Clone, Debug)]
pub struct RollRow {
    /// The roll's row id.
    pub id: RollId,
    pub subject: RollSubject,
    pub reason: RollReason,
    pub state: RollState,
    /// The certificate that is replaced.
    pub old_certificate: Thumbprint,
    /// The end of the replaced certificate; the start of the roll where that is not on record, as
    /// for a placeholder.
    pub old_not_after: UnixSeconds,
    /// The certificate that replaces it.
    pub new_certificate: Option<Thumbprint>,
    /// Options and evidence, in a form that depends on the kind of subject.
    pub detail: Value,
    /// The roll that has started this one.
    pub parent: Option<RollId>,
    /// The actor that started it.
    pub started_by: String,
    /// When it was started.
    pub started_at: UnixSeconds,
    /// When the last step was made.
    pub changed_at: UnixSeconds,
}

/// A roll to record.
#[derive(Clone, Debug)]
pub(super) struct NewRoll<'a> {
    pub subject: NewSubject<'a>,
    pub reason: RollReason,
    pub state: RollState,
    pub old_certificate: Thumbprint,
    pub new_certificate: Option<Thumbprint>,
    pub detail: &'a Value,
    pub parent: Option<RollId>,
}

/// The subject of a new roll.
#[derive(Clone, Copy, Debug)]
pub(super) enum NewSubject<'a> {
    Enrollment(EnrollmentId),
    /// An authority, and the generation that is replaced.
    Authority(&'a str, GenerationId),
}

const SELECT: &str = "SELECT r.id, r.enrollment, e.provisioning, e.name, r.authority, \
     r.old_generation, r.new_generation, r.reason, r.state, r.old_certificate, \
     coalesce(i.not_after, r.started_at), \
     r.new_certificate, r.detail, r.parent, r.started_by, r.started_at, r.changed_at \
     FROM roll r LEFT JOIN enrollment e ON e.id = r.enrollment \
     LEFT JOIN certificate c ON c.sha256 = r.old_certificate LEFT JOIN intent i ON i.id = c.intent";

impl Store {
    /// Returns rolls, newest first, at most `limit`: only open ones if `open`, and only those older
    /// than `after`.
    pub fn rolls(
        &self,
        open: bool,
        after: Option<RollId>,
        limit: u32,
    ) -> Result<Vec<RollRow>, StoreError> {
        self.read(|tx| {
            let condition = "WHERE r.id < coalesce(?2, 9223372036854775807)
                   AND (NOT ?1 OR r.state NOT IN ('done', 'aborted'))
                 ORDER BY r.id DESC LIMIT ?3";
            roll_rows(tx, condition, params![open, after, limit])
        })
    }

    /// Returns one roll.
    pub fn roll(&self, id: RollId) -> Result<RollRow, StoreError> {
        self.read(|tx| roll_by_id(tx, id))
    }

    /// Returns the rolls by compromise of this leaf of a device, the oldest first.
    pub fn compromises_of_leaf(
        &self,
        device: &str,
        leaf: &[u8; 32],
    ) -> Result<Vec<RollId>, StoreError> {
        self.read(|tx| {
            tx.query_all(
                "SELECT r.id FROM enrollment e JOIN roll r ON r.enrollment = e.id
                 WHERE e.name = ?1 AND e.kind = 'individual' AND r.reason = 'compromise'
                   AND r.old_certificate = ?2 ORDER BY r.id",
                params![device, leaf],
                |row| row.get(0),
            )
        })
    }

    /// Returns the rolls that a roll has started, oldest first.
    pub fn child_rolls(&self, parent: RollId) -> Result<Vec<RollRow>, StoreError> {
        self.read(|tx| roll_rows(tx, "WHERE r.parent = ?1 ORDER BY r.id", params![parent]))
    }

    /// Returns the newest compromise of an authority, whichever of its generations it was.
    pub fn last_compromise(&self, authority: &str) -> Result<Option<RollRow>, StoreError> {
        self.read(|tx| {
            let condition = "WHERE r.authority = ?1 AND r.reason = 'compromise'
                 ORDER BY r.id DESC LIMIT 1";
            Ok(roll_rows(tx, condition, params![authority])?.pop())
        })
    }

    /// Returns the compromises whose certificate is not excluded at every service and hub yet,
    /// oldest first, at most `limit`.
    pub fn pending_compromises(&self, limit: u32) -> Result<Vec<RollRow>, StoreError> {
        self.read(|tx| {
            let condition = "WHERE r.reason = 'compromise'
                   AND r.state IN ('excluding', 'clearing') ORDER BY r.id LIMIT ?1";
            roll_rows(tx, condition, params![limit])
        })
    }

    /// Returns the compromises whose certificate is excluded and not replaced yet, except those
    /// that follow from another one, newest first, at most `limit`.
    pub fn excluded_compromises(&self, limit: u32) -> Result<Vec<RollRow>, StoreError> {
        self.read(|tx| {
            let condition = "WHERE r.reason = 'compromise' AND r.parent IS NULL
                   AND r.state IN ('reissuing', 'draining') ORDER BY r.id DESC LIMIT ?1";
            roll_rows(tx, condition, params![limit])
        })
    }

    /// Returns every roll that may have a next step at `now`, oldest first. Most rolls of leaves
    /// wait for a request or for the end of the old leaf and are left out. With `proven`, rolls
    /// whose new leaf was observed in the hub do not wait for that end.
    pub fn open_rolls(&self, now: UnixSeconds, proven: bool) -> Result<Vec<RollRow>, StoreError> {
        self.read(|tx| {
            let condition =
                "WHERE r.state NOT IN ('done', 'aborted') AND (r.enrollment IS NULL OR (
                   r.state <> 'requested'
                   AND (r.state <> 'reissuing' OR r.new_certificate IS NOT NULL)
                   AND (r.state <> 'draining' OR i.not_after < ?1
                        OR ?2 AND EXISTS (SELECT 1 FROM hub_observation p WHERE p.device = e.name
                                            AND p.provisioning = e.provisioning
                                            AND p.certificate = r.new_certificate))))
                 ORDER BY r.id";
            roll_rows(tx, condition, params![now, proven])
        })
    }

    /// Returns when the first old leaf that is still in a slot ends.
    pub fn next_retirement(&self) -> Result<Option<UnixSeconds>, StoreError> {
        self.read(|tx| {
            tx.query_one(
                "SELECT min(i.not_after) FROM roll r
                 JOIN certificate c ON c.sha256 = r.old_certificate
                 JOIN intent i ON i.id = c.intent
                 WHERE r.state NOT IN ('done', 'aborted') AND r.state = 'draining'
                   AND r.enrollment IS NOT NULL",
                params![],
                |row| row.get(0),
            )
        })
    }
}

/// Step 10, for an individually enrolled device that is renewed: adds the new certificate to the
/// open roll, or starts a roll where none was requested.
pub(super) fn stage(
    tx: &Tx<'_>,
    enrollment: EnrollmentId,
    old: Thumbprint,
    new: Thumbprint,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    let Some(roll) = open_roll(tx, enrollment)? else {
        let begun = NewRoll {
            subject: NewSubject::Enrollment(enrollment),
            reason: RollReason::Expiry,
            state: RollState::Staged,
            old_certificate: old,
            new_certificate: Some(new),
            detail: &Value::Object(serde_json::Map::new()),
            parent: None,
        };
        return insert(tx, &begun, entry).map(drop);
    };
    tx.execute(
        "UPDATE roll SET state = CASE reason WHEN 'expiry' THEN 'staged' ELSE state END,
         old_certificate = CASE reason WHEN 'expiry' THEN ?2 ELSE old_certificate END,
         new_certificate = ?3, changed_at = ?4 WHERE id = ?1",
        params![roll.id, old.as_bytes(), new.as_bytes(), entry.at],
    )?;
    Ok(())
}

/// Step 10, for a device whose leaves were all excluded: the new leaf serves alone. That ends an
/// expiry roll; one by compromise still waits for service and hub.
pub(super) fn replaced(
    tx: &Tx<'_>,
    enrollment: EnrollmentId,
    new: Thumbprint,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE roll SET state = CASE reason WHEN 'expiry' THEN 'done' ELSE state END,
         new_certificate = ?2, changed_at = ?3
         WHERE enrollment = ?1 AND state NOT IN ('done', 'aborted')",
        params![enrollment, new.as_bytes(), at],
    )?;
    Ok(())
}

/// Records a new roll. Returns its row id.
pub(super) fn insert(
    tx: &Tx<'_>,
    new: &NewRoll<'_>,
    entry: &AuditEntry,
) -> Result<RollId, StoreError> {
    let (enrollment, authority, old_generation) = match new.subject {
        NewSubject::Enrollment(id) => (Some(id), None, None),
        NewSubject::Authority(name, generation) => (None, Some(name), Some(generation)),
    };
    tx.insert(
        "INSERT INTO roll (reason, enrollment, authority, old_generation, state,
             old_certificate, new_certificate, detail, parent, started_by, started_at,
             changed_at, after_restore)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11,
             ?1 = 'compromise' AND EXISTS (SELECT 1 FROM restore)) RETURNING id",
        params![
            new.reason.name(),
            enrollment,
            authority,
            old_generation,
            new.state.name(),
            new.old_certificate.as_bytes(),
            new.new_certificate.as_ref().map(Thumbprint::as_bytes),
            new.detail.to_string(),
            new.parent,
            entry.actor,
            entry.at
        ],
    )
}

/// Records that a compromise was reported again; after a restore that is a report after it.
pub(super) fn report_again(tx: &Tx<'_>, roll: RollId) -> Result<(), StoreError> {
    let sql = "UPDATE roll SET after_restore = 1
         WHERE id = ?1 AND EXISTS (SELECT 1 FROM restore)";
    tx.execute(sql, params![roll]).map(drop)
}

/// Sets the state of a roll.
pub(super) fn set_state(
    tx: &Tx<'_>,
    roll: RollId,
    state: RollState,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE roll SET state = ?2, changed_at = ?3 WHERE id = ?1",
        params![roll, state.name(), at],
    )?;
    Ok(())
}

/// Makes the open rolls that `parent` has started those of `other`, which takes its place.
pub(super) fn adopt_children(tx: &Tx<'_>, parent: RollId, other: RollId) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE roll SET parent = ?2 WHERE parent = ?1 AND state NOT IN ('done', 'aborted')",
        params![parent, other],
    )?;
    Ok(())
}

/// Returns the open roll of an enrollment.
pub(super) fn open_roll(
    tx: &Tx<'_>,
    enrollment: EnrollmentId,
) -> Result<Option<RollRow>, StoreError> {
    let condition = "WHERE r.enrollment = ?1 AND r.state NOT IN ('done', 'aborted')";
    Ok(roll_rows(tx, condition, params![enrollment])?.pop())
}

pub(super) fn roll_by_id(tx: &Tx<'_>, id: RollId) -> Result<RollRow, StoreError> {
    let found = roll_rows(tx, "WHERE r.id = ?1", params![id])?.pop();
    found.ok_or_else(|| StoreError::Missing(format!("roll {id}")))
}

/// Returns the rolls that `condition` selects; `r` is the roll, `e` its enrollment.
pub(super) fn roll_rows(
    tx: &Tx<'_>,
    condition: &str,
    parameters: Parameters<'_>,
) -> Result<Vec<RollRow>, StoreError> {
    tx.query_all(&format!("{SELECT} {condition}"), parameters, from_row)
}

fn from_row(row: &Row<'_>) -> Result<RollRow, StoreError> {
    let subject = match row.get::<Option<EnrollmentId>>(1)? {
        Some(id) => RollSubject::Enrollment {
            id,
            provisioning: row.get(2)?,
            name: row.get(3)?,
        },
        None => RollSubject::Authority {
            name: row.get(4)?,
            old_generation: row.get(5)?,
            new_generation: row.get(6)?,
        },
    };
    Ok(RollRow {
        id: row.get(0)?,
        subject,
        reason: row.get(7)?,
        state: row.get(8)?,
        old_certificate: Thumbprint::from_bytes(row.get(9)?),
        old_not_after: row.get(10)?,
        new_certificate: row.get::<Option<[u8; 32]>>(11)?.map(Thumbprint::from_bytes),
        detail: from_json(&row.get::<String>(12)?)?,
        parent: row.get(13)?,
        started_by: row.get(14)?,
        started_at: row.get(15)?,
        changed_at: row.get(16)?,
    })
}

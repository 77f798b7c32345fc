//! Rolls of leaves: starts, advances and aborts the replacement of one device's leaf.

use super::audit::{self, AuditEntry};
use super::engine::dialect::from_hex;
use super::engine::{Tx, params};
use super::enrollment::{by_id, save_slots};
use super::hub_task::{self, HubCause, NewHubTask};
use super::mark::{self, MarkSubject};
use super::roll::{
    NewRoll, NewSubject, RollRow, RollSubject, insert, open_roll, roll_by_id, set_state,
};
use super::{Store, StoreError, UnixSeconds, conflicts, leaf};
use crate::enrollment::roll::{RollReason, RollState};
use crate::enrollment::slots::Slots;
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::{EnrollmentId, RollId};
use serde_json::{Value, json};

/// An individual enrollment whose only leaf expires soon.
#[derive(Clone, Debug)]
pub struct EndingLeaf {
    /// Row id of the enrollment.
    pub enrollment: EnrollmentId,
    pub name: String,
    /// The end of the leaf.
    pub not_after: UnixSeconds,
}

/// One step of a leaf's roll.
#[derive(Clone, Debug)]
pub struct RollStep {
    pub roll: RollId,
    pub enrollment: EnrollmentId,
    /// The state on which the step was decided. If it has changed, the step is not made.
    pub from_state: RollState,
    /// The slots on which the step was decided. If they have changed, the step is not made.
    pub from: Slots,
    /// The slots after the step.
    pub to: Slots,
    /// The state after the step.
    pub state: RollState,
    /// The tasks that notify the device.
    pub hub: Vec<NewHubTask>,
}

impl Store {
    /// Starts an expiry roll, which waits for a request with a new key. Fails unless the slots
    /// serve one certificate, no roll is open and no block is in place.
    pub fn request_roll(
        &self,
        enrollment: EnrollmentId,
        detail: Value,
        entry: AuditEntry,
    ) -> Result<RollRow, StoreError> {
        self.write(move |tx| {
            let row = by_id(tx, enrollment)?;
            let certificate = conflicts::leaf_roll(tx, &row)?;
            let new = NewRoll {
                subject: NewSubject::Enrollment(enrollment),
                reason: RollReason::Expiry,
                state: RollState::Requested,
                old_certificate: certificate,
                new_certificate: None,
                detail: &detail,
                parent: None,
            };
            let id = insert(tx, &new, &entry)?;
            audit::append(tx, &entry)?;
            roll_by_id(tx, id)
        })
    }

    /// Returns the individual enrollments without an open roll whose only leaf ends before `until`,
    /// in the order of their ends.
    pub fn ending_leaves(&self, until: UnixSeconds) -> Result<Vec<EndingLeaf>, StoreError> {
        self.read(|tx| {
            tx.query_all(
                concat!(
                    "SELECT e.id, e.name, i.not_after FROM enrollment e
                     JOIN certificate c ON c.sha256 = ",
                    from_hex!(),
                    "(e.slots ->> 'certificate')
                     JOIN intent i ON i.id = c.intent
                     WHERE e.kind = 'individual' AND e.leaving = 0 AND e.status = 'enabled'
                       AND i.not_after <= ?1
                       AND NOT EXISTS (SELECT 1 FROM roll r WHERE r.enrollment = e.id
                                       AND r.state NOT IN ('done', 'aborted'))
                     ORDER BY i.not_after"
                ),
                params![until],
                |row| {
                    Ok(EndingLeaf {
                        enrollment: row.get(0)?,
                        name: row.get(1)?,
                        not_after: row.get(2)?,
                    })
                },
            )
        })
    }

    /// Makes one step of a leaf's roll if state and slots are still those on which it was decided.
    /// Marks the enrollment dirty if the service has to change. Returns false if it was not made.
    pub fn advance_roll(&self, step: RollStep, entry: AuditEntry) -> Result<bool, StoreError> {
        self.write(move |tx| {
            let moved = by_id(tx, step.enrollment)?.slots != step.from
                || roll_by_id(tx, step.roll)?.state != step.from_state;
            if moved {
                return Ok(false);
            }
            save_slots(tx, step.enrollment, &step.to)?;
            set_state(tx, step.roll, step.state, entry.at)?;
            if let Slots::Draining { retiring, .. } = &step.to {
                replaces(tx, step.roll, *retiring)?;
            }
            hub_task::queue(tx, HubCause::Roll(step.roll), &step.hub, entry.at)?;
            if step.from.wanted() != step.to.wanted() {
                let subject = MarkSubject::Enrollment(step.enrollment);
                mark::raise(tx, subject, "roll advanced", entry.at)?;
            }
            audit::append(tx, &entry)?;
            Ok(true)
        })
    }

    /// Aborts an expiry roll of a leaf before its cut-over. A requested roll has changed nothing
    /// yet; in a staged roll the next certificate leaves its slot.
    pub fn abort_leaf_roll(
        &self,
        roll: RollId,
        overridden: Value,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let row = roll_by_id(tx, roll)?;
            let refused = |reason: &str| Err(StoreError::Conflict(format!("roll {roll} {reason}")));
            let RollSubject::Enrollment { id, .. } = row.subject else {
                return refused("is an authority's");
            };
            match row.state {
                RollState::Requested => {}
                RollState::Staged => {
                    let slots = by_id(tx, id)?.slots.abort();
                    let slots = slots.map_err(|it| StoreError::Conflict(it.to_string()))?;
                    save_slots(tx, id, &slots)?;
                    if let (Some(next), Some(serving)) = (row.new_certificate, slots.serving()) {
                        leaf::make_current_again(tx, row.subject.name(), next, serving)?;
                    }
                    let subject = MarkSubject::Enrollment(id);
                    mark::raise(tx, subject, "roll aborted", entry.at)?;
                }
                state => return refused(&format!("is {}: too late to abort it", state.name())),
            }
            set_state(tx, roll, RollState::Aborted, entry.at)?;
            if !overridden.is_null() {
                let mut detail = row.detail;
                detail["overrides"] = Value::Array(vec![overridden.clone()]);
                tx.execute(
                    "UPDATE roll SET detail = ?2 WHERE id = ?1",
                    params![roll, detail.to_string()],
                )?;
            }
            audit::append(tx, &entry)
        })
    }
}

/// Returns true if the enrollment's open roll only waits to retire the old leaf.
pub(super) fn drains(tx: &Tx<'_>, enrollment: EnrollmentId) -> Result<bool, StoreError> {
    let open = open_roll(tx, enrollment)?;
    Ok(open.is_none_or(|it| it.state == RollState::Draining))
}

/// Ends the roll that drains, because a further renewal has changed the slots to `slots`. The roll
/// is done if the old leaf has left its slot, and aborted if the new one has.
pub(super) fn end_by_renewal(
    tx: &Tx<'_>,
    enrollment: EnrollmentId,
    slots: &Slots,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    let Some(open) = open_roll(tx, enrollment)? else {
        return Ok(());
    };
    let is_old_leaf_gone = !slots.held().contains(&open.old_certificate);
    if open.state != RollState::Draining {
        let message = format!(
            "roll {} has changed concurrently; repeat the request",
            open.id
        );
        return Err(StoreError::Conflict(message));
    }
    // The certificates of a compromise are excluded already.
    let is_done = is_old_leaf_gone || open.reason == RollReason::Compromise;
    let state = if is_done {
        RollState::Done
    } else {
        RollState::Aborted
    };
    set_state(tx, open.id, state, entry.at)?;
    let overtaken = AuditEntry {
        action: "roll.overtaken",
        subject: open.subject.name().to_owned(),
        detail: json!({ "roll": open.id, "by": "a renewal", "state": state.name() }),
        ..entry.clone()
    };
    audit::append(tx, &overtaken)
}

/// Sets the certificate whose expiry ends the rollover. After a compromise of one slot that is the
/// surviving good leaf, which the new one replaces.
fn replaces(tx: &Tx<'_>, roll: RollId, retiring: Thumbprint) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE roll SET old_certificate = ?2 WHERE id = ?1",
        params![roll, retiring.as_bytes()],
    )?;
    Ok(())
}

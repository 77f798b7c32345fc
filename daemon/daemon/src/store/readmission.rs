//! Lifts blocks: reverts what each restriction has changed, unless another exclusion needs it.
//!
//! The leaves and the groups of an individual enrollment say whether it may be enabled, so a block
//! keeps no record of the thousands that it disables.

use super::audit::{self, AuditEntry};
use super::block::{self, BlockKind, Undo};
use super::compromise::compromised_until;
use super::engine::Tx;
use super::enrollment::{self, EnrollmentRow, save_slots, set_status};
use super::hierarchy;
use super::mark::{self, MarkSubject};
use super::revocation::Revoked;
use super::{Store, StoreError, UnixSeconds, conflicts, hold, individual, restore};
use crate::enrollment::exclusion::below;
use crate::enrollment::slots::Slots;
use crate::ids::{BlockId, EnrollmentId};

impl Store {
    /// Lifts a block: reverts its restrictions, and lifts the first chunk of its holds; the others
    /// follow ([`Store::release_holds`]). A device goes back to its
    /// group, unless that group would admit a compromised leaf.
    pub fn readmit(&self, block: BlockId, entry: AuditEntry) -> Result<Revoked, StoreError> {
        self.write(move |tx| readmit(tx, block, &entry))
    }
}

fn readmit(tx: &Tx<'_>, block: BlockId, entry: &AuditEntry) -> Result<Revoked, StoreError> {
    let undo = block::lift(tx, block, entry)?;
    let revoked = hold::release(tx, block, entry.at)?;
    // Backwards: a restriction that came after another one is reverted before it.
    let mut blocking = None;
    for undo in undo.into_iter().rev() {
        revert(tx, &undo, blocking, entry.at)?;
        if let Undo::Remove(id) = undo {
            blocking = Some(id);
        }
    }
    enable_again(tx, block, entry.at)?;
    audit::append(tx, entry)?;
    Ok(revoked)
}

/// Enables the groups and individual enrollments that no exclusion needs disabled any more.
fn enable_again(tx: &Tx<'_>, block: BlockId, at: UnixSeconds) -> Result<(), StoreError> {
    let block = block::by_id(tx, block)?;
    let individuals = match (block.kind, block.generation) {
        (BlockKind::Generation, Some(number)) => {
            let hierarchy = hierarchy::all(tx)?;
            let lifted = hierarchy::find(&hierarchy, &block.name, number)?;
            individual::with_leaves_by(tx, &below(lifted.id, &hierarchy))?
        }
        (BlockKind::Group, _) => individual::beside_groups(tx)?,
        _ => return Ok(()),
    };
    let mut rows = enrollment::groups(tx)?;
    for it in individuals {
        rows.push(enrollment::by_id(tx, it.id)?);
    }
    for row in rows.into_iter().filter(|it| !it.enabled) {
        if conflicts::may_enable(tx, &row, &row.slots)? {
            set_status(tx, row.id, true)?;
            mark::raise(tx, MarkSubject::Enrollment(row.id), "block lifted", at)?;
        }
    }
    Ok(())
}

/// Reverts a restriction, unless another exclusion needs it. `blocking` is the blocking group that
/// is being removed: the service takes its certificate in one enrollment only.
fn revert(
    tx: &Tx<'_>,
    undo: &Undo,
    blocking: Option<EnrollmentId>,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    let Some(row) = enrollment::find(tx, undo.enrollment())? else {
        return Ok(());
    };
    match undo {
        Undo::Enable { leaving, .. } if !conflicts::may_enable(tx, &row, &row.slots)? => {
            return if *leaving {
                leave_later(tx, &row, undo)
            } else {
                Ok(())
            };
        }
        Undo::Enable { id, leaving } => {
            set_status(tx, *id, true)?;
            enrollment::set_leaving(tx, *id, *leaving)?;
        }
        Undo::Remove(_) if conflicts::any_excluded_for_good(tx, &row.slots.held())? => {
            return Ok(());
        }
        Undo::Remove(id) => {
            if let Some(other) = conflicts::block_of_blocking_group(tx, &row)? {
                return block::hand_over(tx, other, undo);
            }
            // It came after the group that let go of its certificate; now that group comes after
            // it.
            enrollment::set_after(tx, *id, None)?;
            enrollment::set_leaving(tx, *id, true)?;
        }
        Undo::Slots { from, to, .. } => {
            // A roll or another exclusion has changed the slots since.
            if row.slots != *to {
                return Ok(());
            }
            let Some(from) = conflicts::restorable(tx, &row, from)? else {
                return Ok(());
            };
            if let Some((authority, number)) = conflicts::revoked_above(tx, &from.held())? {
                // That block reverts it in its turn.
                let kind = BlockKind::Generation;
                return match block::active(tx, kind, &authority, Some(number))? {
                    Some(other) => block::hand_over(tx, other, undo),
                    None => Ok(()),
                };
            }
            restore(tx, &row, &from, blocking)?;
        }
        Undo::Device { id, leaving, added } => {
            let enabled = conflicts::may_enable(tx, &row, &row.slots)?;
            set_status(tx, *id, enabled)?;
            let goes = *leaving || *added;
            let is_compromised = compromised_until(tx, &row.name, at)?.is_some()
                || restore::has_lost_compromise(tx, &row.name)?;
            if goes && !is_compromised {
                enrollment::set_leaving(tx, *id, true)?;
            }
        }
    }
    let subject = MarkSubject::Enrollment(row.id);
    mark::raise(tx, subject, "block lifted", at)
}

/// Leaves the removal of a group to another block that needs the group. After a compromise the
/// group stays: an operator removes it again, with a reason.
fn leave_later(tx: &Tx<'_>, row: &EnrollmentRow, undo: &Undo) -> Result<(), StoreError> {
    match conflicts::block_of_group(tx, row)? {
        Some(other) => block::hand_over(tx, other, undo),
        None => Ok(()),
    }
}

fn restore(
    tx: &Tx<'_>,
    row: &EnrollmentRow,
    slots: &Slots,
    blocking: Option<EnrollmentId>,
) -> Result<(), StoreError> {
    save_slots(tx, row.id, slots)?;
    set_status(tx, row.id, conflicts::may_enable(tx, row, slots)?)?;
    enrollment::set_after(tx, row.id, blocking)
}

//! Rolls of authorities: each step of the authority, its generations, its groups and what it brings
//! about elsewhere, in one transaction.
//!
//! A step says on which state and slots it was decided, and is refused if they have moved.

use super::audit::{self, AuditEntry};
use super::engine::{Tx, params};
use super::enrollment::{self, EnrollmentRow, by_id, enrollment_rows, save_slots, set_status};
use super::generation::{self, GenerationRow, PlannedGeneration};
use super::hub_task::{self, HubCause, NewHubTask};
use super::mark::{self, MarkSubject};
use super::roll::{NewRoll, NewSubject, RollRow, insert, roll_by_id, roll_rows, set_state};
use super::{Store, StoreError, conflicts, possession};
use crate::enrollment::authority_roll::Change;
use crate::enrollment::exclusion::BlockingGroup;
use crate::enrollment::roll::{RollReason, RollState};
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::{EnrollmentId, GenerationId, GenerationNumber, RollId};
use crate::unix_seconds::UnixSeconds;
use serde_json::Value;

/// A roll of an authority that begins.
#[derive(Clone, Debug)]
pub struct NewAuthorityRoll {
    /// The name that its generations share.
    pub authority: String,
    /// The generation that is replaced.
    pub old_generation: GenerationId,
    /// SHA-256 of its certificate.
    pub old_certificate: Thumbprint,
    pub detail: Value,
}

/// One step of an authority's roll.
#[derive(Clone, Debug)]
pub struct AuthorityStep {
    pub roll: RollId,
    /// The state it was decided on.
    pub from: RollState,
    /// The state to come.
    pub to: RollState,
    /// The groups that change.
    pub groups: Vec<Change>,
    /// The certificate that replaces the old one, from now on known.
    pub next: Option<Thumbprint>,
    /// The generation that signs from now on.
    pub serve: Option<GenerationId>,
    /// The generation whose CA certificates must be deleted.
    pub withdraw: Option<GenerationId>,
    /// The generation's certificate that disabled groups hold from now on, so that it stays out
    /// although one above it is good.
    pub block: Option<(Thumbprint, GenerationNumber)>,
    /// The tasks for hubs.
    pub hub: Vec<NewHubTask>,
}

impl AuthorityStep {
    /// A step of `roll` to the state `to`, and nothing else yet.
    pub fn of(roll: &RollRow, to: RollState) -> Self {
        Self {
            roll: roll.id,
            from: roll.state,
            to,
            groups: Vec::new(),
            next: None,
            serve: None,
            withdraw: None,
            block: None,
            hub: Vec::new(),
        }
    }
}

impl Store {
    /// Starts an expiry roll of an authority. Refused while another one is under way, or a block
    /// stands.
    pub fn start_authority_roll(
        &self,
        new: NewAuthorityRoll,
        parent: Option<RollId>,
        entry: AuditEntry,
    ) -> Result<RollRow, StoreError> {
        self.write(move |tx| {
            conflicts::authority_roll(tx, &new.authority)?;
            let begun = NewRoll {
                subject: NewSubject::Authority(&new.authority, new.old_generation),
                reason: RollReason::Expiry,
                state: RollState::Requested,
                old_certificate: new.old_certificate,
                new_certificate: None,
                detail: &new.detail,
                parent,
            };
            let id = insert(tx, &begun, &entry)?;
            audit::append(tx, &entry)?;
            roll_by_id(tx, id)
        })
    }

    /// Plans the generation that a roll is for, or finds it planned.
    pub fn plan_rolled_generation(
        &self,
        roll: RollId,
        plan: PlannedGeneration,
        at: UnixSeconds,
    ) -> Result<GenerationRow, StoreError> {
        self.write(move |tx| {
            let row = generation::plan_next(tx, &plan, at)?;
            tx.execute(
                "UPDATE roll SET new_generation = ?2 WHERE id = ?1",
                params![roll, row.id],
            )?;
            Ok(row)
        })
    }

    /// Makes one step, if state and slots are still those it was decided on. Returns whether it was
    /// made.
    pub fn step_authority_roll(
        &self,
        step: AuthorityStep,
        entry: AuditEntry,
    ) -> Result<bool, StoreError> {
        self.write(move |tx| {
            let moved = roll_by_id(tx, step.roll)?.state != step.from;
            if moved || have_moved(tx, &step.groups)? {
                return Ok(false);
            }
            make(tx, &step, &entry)?;
            audit::append(tx, &entry)?;
            Ok(true)
        })
    }

    /// Replaces options and evidence of a roll, if they are still those that were read.
    pub fn amend_roll(
        &self,
        roll: &RollRow,
        detail: Value,
        entry: Option<AuditEntry>,
    ) -> Result<bool, StoreError> {
        let id = roll.id;
        let from = roll.detail.clone();
        self.write(move |tx| {
            if roll_by_id(tx, id)?.detail != from {
                return Ok(false);
            }
            tx.execute(
                "UPDATE roll SET detail = ?2 WHERE id = ?1",
                params![id, detail.to_string()],
            )?;
            if let Some(entry) = &entry {
                audit::append(tx, entry)?;
            }
            Ok(true)
        })
    }

    /// Gives an expiry roll up before its cut-over: the slots serve the old certificate alone, and
    /// the next generation is retired without having signed any leaf.
    pub fn abort_authority_roll(
        &self,
        roll: RollId,
        groups: Vec<Change>,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let row = roll_by_id(tx, roll)?;
            if !matches!(row.state, RollState::Requested | RollState::Staged) {
                let message = format!("roll {roll} is {}: too late to abort it", row.state.name());
                return Err(StoreError::Conflict(message));
            }
            if have_moved(tx, &groups)? {
                let message = "a group changed concurrently; no changes were made. Retry";
                return Err(StoreError::Conflict(message.into()));
            }
            change_groups(tx, &groups, entry.at)?;
            abort_next(tx, roll, entry.at)?;
            set_state(tx, roll, RollState::Aborted, entry.at)?;
            audit::append(tx, &entry)
        })
    }

    /// The groups of an authority, at every service: those that admit its devices. Some may be on
    /// their way out.
    pub fn groups_of(&self, authority: &str) -> Result<Vec<EnrollmentRow>, StoreError> {
        self.read(|tx| groups_of(tx, authority))
    }

    /// Groups that hold a retired certificate of an authority so that it stays out.
    pub fn blocking_groups_of(&self, authority: &str) -> Result<Vec<EnrollmentRow>, StoreError> {
        self.read(|tx| {
            let condition = "WHERE e.kind = 'group' AND e.authority = ?1
                   AND e.overlay_of IS NOT NULL ORDER BY e.id";
            enrollment_rows(tx, condition, params![authority])
        })
    }

    /// The rolls of authorities that are under way.
    pub fn open_authority_rolls(&self) -> Result<Vec<RollRow>, StoreError> {
        self.read(|tx| {
            let condition = "WHERE r.authority IS NOT NULL AND r.state NOT IN ('done', 'aborted')
                 ORDER BY r.id";
            roll_rows(tx, condition, params![])
        })
    }

    /// The roll under way of an authority.
    pub fn open_authority_roll(&self, authority: &str) -> Result<Option<RollRow>, StoreError> {
        self.read(|tx| open_authority_roll(tx, authority))
    }
}

pub(super) fn groups_of(tx: &Tx<'_>, authority: &str) -> Result<Vec<EnrollmentRow>, StoreError> {
    let condition = "WHERE e.kind = 'group' AND e.authority = ?1
           AND e.overlay_of IS NULL ORDER BY e.id";
    enrollment_rows(tx, condition, params![authority])
}

pub(super) fn open_authority_roll(
    tx: &Tx<'_>,
    authority: &str,
) -> Result<Option<RollRow>, StoreError> {
    let condition = "WHERE r.authority = ?1 AND r.state NOT IN ('done', 'aborted')";
    Ok(roll_rows(tx, condition, params![authority])?.pop())
}

fn make(tx: &Tx<'_>, step: &AuthorityStep, entry: &AuditEntry) -> Result<(), StoreError> {
    if let Some(next) = &step.next {
        tx.execute(
            "UPDATE roll SET new_certificate = ?2 WHERE id = ?1",
            params![step.roll, next.as_bytes()],
        )?;
    }
    set_state(tx, step.roll, step.to, entry.at)?;
    change_groups(tx, &step.groups, entry.at)?;
    if let Some(generation) = step.serve {
        generation::serve(tx, generation)?;
    }
    if let Some(generation) = step.withdraw {
        possession::remove(tx, generation, entry.at)?;
    }
    if let Some((certificate, number)) = step.block {
        for change in &step.groups {
            block(tx, change.group, certificate, number, entry.at)?;
        }
    }
    hub_task::queue(tx, HubCause::Roll(step.roll), &step.hub, entry.at)?;
    Ok(())
}

/// Whether a group is not any more as a change of it was decided on.
fn have_moved(tx: &Tx<'_>, changes: &[Change]) -> Result<bool, StoreError> {
    for change in changes {
        let row = by_id(tx, change.group)?;
        if row.slots != change.from || row.enabled != change.was_enabled {
            return Ok(true);
        }
    }
    Ok(false)
}

fn change_groups(tx: &Tx<'_>, changes: &[Change], at: UnixSeconds) -> Result<(), StoreError> {
    for change in changes {
        let row = by_id(tx, change.group)?;
        let enabled = change.enabled && conflicts::may_enable(tx, &row, &change.to)?;
        save_slots(tx, row.id, &change.to)?;
        set_status(tx, row.id, enabled)?;
        mark::raise(tx, MarkSubject::Enrollment(row.id), "roll advanced", at)?;
    }
    Ok(())
}

/// Adds a blocking group for a certificate that has left `group`.
fn block(
    tx: &Tx<'_>,
    group: EnrollmentId,
    certificate: Thumbprint,
    number: GenerationNumber,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    let row = by_id(tx, group)?;
    if row.by_reference {
        // The CA certificate is deleted: the service admits nothing below it.
        return Ok(());
    }
    let blocking = BlockingGroup {
        provisioning: row.provisioning,
        authority: row.authority.unwrap_or_default(),
        number,
        certificate,
        after: Some(row.id),
    };
    let id = enrollment::add_blocking_group(tx, &blocking, at)?;
    mark::raise_urgent(tx, id, "certificate blocked", at)
}

fn abort_next(tx: &Tx<'_>, roll: RollId, at: UnixSeconds) -> Result<(), StoreError> {
    let next: Option<GenerationId> = tx.query_one(
        "SELECT new_generation FROM roll WHERE id = ?1",
        params![roll],
        |row| row.get(0),
    )?;
    if let Some(next) = next {
        possession::remove(tx, next, at)?;
        generation::retire(tx, next)?;
    }
    Ok(())
}

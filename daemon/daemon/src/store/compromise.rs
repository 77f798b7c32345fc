//! Starts the rolls of a compromise, which make the successors of what is excluded.
//!
//! Within the transaction of the exclusion ([`super::exclusion`]). A compromise ends every roll
//! that is under way, and takes over what that roll has prepared and still has to do.

use super::audit::{self, AuditEntry};
use super::authority_roll::open_authority_roll;
use super::engine::{Tx, params};
use super::enrollment::{EnrollmentRow, by_id};
use super::excluded_identity::delete_identity;
use super::exclusion::{Applied, Exclusion};
use super::hub_task::HubCause;
use super::roll::{self, NewRoll, NewSubject, RollRow};
use super::{Store, StoreError, UnixSeconds, possession};
use crate::enrollment::exclusion::{AccessPath, Generation, below};
use crate::enrollment::roll::{RollReason, RollState};
use crate::enrollment::slots::SlotName;
use crate::ids::{EnrollmentId, GenerationId, RollId};
use crate::x509::revocation::RevocationReason;
use serde_json::{Value, json};
use std::collections::BTreeSet;

impl Store {
    /// Returns the end of the last of a device's leaves that are revoked for good and have not
    /// expired, in Unix seconds: until then its group would admit a compromised leaf.
    pub fn compromised_until(
        &self,
        subject: &str,
        now: UnixSeconds,
    ) -> Result<Option<UnixSeconds>, StoreError> {
        self.read(|tx| compromised_until(tx, subject, now))
    }

    /// Returns whether an enrollment has a compromise that is open, or began at `since` or later.
    pub fn has_compromise(
        &self,
        enrollment: EnrollmentId,
        since: UnixSeconds,
    ) -> Result<bool, StoreError> {
        self.read(|tx| {
            let sql = "SELECT EXISTS (
                 SELECT 1 FROM roll WHERE enrollment = ?1 AND reason = 'compromise'
                   AND (state NOT IN ('done', 'aborted') OR started_at >= ?2))";
            tx.query_one(sql, params![enrollment, since], |row| row.get(0))
        })
    }
}

pub(super) fn compromised_until(
    tx: &Tx<'_>,
    subject: &str,
    now: UnixSeconds,
) -> Result<Option<UnixSeconds>, StoreError> {
    let hold = RevocationReason::CertificateHold.code();
    tx.query_one(
        "SELECT max(i.not_after) FROM intent i JOIN certificate c ON c.intent = i.id
             WHERE i.subject = ?1 AND i.role = 'device' AND i.not_after >= ?2
               AND c.revocation_reason IS NOT NULL AND c.revocation_reason <> ?3",
        params![subject, now, hold],
        |row| row.get(0),
    )
}

/// Returns whether each of these slots holds a leaf at every service that admits the device. Where
/// a service admits it without an individual enrollment, it has no slots.
pub(super) fn have_leaves(
    tx: &Tx<'_>,
    slots: &[SlotName],
    paths: &[AccessPath],
) -> Result<bool, StoreError> {
    for path in paths {
        let Some(own) = path.individual else {
            return Ok(false);
        };
        let held = by_id(tx, own)?.slots;
        if slots.iter().any(|slot| held.in_slot(*slot).is_none()) {
            return Ok(false);
        }
    }
    Ok(!paths.is_empty())
}

/// Returns whether a compromise of this enrollment's leaves waits for a new leaf: until then
/// nothing in its slots is good.
pub(super) fn waits_for_leaf(tx: &Tx<'_>, enrollment: EnrollmentId) -> Result<bool, StoreError> {
    let open = roll::open_roll(tx, enrollment)?;
    Ok(open.is_some_and(|it| is_waiting(&it)))
}

fn is_waiting(roll: &RollRow) -> bool {
    roll.reason == RollReason::Compromise && roll.new_certificate.is_none()
}

/// Begins the rolls of a device's enrollments that were restricted. Where a service is not
/// configured, no roll could end: the next leaf replaces the compromised one there all the same.
/// Without a roll the journal has the report all the same.
pub(super) fn begin_leaves(
    tx: &Tx<'_>,
    new: &Exclusion,
    applied: &[Applied],
    detail: &Value,
    entry: &AuditEntry,
) -> Result<Vec<RollRow>, StoreError> {
    let configured = |it: &&Applied| new.services.contains(&it.before.provisioning);
    let begin = |it| begin_leaf(tx, new, it, detail, entry);
    let rolls = applied.iter().filter(configured).map(begin);
    let rolls: Vec<RollRow> = rolls.collect::<Result<_, _>>()?;
    if rolls.is_empty() {
        audit::append(tx, entry)?;
    }
    Ok(rolls)
}

fn begin_leaf(
    tx: &Tx<'_>,
    new: &Exclusion,
    applied: &Applied,
    detail: &Value,
    entry: &AuditEntry,
) -> Result<RollRow, StoreError> {
    let row = &applied.before;
    if let Some(open) = roll::open_roll(tx, row.id)? {
        if is_waiting(&open) {
            return repeat_leaf(tx, new, row, &open, entry);
        }
        overtake(tx, &open, entry)?;
    }
    let compromised = row.slots.in_slots(new.slots());
    let serving = row.slots.serving().filter(|it| compromised.contains(it));
    let Some(old_certificate) = serving.or(compromised.first().copied()) else {
        let message = format!("enrollment {} holds no certificate", row.name);
        return Err(StoreError::Conflict(message));
    };
    let remaining = &applied.remaining;
    let mut detail = detail.clone();
    detail["compromised"] = json!(compromised);
    let begun = NewRoll {
        subject: NewSubject::Enrollment(row.id),
        reason: RollReason::Compromise,
        state: RollState::Excluding,
        old_certificate,
        new_certificate: remaining.slots.serving().filter(|_| remaining.enabled),
        detail: &detail,
        parent: None,
    };
    let id = roll::insert(tx, &begun, entry)?;
    delete_identity(tx, new, HubCause::Roll(id), row, entry.at)?;
    let mut entry = entry.clone();
    entry.detail["provisioning"] = json!(row.provisioning);
    entry.detail["roll"] = json!(id);
    audit::append(tx, &entry)?;
    roll::roll_by_id(tx, id)
}

/// Excludes again by the roll that waits for a new leaf: a repeated report begins no other roll.
fn repeat_leaf(
    tx: &Tx<'_>,
    new: &Exclusion,
    row: &EnrollmentRow,
    open: &RollRow,
    entry: &AuditEntry,
) -> Result<RollRow, StoreError> {
    roll::set_state(tx, open.id, RollState::Excluding, entry.at)?;
    roll::report_again(tx, open.id)?;
    delete_identity(tx, new, HubCause::Roll(open.id), row, entry.at)?;
    let repeated = AuditEntry {
        action: "roll.repeated",
        detail: json!({ "roll": open.id, "provisioning": row.provisioning }),
        ..entry.clone()
    };
    audit::append(tx, &repeated)?;
    roll::roll_by_id(tx, open.id)
}

/// Begins the rolls of these generations' authorities, and removes the CA certificates of the first
/// one and of all below it from every service. `detail` is for the first one; the others, below it,
/// have no options. Each records the generations whose identities the rolls below it delete.
pub(super) fn begin_authorities(
    tx: &Tx<'_>,
    generations: &[&Generation],
    hierarchy: &[Generation],
    detail: &Value,
    entry: &AuditEntry,
) -> Result<Vec<RollRow>, StoreError> {
    let mut begun: Vec<(GenerationId, RollId)> = Vec::new();
    for it in generations {
        let parent = begun.iter().find(|(issuer, _)| Some(*issuer) == it.parent);
        let parent = parent.map(|(_, roll)| *roll);
        let mut detail = if begun.is_empty() {
            detail.clone()
        } else {
            json!({})
        };
        let rolled_below = generations
            .iter()
            .filter(|other| other.parent == Some(it.id));
        let cleared_below: BTreeSet<GenerationId> = rolled_below
            .flat_map(|other| of_authority_and_below(&other.authority, hierarchy))
            .collect();
        if !cleared_below.is_empty() {
            detail["cleared_below"] = json!(cleared_below);
        }
        begun.push((it.id, begin_authority(tx, it, parent, &detail, entry)?));
    }
    // Also of generations below that get no successor, because a good one serves in their place.
    for it in generations
        .first()
        .map(|it| below(it.id, hierarchy))
        .unwrap_or_default()
    {
        possession::remove(tx, it, entry.at)?;
    }
    audit::append(tx, entry)?;
    let rolls = begun
        .into_iter()
        .map(|(_, roll)| roll::roll_by_id(tx, roll));
    rolls.collect()
}

/// Returns all generations of an authority, and those below them.
pub(super) fn of_authority_and_below(
    authority: &str,
    hierarchy: &[Generation],
) -> BTreeSet<GenerationId> {
    let own = hierarchy.iter().filter(|it| it.authority == authority);
    own.flat_map(|it| below(it.id, hierarchy)).collect()
}

/// Ends the expiry rolls of individual enrollments that have lost a leaf: done if the new leaf
/// serves alone, aborted otherwise.
pub(super) fn end_leaf_rolls(
    tx: &Tx<'_>,
    applied: &[Applied],
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    for it in applied {
        let open = roll::open_roll(tx, it.before.id)?;
        let Some(open) = open.filter(|open| open.reason == RollReason::Expiry) else {
            continue;
        };
        let serving = it
            .remaining
            .slots
            .serving()
            .filter(|_| it.remaining.enabled);
        if serving.is_some() && serving == open.new_certificate {
            roll::set_state(tx, open.id, RollState::Done, entry.at)?;
            continue;
        }
        let entry = AuditEntry {
            subject: it.before.name.clone(),
            ..entry.clone()
        };
        overtake(tx, &open, &entry)?;
    }
    Ok(())
}

/// Begins the roll of one authority in the place of the one that is under way. The open rolls below
/// that one belong to the new roll from then on. Its devices do, too (`ca::roll`), because its
/// generation stays revoked.
fn begin_authority(
    tx: &Tx<'_>,
    it: &Generation,
    parent: Option<RollId>,
    detail: &Value,
    entry: &AuditEntry,
) -> Result<RollId, StoreError> {
    let open = open_authority_roll(tx, &it.authority)?;
    if let Some(open) = &open {
        let entry = AuditEntry {
            subject: it.authority.clone(),
            ..entry.clone()
        };
        overtake(tx, open, &entry)?;
    }
    let new = NewRoll {
        subject: NewSubject::Authority(&it.authority, it.id),
        reason: RollReason::Compromise,
        state: RollState::Excluding,
        old_certificate: it.certificate,
        new_certificate: None,
        detail,
        parent,
    };
    let id = roll::insert(tx, &new, entry)?;
    if let Some(open) = open {
        roll::adopt_children(tx, open.id, id)?;
    }
    Ok(id)
}

/// Ends a roll that is under way.
fn overtake(tx: &Tx<'_>, open: &RollRow, entry: &AuditEntry) -> Result<(), StoreError> {
    roll::set_state(tx, open.id, RollState::Aborted, entry.at)?;
    let overtaken = AuditEntry {
        action: "roll.overtaken",
        detail: json!({ "roll": open.id, "by": "a compromise" }),
        ..entry.clone()
    };
    audit::append(tx, &overtaken)
}

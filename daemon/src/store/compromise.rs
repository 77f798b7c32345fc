//! A compromised leaf: shut out in one transaction at every service that lets its device in.
//!
//! Slots, status, roll, revocation and the work at the hub change together, and what was being
//! signed for the device at that moment is abandoned: a holder of the compromised leaf may have asked
//! for it. From then on the store desires nothing that lets the compromised leaf in.

use super::audit::{self, AuditEntry};
use super::door::{self, Door};
use super::engine::{Tx, params};
use super::enrollment::{self, EnrollmentRow, by_id, save_slots, set_status};
use super::hub_task::{self, HubAction, HubCause, NewHubTask};
use super::revocation::{self, Revocation, RevocationTarget, Revoked};
use super::roll::{self, NewRoll, NewSubject, RollRow};
use super::{Store, StoreError, abandon, block, mark};
use crate::enrollment::roll::{RollReason, RollState};
use crate::enrollment::slots::SlotName;
use crate::enrollment::thumbprint::Thumbprint;
use crate::error_code::Code;
use crate::x509::revocation::RevocationReason;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A compromise that was reported.
#[derive(Clone, Debug)]
pub struct Compromise {
    /// The device, in the spelling on record.
    pub registration_id: String,
    /// The provisioning services, each of which may let it in.
    pub services: Vec<String>,
    /// Those whose hubs have to delete the device's identity.
    pub hubs: BTreeSet<String>,
    /// Which slots are compromised.
    pub slots: Vec<SlotName>,
    /// Options, as `enrollment::roll::LeafDetail`.
    pub detail: Value,
    /// All leaves of the device, revoked unless only one slot is compromised.
    pub revocation: Revocation,
}

impl Store {
    /// Shuts a compromised leaf out. A roll by expiry that is under way is overtaken: it ends as
    /// aborted, and the new one takes over its slots.
    pub fn start_compromise(
        &self,
        compromise: Compromise,
        entry: AuditEntry,
    ) -> Result<(Vec<RollRow>, Revoked), StoreError> {
        self.write(move |tx| {
            let reason = "its device was reported as compromised";
            abandon::abandon_leaves(tx, &compromise.registration_id, reason, entry.at)?;
            let mut rolls = Vec::new();
            let mut revoked = Revoked::default();
            let doors = doors_of(tx, &compromise, entry.at)?;
            for door in &doors {
                let row = inside(tx, &compromise.registration_id, door, entry.at)?;
                let (roll, compromised) = shut_out(tx, &compromise, row, &entry)?;
                rolls.push(roll);
                if compromise.slots.len() < SlotName::BOTH.len() {
                    for leaf in compromised {
                        let target = RevocationTarget::Sha256(*leaf.as_bytes());
                        revoke(tx, &compromise, target, &mut revoked)?;
                    }
                }
            }
            if compromise.slots.len() == SlotName::BOTH.len() {
                let target = compromise.revocation.target.clone();
                revoke(tx, &compromise, target, &mut revoked)?;
            }
            Ok((rolls, revoked))
        })
    }

    /// The end of the last of a device's leaves that are revoked for good and have not expired, in
    /// Unix seconds: until then its group would let a compromised leaf in.
    pub fn compromised_until(&self, subject: &str, now: i64) -> Result<Option<i64>, StoreError> {
        self.read(|tx| compromised_until(tx, subject, now))
    }
}

/// Where the device is let in. Without an enrollment of its own it has no slots there, so one slot
/// says nothing of that door.
fn doors_of(tx: &Tx<'_>, compromise: &Compromise, at: i64) -> Result<Vec<Door>, StoreError> {
    let device = &compromise.registration_id;
    let doors = door::doors(tx, device, &compromise.services, at)?;
    let one_slot = compromise.slots.len() < SlotName::BOTH.len();
    if one_slot && (doors.is_empty() || doors.iter().any(|door| door.individual.is_none())) {
        return Err(StoreError::Mend {
            code: Code::RollSlotInvalid,
            message: format!(
                "{device} has no enrollment of its own, and so no slots, everywhere that lets it \
                 in; leave --slot out"
            ),
        });
    }
    Ok(doors)
}

pub(super) fn compromised_until(
    tx: &Tx<'_>,
    subject: &str,
    now: i64,
) -> Result<Option<i64>, StoreError> {
    let hold = RevocationReason::CertificateHold.code();
    tx.query_one(
        "SELECT max(i.not_after) FROM intent i JOIN certificate c ON c.intent = i.id
         WHERE i.subject = ?1 AND i.role = 'device' AND i.not_after >= ?2
           AND c.revocation_reason IS NOT NULL AND c.revocation_reason <> ?3",
        params![subject, now, hold],
        |row| row.get(0),
    )
}

fn revoke(
    tx: &Tx<'_>,
    compromise: &Compromise,
    target: RevocationTarget,
    revoked: &mut Revoked,
) -> Result<(), StoreError> {
    let revocation = Revocation {
        target,
        ..compromise.revocation.clone()
    };
    let done = revocation::revoke(tx, &revocation, RevocationReason::KeyCompromise)?;
    revoked.changed.extend(done.changed);
    revoked.unchanged.extend(done.unchanged);
    Ok(())
}

/// The individual enrollment that takes precedence over the device's group: made if need be, with
/// the device's current leaf, for the service knows no enrollment without one.
pub(super) fn inside(
    tx: &Tx<'_>,
    registration_id: &str,
    door: &Door,
    at: i64,
) -> Result<EnrollmentRow, StoreError> {
    match door.individual {
        Some(id) => {
            // One that was on its way out is needed again.
            tx.execute(
                "UPDATE enrollment SET removed = 0 WHERE id = ?1",
                params![id],
            )?;
            by_id(tx, id)
        }
        None => enrollment::add_overlay(
            tx,
            &door.provisioning,
            registration_id,
            door.group.as_deref(),
            at,
        ),
    }
}

fn shut_out(
    tx: &Tx<'_>,
    compromise: &Compromise,
    row: EnrollmentRow,
    entry: &AuditEntry,
) -> Result<(RollRow, Vec<Thumbprint>), StoreError> {
    let held = |slot: &SlotName| row.slots.in_slot(*slot);
    let compromised: Vec<Thumbprint> = compromise.slots.iter().filter_map(held).collect();
    let left = row
        .slots
        .clone()
        .shut_out(&compromised, None)
        .map_err(|refusal| StoreError::Conflict(refusal.to_string()))?;
    overtake(tx, &row, entry)?;
    let enabled = left.enabled && !block::is_blocked(tx, &row.name)?;
    save_slots(tx, row.id, &left.slots)?;
    set_status(tx, row.id, enabled)?;
    mark::raise_urgent(tx, row.id, "leaf compromised", entry.at)?;
    let old_certificate = row.slots.serving().filter(|it| compromised.contains(it));
    let mut detail = compromise.detail.clone();
    detail["compromised"] = json!(compromised);
    let new = NewRoll {
        subject: NewSubject::Enrollment(row.id),
        reason: RollReason::Compromise,
        state: RollState::ShuttingOut,
        old_certificate: old_certificate.unwrap_or(compromised[0]),
        new_certificate: left.slots.serving().filter(|_| left.enabled),
        detail: &detail,
        parent: None,
    };
    let id = roll::insert(tx, &new, entry)?;
    if compromise.hubs.contains(&row.provisioning) {
        let cause = HubCause::Roll(id);
        let task = delete_task(&row.provisioning, &compromise.registration_id, row.id);
        hub_task::queue(tx, cause, &[task], entry.at)?;
    }
    let mut told = entry.clone();
    told.detail["provisioning"] = json!(row.provisioning);
    told.detail["roll"] = json!(id);
    audit::append(tx, &told)?;
    Ok((roll::roll_by_id(tx, id)?, compromised))
}

/// The device's identity goes, once the service does not let it in any more.
pub(super) fn delete_task(provisioning: &str, device: &str, enrollment: i64) -> NewHubTask {
    NewHubTask {
        provisioning: provisioning.to_owned(),
        device: device.to_owned(),
        action: HubAction::Delete,
        enrollment: Some(enrollment),
    }
}

/// Ends the roll under way of this enrollment, if there is one, for a compromise.
fn overtake(tx: &Tx<'_>, row: &EnrollmentRow, entry: &AuditEntry) -> Result<(), StoreError> {
    let Some(open) = roll::open_roll(tx, row.id)? else {
        return Ok(());
    };
    if open.reason == RollReason::Compromise && open.new_certificate.is_none() {
        return Err(StoreError::Conflict(format!(
            "roll {} shuts the leaves of {} out already, and waits for a new one",
            open.id, row.name
        )));
    }
    roll::set_state(tx, open.id, RollState::Aborted, entry.at)?;
    let overtaken = AuditEntry {
        action: "roll.overtaken",
        detail: json!({ "roll": open.id, "by": "a compromise" }),
        ..entry.clone()
    };
    audit::append(tx, &overtaken)
}

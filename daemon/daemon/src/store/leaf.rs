//! Decides whether a device's new leaf may be signed, and places it into the slots.
//!
//! Both are part of the transactions of the issuance cycle: nothing is signed for which there is no
//! slot, and no leaf is recorded without taking its slots.

use super::audit::{self, AuditEntry};
use super::engine::{Tx, params};
use super::enrollment::{EnrollmentRow, save_slots, set_status, staying};
use super::intent::{Intent, IntentError, Moves};
use super::mark::{self, MarkSubject};
use super::{StoreError, block, compromise, conflicts, hub_observation, leaf_roll, readings, roll};
use crate::enrollment::slots::Slots;
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::{GenerationId, IntentId};
use crate::unix_seconds::UnixSeconds;
use serde_json::json;

/// Step 7, for a device: checks that the spelling is the one on record, that the device may have
/// this profile, that neither the device nor its group is blocked, and that its slots can take a
/// leaf.
pub(super) fn check(tx: &Tx<'_>, intent: &Intent) -> Result<(), IntentError> {
    let registration_id = intent.subject.as_str();
    if let Some((known, profile)) = registered(tx, registration_id)? {
        if known != registration_id {
            return Err(IntentError::Spelling { known });
        }
        if profile != intent.profile {
            refuse_move(intent, profile)?;
        }
    }
    if readings::has_blocks(tx)? {
        refuse_blocked(tx, registration_id, intent.issuer)?;
    }
    if !readings::has_individuals(tx)? {
        return Ok(());
    }
    for enrollment in staying(tx, registration_id)? {
        let is_replaced = compromise::waits_for_leaf(tx, enrollment.id)?
            || !conflicts::excluded_leaves(tx, &enrollment.slots)?.is_empty();
        if is_replaced {
            continue;
        }
        match enrollment.slots {
            Slots::Empty | Slots::Serving { .. } => {}
            // Both slots are taken, and the service was not observed with the next leaf. A third
            // one would push out a leaf that the device may already use.
            Slots::Staged { .. } => {
                let service = &enrollment.provisioning;
                let waits_for = format!("it waits for {service} to hold both certificates");
                return Err(IntentError::RollUnderWay { waits_for });
            }
            Slots::Draining { .. } if leaf_roll::drains(tx, enrollment.id)? => {}
            Slots::Draining { .. } => {
                let waits_for =
                    "it waits for the compromised certificate to be excluded".to_owned();
                return Err(IntentError::RollUnderWay { waits_for });
            }
        }
    }
    Ok(())
}

fn refuse_blocked(
    tx: &Tx<'_>,
    registration_id: &str,
    issuer: GenerationId,
) -> Result<(), IntentError> {
    let device = registration_id.to_owned();
    if block::is_blocked(tx, registration_id)? {
        return Err(IntentError::Blocked(device));
    }
    match conflicts::blocked_group(tx, registration_id, issuer)? {
        Some(group) => Err(IntentError::GroupBlocked { device, group }),
        None => Ok(()),
    }
}

/// Returns the device's spelling on record and its profile. Finds it in any spelling.
fn registered(tx: &Tx<'_>, registration_id: &str) -> Result<Option<(String, String)>, StoreError> {
    tx.query_optional(
        "SELECT registration_id, profile FROM device WHERE registration_id = ?1",
        params![registration_id],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

fn refuse_move(intent: &Intent, registered: String) -> Result<(), IntentError> {
    let device = intent.subject.clone();
    let asked = intent.profile.clone();
    match &intent.moves {
        Moves::NotFrom(others) if !others.contains(&registered) => Ok(()),
        Moves::NotByItself => Err(IntentError::OwnProfile {
            device,
            registered,
            asked,
        }),
        Moves::Never | Moves::NotFrom(_) => Err(IntentError::Moves {
            device,
            registered,
            asked,
        }),
    }
}

/// Step 10, for a device: makes the leaf its current one. A move to another profile is audited.
pub(super) fn record(
    tx: &Tx<'_>,
    registration_id: &str,
    profile: &str,
    certificate: IntentId,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    let added = tx.execute_apart(
        "INSERT INTO device (registration_id, profile, certificate, created_at, not_after)
         VALUES (?1, ?2, ?3, ?4, (SELECT not_after FROM intent WHERE id = ?3))
         ON CONFLICT (registration_id) DO NOTHING",
        params![registration_id, profile, certificate, entry.at],
    )?;
    if added == 0 {
        record_move(tx, registration_id, profile, entry)?;
        tx.execute(
            "UPDATE device SET profile = ?2, certificate = ?3,
                 not_after = (SELECT not_after FROM intent WHERE id = ?3)
             WHERE registration_id = ?1",
            params![registration_id, profile, certificate],
        )?;
    }
    Ok(())
}

/// Audits a change of a registered device's profile.
fn record_move(
    tx: &Tx<'_>,
    registration_id: &str,
    profile: &str,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    match registered(tx, registration_id)? {
        Some((device, before)) if before != profile => {
            let moved = AuditEntry {
                at: entry.at,
                actor: entry.actor.clone(),
                action: "device.moved",
                subject: device,
                detail: json!({ "from": before, "to": profile }),
            };
            audit::append(tx, &moved)
        }
        _ => Ok(()),
    }
}

/// Makes `serving` the device's current leaf again after a roll to `next` was aborted, unless a
/// slot at another service still holds `next`.
pub(super) fn make_current_again(
    tx: &Tx<'_>,
    registration_id: &str,
    next: Thumbprint,
    serving: Thumbprint,
) -> Result<(), StoreError> {
    let enrollments = staying(tx, registration_id)?;
    // The device needs `next` there, so its renewals are to follow that one.
    if enrollments.iter().any(|it| it.slots.held().contains(&next)) {
        return Ok(());
    }
    tx.execute(
        "UPDATE device SET (certificate, profile, not_after) = (
                 SELECT c.intent, i.profile, i.not_after
                 FROM certificate c JOIN intent i ON i.id = c.intent
                 WHERE c.sha256 = ?3)
             WHERE registration_id = ?1
               AND certificate = (SELECT intent FROM certificate WHERE sha256 = ?2)",
        params![registration_id, next.as_bytes(), serving.as_bytes()],
    )?;
    Ok(())
}

/// Step 10, for an individually enrolled device: puts the leaf into a slot and marks the enrollment
/// dirty. `presented` is the client certificate of the request. Returns the services concerned.
pub(super) fn place(
    tx: &Tx<'_>,
    registration_id: &str,
    sha256: &[u8; 32],
    presented: Option<Thumbprint>,
    entry: &AuditEntry,
) -> Result<Vec<String>, StoreError> {
    let leaf = Thumbprint::from_bytes(*sha256);
    let mut concerned = Vec::new();
    if !readings::has_individuals(tx)? {
        return Ok(concerned);
    }
    // Each service has slots of its own, and they may be in different states.
    for enrollment in staying(tx, registration_id)? {
        concerned.push(enrollment.provisioning.clone());
        if compromise::waits_for_leaf(tx, enrollment.id)? {
            let compromised = enrollment.slots.held();
            replace(tx, &enrollment, &compromised, leaf, entry)?;
            continue;
        }
        let excluded = conflicts::excluded_leaves(tx, &enrollment.slots)?;
        if !excluded.is_empty() {
            replace(tx, &enrollment, &excluded, leaf, entry)?;
            continue;
        }
        let before = enrollment.slots.clone();
        let placed = match &before {
            Slots::Empty => enrollment.slots.serve(leaf),
            // Both slots are taken, and a device may renew before its old leaf has expired: the
            // leaf that it was not observed to use makes room.
            Slots::Draining { .. } => {
                let in_use = in_use(tx, &enrollment, presented)?;
                enrollment.slots.stage_third(leaf, &in_use)
            }
            _ => enrollment.slots.stage(leaf),
        };
        // `check` has judged these slots, but they may have changed while the token signed. Then
        // step 10 fails as a whole, and the repeat of the request is judged by the new state.
        let slots = placed.map_err(|refusal| StoreError::Conflict(refusal.to_string()))?;
        if let Slots::Draining { .. } = before {
            leaf_roll::end_by_renewal(tx, enrollment.id, &slots, entry)?;
        }
        // A device that renews without being asked starts a rollover.
        if let Slots::Staged { serving, .. } = slots {
            roll::stage(tx, enrollment.id, serving, leaf, entry)?;
        }
        save_slots(tx, enrollment.id, &slots)?;
        let subject = MarkSubject::Enrollment(enrollment.id);
        mark::raise(tx, subject, "leaf issued", entry.at)?;
    }
    Ok(concerned)
}

/// Returns the leaves that the device was observed to use: the one that it presented with this
/// request, and the one that its hub has shown since the cut-over.
fn in_use(
    tx: &Tx<'_>,
    row: &EnrollmentRow,
    presented: Option<Thumbprint>,
) -> Result<Vec<Thumbprint>, StoreError> {
    let since = roll::open_roll(tx, row.id)?.map_or(UnixSeconds::MIN, |it| it.changed_at);
    let observed = hub_observation::find(tx, &row.provisioning, &row.name)?;
    // An earlier observation cannot show the newer leaf.
    let observed = observed.filter(|it| it.seen_at >= since);
    let observed = observed.and_then(|it| it.certificate);
    Ok(observed.into_iter().chain(presented).collect())
}

/// Puts the new leaf in the place of excluded leaves, and readmits the device unless something else
/// excludes it. Excluded leaves must not stay in a slot until they expire.
fn replace(
    tx: &Tx<'_>,
    row: &EnrollmentRow,
    excluded: &[Thumbprint],
    leaf: Thumbprint,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    let left = row.slots.clone().exclude(excluded, Some(leaf));
    let slots = left
        .map_err(|it| StoreError::Conflict(it.to_string()))?
        .slots;
    save_slots(tx, row.id, &slots)?;
    match slots {
        // A good leaf is left in the other slot, so this is a renewal.
        Slots::Staged { serving, next, .. } => roll::stage(tx, row.id, serving, next, entry)?,
        _ => roll::replaced(tx, row.id, leaf, entry.at)?,
    }
    set_status(tx, row.id, conflicts::may_enable(tx, row, &slots)?)?;
    mark::raise_urgent(tx, row.id, "leaf replaced", entry.at)
}

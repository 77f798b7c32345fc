//! A device's new leaf: whether it may be signed, and which slots it takes.
//!
//! Both questions are asked within the transactions of the issuance cycle: nothing is signed for
//! which there is no slot, and no certificate is recorded without its place.

use super::audit::{self, AuditEntry};
use super::enrollment::{EnrollmentRow, individual, save_slots, set_status};
use super::issuance::{Intent, IntentRefusal};
use super::mark::{self, MarkSubject};
use super::{Store, StoreError, block, precedence, roll};
use crate::enrollment::roll::RollReason;
use crate::enrollment::slots::Slots;
use crate::enrollment::thumbprint::Thumbprint;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::json;
use std::collections::BTreeSet;

/// From which other profiles a registered device may be moved to the one that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moves {
    /// From none.
    Never,
    /// From none, and the device asks for itself.
    NotByItself,
    /// From any profile but these.
    NotFrom(BTreeSet<String>),
}

impl Store {
    /// The profiles with which devices are registered. Costs a look per profile, not per device.
    pub fn registered_profiles(&self) -> Result<Vec<String>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "WITH RECURSIVE registered (profile) AS (
                     SELECT min(profile) FROM device
                     UNION ALL
                     SELECT (SELECT min(profile) FROM device WHERE profile > registered.profile)
                     FROM registered WHERE profile IS NOT NULL)
                 SELECT profile FROM registered WHERE profile IS NOT NULL",
            )?;
            let profiles = statement.query_map([], |row| row.get(0))?;
            Ok(profiles.collect::<Result<_, _>>()?)
        })
    }

    /// How many devices are registered with this profile.
    pub fn registered_count(&self, profile: &str) -> Result<i64, StoreError> {
        self.read(|connection| {
            Ok(connection
                .prepare_cached("SELECT count(*) FROM device WHERE profile = ?1")?
                .query_row([profile], |row| row.get(0))?)
        })
    }
}

/// Step 7, for a device: the spelling is the known one, it may have this profile, neither it nor
/// its group is blocked, and its slots can take one more leaf.
pub(super) fn admit(connection: &Connection, intent: &Intent) -> Result<(), IntentRefusal> {
    let registration_id = intent.subject.as_str();
    if let Some((known, profile)) = registered(connection, registration_id)? {
        if known != registration_id {
            return Err(IntentRefusal::Spelling { known });
        }
        if profile != intent.profile {
            refuse_move(intent, profile)?;
        }
    }
    if block::is_blocked(connection, registration_id)? {
        return Err(IntentRefusal::Blocked(registration_id.to_owned()));
    }
    if let Some(group) = precedence::blocked_group(connection, registration_id, intent.issuer)? {
        let device = registration_id.to_owned();
        return Err(IntentRefusal::GroupBlocked { device, group });
    }
    for enrollment in individual(connection, registration_id)? {
        if compromise_waits(connection, enrollment.id)? {
            continue;
        }
        match enrollment.slots {
            Slots::Empty | Slots::Serving { .. } => {}
            Slots::Staged { .. } => {
                let service = &enrollment.provisioning;
                let waits_for = format!("it waits for {service} to hold both certificates");
                return Err(IntentRefusal::RollUnderWay { waits_for });
            }
            Slots::Draining { .. } => {
                let waits_for = "it waits for the old certificate to expire".to_owned();
                return Err(IntentRefusal::RollUnderWay { waits_for });
            }
        }
    }
    Ok(())
}

/// The device's spelling and its profile, if it is known in any spelling.
fn registered(
    connection: &Connection,
    registration_id: &str,
) -> Result<Option<(String, String)>, StoreError> {
    Ok(connection
        .prepare_cached("SELECT registration_id, profile FROM device WHERE registration_id = ?1")?
        .query_row([registration_id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?)
}

fn refuse_move(intent: &Intent, registered: String) -> Result<(), IntentRefusal> {
    let device = intent.subject.clone();
    let asked = intent.profile.clone();
    match &intent.moves {
        Moves::NotFrom(others) if !others.contains(&registered) => Ok(()),
        Moves::NotByItself => Err(IntentRefusal::OwnProfile {
            device,
            registered,
            asked,
        }),
        Moves::Never | Moves::NotFrom(_) => Err(IntentRefusal::Moves {
            device,
            registered,
            asked,
        }),
    }
}

/// Step 10, for a device: this leaf is its current one. A move to another profile is audited.
pub(super) fn record(
    connection: &Connection,
    registration_id: &str,
    profile: &str,
    certificate: i64,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    let added = connection
        .prepare_cached(
            "INSERT INTO device (registration_id, profile, certificate, created_at, not_after)
             VALUES (?1, ?2, ?3, ?4, (SELECT not_after FROM intent WHERE id = ?3))
             ON CONFLICT (registration_id) DO NOTHING",
        )?
        .execute(params![registration_id, profile, certificate, entry.at])?;
    if added == 0 {
        record_move(connection, registration_id, profile, entry)?;
        connection
            .prepare_cached(
                "UPDATE device SET profile = ?2, certificate = ?3,
                     not_after = (SELECT not_after FROM intent WHERE id = ?3)
                 WHERE registration_id = ?1",
            )?
            .execute(params![registration_id, profile, certificate])?;
    }
    Ok(())
}

/// Audits that a registered device gets another profile, if it does.
fn record_move(
    connection: &Connection,
    registration_id: &str,
    profile: &str,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    match registered(connection, registration_id)? {
        Some((device, before)) if before != profile => {
            let moved = AuditEntry {
                at: entry.at,
                actor: entry.actor.clone(),
                action: "device.moved",
                subject: device,
                detail: json!({ "from": before, "to": profile }),
            };
            audit::append(connection, &moved)
        }
        _ => Ok(()),
    }
}

/// A roll to `next` was given up: the device's current leaf is `serving` again, unless a slot at
/// another service still holds `next`.
pub(super) fn give_up(
    connection: &Connection,
    registration_id: &str,
    next: Thumbprint,
    serving: Thumbprint,
) -> Result<(), StoreError> {
    let enrollments = individual(connection, registration_id)?;
    if enrollments.iter().any(|it| it.slots.held().contains(&next)) {
        return Ok(());
    }
    connection
        .prepare_cached(
            "UPDATE device SET (certificate, profile, not_after) = (
                 SELECT c.intent, i.profile, i.not_after FROM certificate c JOIN intent i ON i.id = c.intent
                 WHERE c.sha256 = ?3)
             WHERE registration_id = ?1
               AND certificate = (SELECT intent FROM certificate WHERE sha256 = ?2)",
        )?
        .execute(params![
            registration_id,
            next.as_bytes(),
            serving.as_bytes()
        ])?;
    Ok(())
}

/// Step 10, for an individually enrolled device: the leaf takes a slot, the enrollment is dirty.
/// Returns which services that concerns.
pub(super) fn place(
    connection: &Connection,
    registration_id: &str,
    sha256: &[u8; 32],
    entry: &AuditEntry,
) -> Result<Vec<String>, StoreError> {
    let leaf = Thumbprint::from_bytes(*sha256);
    let mut concerned = Vec::new();
    for enrollment in individual(connection, registration_id)? {
        concerned.push(enrollment.provisioning.clone());
        if compromise_waits(connection, enrollment.id)? {
            replace_compromised(connection, enrollment, leaf, entry.at)?;
            continue;
        }
        let before = enrollment.slots.clone();
        let placed = match &before {
            Slots::Empty => enrollment.slots.serve(leaf),
            _ => enrollment.slots.stage(leaf),
        };
        let slots = placed.map_err(|refusal| StoreError::Conflict(refusal.to_string()))?;
        if let Slots::Serving { certificate, .. } = before {
            roll::stage(connection, enrollment.id, certificate, leaf, entry)?;
        }
        save_slots(connection, enrollment.id, &slots)?;
        let subject = MarkSubject::Enrollment(enrollment.id);
        mark::raise(connection, subject, "leaf issued", entry.at)?;
    }
    Ok(concerned)
}

/// Whether everything in the slots is compromised, and a compromise waits for a new leaf.
fn compromise_waits(connection: &Connection, enrollment: i64) -> Result<bool, StoreError> {
    let open = roll::open_roll(connection, enrollment)?;
    Ok(open.is_some_and(|it| it.reason == RollReason::Compromise && it.new_certificate.is_none()))
}

/// The new leaf takes the place of all that is compromised, and the device is let back in.
fn replace_compromised(
    connection: &Connection,
    row: EnrollmentRow,
    leaf: Thumbprint,
    at: i64,
) -> Result<(), StoreError> {
    let compromised = row.slots.held();
    let left = row.slots.shut_out(&compromised, Some(leaf));
    let left = left.map_err(|refusal| StoreError::Conflict(refusal.to_string()))?;
    save_slots(connection, row.id, &left.slots)?;
    set_status(
        connection,
        row.id,
        !block::is_blocked(connection, &row.name)?,
    )?;
    connection
        .prepare_cached(
            "UPDATE roll SET new_certificate = ?2, changed_at = ?3
             WHERE enrollment = ?1 AND state NOT IN ('done', 'aborted')",
        )?
        .execute(params![row.id, leaf.as_bytes(), at])?;
    mark::raise_urgent(connection, row.id, "leaf replaced", at)
}

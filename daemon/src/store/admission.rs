//! Adds and removes enrollments for an operator, unless a block or a revocation forbids it.

use super::audit::{self, AuditEntry};
use super::device::current_leaf;
use super::engine::{Tx, params};
use super::enrollment::{EnrollmentKind, EnrollmentRow, by_id};
use super::json::to_json;
use super::mark::{self, MarkSubject};
use super::{Store, StoreError, block, conflicts};
use crate::enrollment::slots::Slots;

/// An enrollment to add.
#[derive(Clone, Debug)]
pub struct NewEnrollment {
    /// The name of the provisioning service in the configuration.
    pub provisioning: String,
    /// Individual or group.
    pub kind: EnrollmentKind,
    /// Registration id or enrollment group id.
    pub name: String,
    /// The authority of a group.
    pub authority: Option<String>,
    /// A group that names CA certificates of the service, instead of holding certificates.
    pub by_reference: bool,
    /// The first contents of a group's slots. An individual enrollment takes the device's current
    /// leaf.
    pub slots: Slots,
}

impl Store {
    /// Adds an enrollment, marked dirty if its slots hold a certificate. An individual enrollment
    /// of a registered device begins with the device's current leaf.
    pub fn add_enrollment(
        &self,
        new: NewEnrollment,
        entry: AuditEntry,
    ) -> Result<EnrollmentRow, StoreError> {
        self.write(move |tx| {
            let slots = initial_slots(tx, &new)?;
            let added = tx.query_optional(
                "INSERT INTO enrollment
                     (provisioning, kind, name, authority, slots, status, created_at, by_reference)
                 VALUES (?1, ?2, ?3, ?4, ?5, 'enabled', ?6, ?7)
                 ON CONFLICT (provisioning, kind, name) DO NOTHING RETURNING id",
                params![
                    new.provisioning,
                    new.kind.name(),
                    new.name,
                    new.authority,
                    to_json(&slots)?,
                    entry.at,
                    new.by_reference
                ],
                |row| row.get(0),
            )?;
            let Some(id) = added else {
                let kind = new.kind.name();
                return Err(StoreError::Conflict(format!(
                    "{} has the {kind} enrollment {:?} already",
                    new.provisioning, new.name
                )));
            };
            if slots != Slots::Empty {
                mark::raise(
                    tx,
                    MarkSubject::Enrollment(id),
                    "enrollment added",
                    entry.at,
                )?;
            }
            audit::append(tx, &entry)?;
            by_id(tx, id)
        })
    }

    /// Marks an enrollment for removal; the row is deleted once the service confirms. Fails with
    /// `Conflict` if slots or status have changed since `judged` was read: a block or a compromise
    /// may need the enrollment.
    pub fn remove_enrollment(
        &self,
        judged: &EnrollmentRow,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        let judged = judged.clone();
        self.write(move |tx| {
            let row = by_id(tx, judged.id)?;
            if row.slots != judged.slots || row.enabled != judged.enabled {
                let message = format!(
                    "enrollment {} changed concurrently; no changes were made. Retry",
                    row.name
                );
                return Err(StoreError::Conflict(message));
            }
            tx.execute(
                "UPDATE enrollment SET removed = 1 WHERE id = ?1",
                params![row.id],
            )?;
            mark::raise(
                tx,
                MarkSubject::Enrollment(row.id),
                "enrollment removed",
                entry.at,
            )?;
            audit::append(tx, &entry)
        })
    }
}

fn initial_slots(tx: &Tx<'_>, new: &NewEnrollment) -> Result<Slots, StoreError> {
    match new.kind {
        EnrollmentKind::Group => {
            conflicts::new_group(tx, &new.slots.held())?;
            Ok(new.slots.clone())
        }
        EnrollmentKind::Individual => {
            refuse_excluded_device(tx, &new.name)?;
            current_leaf(tx, &new.name)
        }
    }
}

/// Refuses an enrollment for a device that is blocked, or whose current leaf is revoked.
fn refuse_excluded_device(tx: &Tx<'_>, device: &str) -> Result<(), StoreError> {
    if block::is_blocked(tx, device)? {
        return Err(StoreError::Conflict(format!(
            "{device} is blocked; lift the block first with `hallmark device unblock {device}`"
        )));
    }
    let current: Option<(i64, bool)> = tx.query_optional(
        "SELECT i.issuer, c.revoked_at IS NOT NULL
         FROM device d JOIN certificate c ON c.intent = d.certificate
         JOIN intent i ON i.id = d.certificate WHERE d.registration_id = ?1",
        params![device],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let Some((issuer, revoked)) = current else {
        return Ok(());
    };
    if let Some(group) = conflicts::blocked_group(tx, device, issuer)? {
        return Err(StoreError::Conflict(format!(
            "{device} belongs to the group {group}, which is blocked; lift the block first with \
             `hallmark enrollment unblock --group {group}`"
        )));
    }
    if revoked {
        return Err(StoreError::Conflict(format!(
            "the current leaf of {device} is revoked, and this enrollment would admit it; issue a \
             new leaf first"
        )));
    }
    Ok(())
}

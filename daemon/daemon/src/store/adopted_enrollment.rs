//! Takes enrollments on record that a scan has found at a service, to keep or to remove them.
//!
//! The record that the scan showed is what is desired then. An enrollment that would admit what is
//! excluded is refused: it is taken over by the exclusion instead.

use super::audit::{self, AuditEntry};
use super::engine::{Tx, params};
use super::enrollment::{EnrollmentKind, EnrollmentRow, by_id};
use super::json::to_json;
use super::mark::{self, MarkSubject};
use super::new_enrollment::{self, NewEnrollment};
use super::unknown_enrollment::FoundEnrollment;
use super::{
    Store, StoreError, UnixSeconds, access_path, block, conflicts, excluded_identity,
    repeated_deletion,
};
use crate::enrollment::exclusion::AccessPath;
use crate::enrollment::history::History;
use crate::enrollment::slots::Slots;
use crate::error_code::Code;
use crate::ids::EnrollmentId;

impl Store {
    /// Takes an enabled enrollment of a service on record. An individual one beside a group counts
    /// as that of a device of the group.
    pub fn adopt_enrollment(
        &self,
        adopted: NewEnrollment,
        entry: AuditEntry,
    ) -> Result<EnrollmentRow, StoreError> {
        self.write(move |tx| {
            let overlay_of = match adopted.kind {
                EnrollmentKind::Group => {
                    conflicts::new_group(tx, &adopted)?;
                    None
                }
                EnrollmentKind::Individual => {
                    refuse_excluded(tx, &adopted, entry.at)?;
                    group_beside(tx, &adopted, entry.at)?
                }
            };
            let id: EnrollmentId = tx.insert(
                "INSERT INTO enrollment (provisioning, kind, name, authority, slots, status,
                     created_at, by_reference, overlay_of)
                 VALUES (?1, ?2, ?3, ?4, ?5, 'enabled', ?6, ?7, ?8) RETURNING id",
                params![
                    adopted.provisioning,
                    adopted.kind.name(),
                    adopted.name,
                    adopted.authority,
                    to_json(&adopted.slots)?,
                    entry.at,
                    adopted.by_reference,
                    overlay_of
                ],
            )?;
            if adopted.kind == EnrollmentKind::Group {
                new_enrollment::exclude_below(tx, id, entry.at)?;
            }
            let subject = MarkSubject::Enrollment(id);
            mark::raise(tx, subject, "enrollment adopted", entry.at)?;
            audit::append(tx, &entry)?;
            by_id(tx, id)
        })
    }

    /// Marks an enrollment of a service, which is not on record, for removal. `history` makes the
    /// planner delete it. If `hub` is true, the hub of the service deletes the identity of its
    /// device for the exclusions in force: its leaf may be by any generation and of any group.
    pub fn remove_unknown_enrollment(
        &self,
        found: FoundEnrollment,
        history: History,
        hub: bool,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            // The authority of such a group may be unknown, and nothing needs it any more.
            let authority = (found.kind == EnrollmentKind::Group).then_some("");
            let id: EnrollmentId = tx.insert(
                "INSERT INTO enrollment (provisioning, kind, name, authority, slots, status,
                     leaving, history, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1, ?7, ?8) RETURNING id",
                params![
                    found.provisioning,
                    found.kind.name(),
                    found.name,
                    authority,
                    to_json(&Slots::Empty)?,
                    if found.enabled { "enabled" } else { "disabled" },
                    to_json(&history)?,
                    entry.at
                ],
            )?;
            let subject = MarkSubject::Enrollment(id);
            mark::raise(tx, subject, "enrollment removed", entry.at)?;
            let FoundEnrollment {
                provisioning: service,
                name,
                ..
            } = &found;
            match found.kind {
                _ if !hub => {}
                EnrollmentKind::Individual => {
                    repeated_deletion::of_device(tx, service, name, Some(id), entry.at)?;
                    excluded_identity::delete_for_all(tx, service, name, id, entry.at)?;
                }
                EnrollmentKind::Group => {
                    repeated_deletion::at_service(tx, service, Some(id), entry.at)?;
                }
            }
            audit::append(tx, &entry)
        })
    }
}

/// Refuses an individual enrollment that would admit what is excluded. A leaf that is not on record
/// may be by any generation and of any group.
fn refuse_excluded(
    tx: &Tx<'_>,
    adopted: &NewEnrollment,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    let device = &adopted.name;
    let refused = |code, what: &str| {
        let message = format!(
            "{what}, and this enrollment may admit it: block or compromise {device} by its name, \
             or remove the enrollment"
        );
        Err(StoreError::Blocking { code, message })
    };
    if block::is_blocked(tx, device)? {
        return refused(Code::DeviceBlocked, "the device is blocked");
    }
    let is_group_blocked: bool = tx.query_one(
        "SELECT EXISTS (
             SELECT 1 FROM block b JOIN enrollment g ON g.kind = 'group' AND g.name = b.name
             WHERE b.kind = 'group' AND b.lifted_at IS NULL AND g.provisioning = ?1)",
        params![adopted.provisioning],
        |row| row.get(0),
    )?;
    if is_group_blocked {
        return refused(Code::GroupBlocked, "a group of the service is blocked");
    }
    for leaf in adopted.slots.held() {
        let known: Option<(bool, bool)> = tx.query_optional(
            "SELECT i.subject = ?2 AND i.purpose = 'leaf', c.revoked_at IS NOT NULL
             FROM certificate c JOIN intent i ON i.id = c.intent WHERE c.sha256 = ?1",
            params![leaf.as_bytes(), device],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        match known {
            Some((false, _)) => {
                return refused(
                    Code::EnrollmentInvalid,
                    "it holds a certificate of another holder",
                );
            }
            Some((true, true)) => {
                return refused(Code::CertificateRevoked, "its leaf is revoked");
            }
            Some((true, false)) => conflicts::new_individual(tx, device, leaf)?,
            None if !new_enrollment::revoked_generations(tx, at)?.is_empty() => {
                let what = "its leaf is not on record, and a generation is revoked";
                return refused(Code::IssuerRevoked, what);
            }
            None => {}
        }
    }
    Ok(())
}

/// Returns the group of the service that would admit the device without the enrollment; any group
/// if a leaf in it is not on record.
fn group_beside(
    tx: &Tx<'_>,
    adopted: &NewEnrollment,
    at: UnixSeconds,
) -> Result<Option<String>, StoreError> {
    let mut are_known = true;
    for leaf in adopted.slots.held() {
        let sql = "SELECT EXISTS (SELECT 1 FROM certificate WHERE sha256 = ?1)";
        let is_known: bool = tx.query_one(sql, params![leaf.as_bytes()], |row| row.get(0))?;
        are_known &= is_known;
    }
    if are_known {
        let mut groups = access_path::groups_admitting(tx, &adopted.name, at)?;
        groups.retain(|it| it.provisioning == adopted.provisioning);
        return Ok(groups.first().map(|it| it.name.clone()));
    }
    let paths = access_path::access_paths(tx, &adopted.name, &[], at)?;
    let here = |it: &&AccessPath| it.provisioning == adopted.provisioning;
    let group = paths.iter().find(here).and_then(|it| it.group.clone());
    // Without a group at the service the path has the device's own name.
    Ok(group.filter(|it| !it.eq_ignore_ascii_case(&adopted.name)))
}

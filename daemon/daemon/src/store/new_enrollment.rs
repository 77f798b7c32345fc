//! Adds and removes enrollments for an operator, unless a block or a revocation forbids it.
//!
//! A new group may admit what an earlier exclusion did not have to care for, because no group could
//! admit it. So the transaction that adds the group adds the blocking groups, too.

use super::audit::{self, AuditEntry};
use super::block::{BlockKind, Undo};
use super::device::current_leaf;
use super::engine::{Tx, params};
use super::enrollment::{self, EnrollmentKind, EnrollmentRow, by_id};
use super::hierarchy;
use super::json::to_json;
use super::known_group::{KnownGroup, known_groups};
use super::mark::{self, MarkSubject};
use super::{
    Store, StoreError, UnixSeconds, access_path, block, conflicts, generation, repeated_deletion,
};
use crate::enrollment::exclusion::{AccessPath, BlockingGroup, Group, of_new_group};
use crate::enrollment::slots::Slots;
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::{BlockId, EnrollmentId, GenerationId};
use crate::x509::revocation::RevocationReason;
use serde_json::json;
use std::collections::BTreeSet;

/// An enrollment to add.
#[derive(Clone, Debug)]
pub struct NewEnrollment {
    /// The name of the provisioning service in the configuration.
    pub provisioning: String,
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
        self.write(move |tx| match add(tx, &new, &entry)? {
            Some(id) => by_id(tx, id),
            None => {
                let kind = new.kind.name();
                Err(StoreError::Conflict(format!(
                    "{} has the {kind} enrollment {:?} already",
                    new.provisioning, new.name
                )))
            }
        })
    }

    /// Marks an enrollment for removal; the row is deleted once the service was observed without
    /// it. Fails with `Conflict` if slots or status have changed since `judged` was read: a block
    /// or a compromise may need the enrollment.
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
            enrollment::set_leaving(tx, row.id, true)?;
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

/// Adds an enrollment within the caller's transaction. Returns its row id; `None` if there is one.
fn add(
    tx: &Tx<'_>,
    new: &NewEnrollment,
    entry: &AuditEntry,
) -> Result<Option<EnrollmentId>, StoreError> {
    let slots = initial_slots(tx, new)?;
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
        return Ok(None);
    };
    if new.kind == EnrollmentKind::Group {
        exclude_below(tx, id, entry.at)?;
    }
    if slots != Slots::Empty {
        let subject = MarkSubject::Enrollment(id);
        mark::raise(tx, subject, "enrollment added", entry.at)?;
    }
    audit::append(tx, entry)?;
    Ok(Some(id))
}

/// Step 10: adds an individual enrollment with the device's current leaf at a service that has
/// none. Returns whether it has added one.
pub(super) fn enroll(
    tx: &Tx<'_>,
    provisioning: &str,
    device: &str,
    issued: &AuditEntry,
) -> Result<bool, StoreError> {
    let own = enrollment::staying(tx, device)?;
    if own.iter().any(|it| it.provisioning == provisioning) {
        return Ok(false);
    }
    let new = NewEnrollment {
        provisioning: provisioning.to_owned(),
        kind: EnrollmentKind::Individual,
        name: device.to_owned(),
        authority: None,
        by_reference: false,
        slots: Slots::Empty,
    };
    let entry = AuditEntry {
        at: issued.at,
        actor: issued.actor.clone(),
        action: "enrollment.added",
        subject: device.to_owned(),
        detail: json!({ "provisioning": provisioning, "kind": new.kind, "authority": null }),
    };
    Ok(add(tx, &new, &entry)?.is_some())
}

/// Adds what excludes the revoked generations and the excluded devices below a new group: the
/// service must hold all of that before it holds the group.
pub(super) fn exclude_below(
    tx: &Tx<'_>,
    group: EnrollmentId,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    let row = by_id(tx, group)?;
    let hierarchy = hierarchy::all(tx)?;
    let rows = known_groups(tx)?;
    let groups: Vec<Group<'_>> = rows.iter().map(KnownGroup::known).collect();
    let excluded = excluded_generations(tx, &row.provisioning, at)?;
    let mut plan = Vec::new();
    if let Some(new) = groups.iter().find(|it| it.id == group) {
        plan = of_new_group(new, &hierarchy, &excluded, &groups);
    }
    let mut before = Vec::new();
    for blocking in plan {
        before.push(add_blocking(tx, &blocking, at)?);
    }
    for device in excluded_devices(tx, at)? {
        before.extend(exclude_beside(tx, &row, &device, at)?);
    }
    // Each comes after the one before it, so that the group can come after all of them.
    let mut after = None;
    for id in before {
        mark::raise_urgent(tx, id, "excluded before a group is added", at)?;
        enrollment::set_after(tx, id, after)?;
        after = Some(id);
    }
    enrollment::set_after(tx, group, after)
}

/// Adds the blocking groups that a service lacks for excluded generations: another program has
/// deleted the CA certificate by which a group excluded one, so a group above would admit it.
pub(super) fn exclude_again(
    tx: &Tx<'_>,
    provisioning: &str,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    let excluded = excluded_generations(tx, provisioning, at)?;
    if excluded.is_empty() {
        return Ok(());
    }
    let hierarchy = hierarchy::all(tx)?;
    let rows = known_groups(tx)?;
    let groups: Vec<Group<'_>> = rows.iter().map(KnownGroup::known).collect();
    let here = groups
        .iter()
        .filter(|it| it.provisioning == provisioning && !it.is_blocking);
    let mut added = BTreeSet::new();
    let mut last = None;
    for blocking in here.flat_map(|it| of_new_group(it, &hierarchy, &excluded, &groups)) {
        if added.insert(blocking.certificate) {
            let id = add_blocking(tx, &blocking, at)?;
            last = Some(id);
            mark::raise_urgent(
                tx,
                id,
                "CA certificate of an excluded generation is gone",
                at,
            )?;
        }
    }
    // Devices may have registered by the group above in between.
    match last {
        Some(last) => repeated_deletion::at_service(tx, provisioning, Some(last), at),
        None => Ok(()),
    }
}

/// Adds a blocking group; if a block needs it, the end of that block removes it.
fn add_blocking(
    tx: &Tx<'_>,
    blocking: &BlockingGroup,
    at: UnixSeconds,
) -> Result<EnrollmentId, StoreError> {
    let id = enrollment::add_blocking_group(tx, blocking, at)?;
    if let Some(block) = block_of(tx, blocking)? {
        block::hand_over(tx, block, &Undo::Remove(id))?;
    }
    Ok(id)
}

fn block_of(tx: &Tx<'_>, group: &BlockingGroup) -> Result<Option<BlockId>, StoreError> {
    let kind = BlockKind::Generation;
    match block::active(tx, kind, &group.authority, Some(group.number))? {
        Some(block) => Ok(Some(block)),
        None => block::of_group_with(tx, &group.provisioning, &group.authority),
    }
}

/// Adds an enrollment beside a new group for an excluded device that the group would admit. After a
/// compromise it holds the leaf that the device has got since.
fn exclude_beside(
    tx: &Tx<'_>,
    group: &EnrollmentRow,
    device: &str,
    at: UnixSeconds,
) -> Result<Option<EnrollmentId>, StoreError> {
    let own = enrollment::staying(tx, device)?;
    if own.iter().any(|it| it.provisioning == group.provisioning) {
        return Ok(None);
    }
    // An enrollment that is being removed would leave the device to the group.
    let paths = access_path::access_paths(tx, device, &[], at)?;
    let admits = |it: &AccessPath| it.provisioning == group.provisioning && it.group.is_some();
    let Some(path) = paths.into_iter().find(admits) else {
        return Ok(None);
    };
    let (row, leaving) = access_path::ensure_individual(tx, &path, at)?;
    let enabled = conflicts::may_enable(tx, &row, &row.slots)?;
    enrollment::set_status(tx, row.id, enabled)?;
    if let Some(block) = block::active(tx, BlockKind::Device, device, None)? {
        let undo = Undo::Device {
            id: row.id,
            leaving,
            added: path.individual.is_none(),
        };
        block::hand_over(tx, block, &undo)?;
    }
    // The device may have registered by the group before it was on record.
    repeated_deletion::of_device(tx, &row.provisioning, device, None, at)?;
    Ok(Some(row.id))
}

/// The devices with a compromised leaf that has not expired at `?1` or may be lost by a restore, or
/// `?3` alone.
const COMPROMISED: &str = "SELECT i.subject FROM intent i JOIN certificate c ON c.intent = i.id
         WHERE c.revoked_at IS NOT NULL AND c.revocation_reason = ?2
           AND i.role = 'device' AND i.not_after >= ?1 AND (?3 IS NULL OR i.subject = ?3)
     UNION SELECT e.name FROM roll r JOIN enrollment e ON e.id = r.enrollment
         WHERE r.after_restore = 1 AND (?3 IS NULL OR e.name = ?3)";

/// Returns the devices that are blocked or compromised.
pub(super) fn excluded_devices(
    tx: &Tx<'_>,
    now: UnixSeconds,
) -> Result<BTreeSet<String>, StoreError> {
    let blocks = "SELECT name FROM block WHERE kind = 'device' AND lifted_at IS NULL";
    let sql = format!("{blocks} UNION {COMPROMISED}");
    let reason = RevocationReason::KeyCompromise.code();
    let none: Option<&str> = None;
    let devices = tx.query_all(&sql, params![now, reason, none], |row| row.get(0))?;
    Ok(devices.into_iter().collect())
}

/// Returns whether a compromise of this device is in force.
pub(super) fn is_compromised(
    tx: &Tx<'_>,
    device: &str,
    now: UnixSeconds,
) -> Result<bool, StoreError> {
    let sql = format!("SELECT EXISTS ({COMPROMISED})");
    let reason = RevocationReason::KeyCompromise.code();
    tx.query_one(&sql, params![now, reason, device], |row| row.get(0))
}

/// Returns the generations that are revoked or on hold and have not expired.
pub(super) fn revoked_generations(
    tx: &Tx<'_>,
    now: UnixSeconds,
) -> Result<BTreeSet<GenerationId>, StoreError> {
    let ids = tx.query_all(
        "SELECT g.id FROM generation g JOIN certificate c ON c.intent = g.certificate
         JOIN intent i ON i.id = c.intent
         WHERE c.revoked_at IS NOT NULL AND i.not_after >= ?1",
        params![now],
        |row| row.get(0),
    )?;
    Ok(ids.into_iter().collect())
}

/// Returns the generations that are excluded at a service: those that are revoked or on hold, and
/// those of the authority of a blocked group there.
fn excluded_generations(
    tx: &Tx<'_>,
    provisioning: &str,
    now: UnixSeconds,
) -> Result<BTreeSet<GenerationId>, StoreError> {
    let mut excluded = revoked_generations(tx, now)?;
    let blocked = tx.query_all(
        "SELECT g.id FROM generation g JOIN enrollment e ON e.authority = g.authority
         JOIN block b ON b.kind = 'group' AND b.name = e.name AND b.lifted_at IS NULL
         WHERE e.kind = 'group' AND e.provisioning = ?1",
        params![provisioning],
        |row| row.get(0),
    )?;
    let blocked: BTreeSet<GenerationId> = blocked.into_iter().collect();
    if !blocked.is_empty() {
        let signed = generation::signed(tx, now)?;
        excluded.extend(blocked.intersection(&signed));
    }
    Ok(excluded)
}

fn initial_slots(tx: &Tx<'_>, new: &NewEnrollment) -> Result<Slots, StoreError> {
    match new.kind {
        EnrollmentKind::Group => {
            conflicts::new_group(tx, new)?;
            Ok(new.slots.clone())
        }
        EnrollmentKind::Individual => {
            refuse_excluded_device(tx, &new.name)?;
            current_leaf(tx, &new.name)
        }
    }
}

/// Refuses an enrollment for a device that is blocked, or whose current leaf is revoked or below a
/// generation that is.
fn refuse_excluded_device(tx: &Tx<'_>, device: &str) -> Result<(), StoreError> {
    if block::is_blocked(tx, device)? {
        return Err(StoreError::Conflict(format!(
            "{device} is blocked; lift the block first with `hallmark device unblock {device}`"
        )));
    }
    let current: Option<(GenerationId, bool, [u8; 32])> = tx.query_optional(
        "SELECT i.issuer, c.revoked_at IS NOT NULL, c.sha256
         FROM device d JOIN certificate c ON c.intent = d.certificate
         JOIN intent i ON i.id = d.certificate WHERE d.registration_id = ?1",
        params![device],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    let Some((issuer, revoked, leaf)) = current else {
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
    conflicts::new_individual(tx, device, Thumbprint::from_bytes(leaf))
}

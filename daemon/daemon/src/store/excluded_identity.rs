//! Queues what an exclusion deletes at hubs: the identities of devices.
//!
//! A hub knows a device by its leaf and asks no provisioning service, so an identity admits the
//! device also where no enrollment does.

use super::engine::{Tx, params};
use super::enrollment::EnrollmentRow;
use super::exclusion::{Applied, Excluded, Exclusion};
use super::hub_task::{self, HubCause, NewHubTask};
use super::repeated_deletion::services_with_hub;
use super::{StoreError, UnixSeconds, group_registrations, individual};
use crate::enrollment::roll::HubPolicy;
use crate::enrollment::slots::Slots;
use crate::ids::EnrollmentId;
use std::collections::BTreeSet;

/// Returns the services whose hubs delete the identity of an excluded device: as on record within
/// the transaction, because a reload records a new hub and queues what is in force by then.
fn deleting_hubs(tx: &Tx<'_>, new: &Exclusion) -> Result<BTreeSet<String>, StoreError> {
    match new.hub {
        HubPolicy::Delete => services_with_hub(tx),
        HubPolicy::Reprovision => Ok(BTreeSet::new()),
    }
}

/// Queues the groups that must be asked for devices that are not on record.
pub(super) fn list_registrations(
    tx: &Tx<'_>,
    new: &Exclusion,
    cause: HubCause,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    if matches!(new.subject, Excluded::Device(_)) {
        return Ok(());
    }
    for service in deleting_hubs(tx, new)? {
        group_registrations::queue(tx, cause, &service, at)?;
    }
    Ok(())
}

/// Queues the deletion of a device's identity, if the hub of this service does that. The task waits
/// for the enrollment: a device that the service still admits would come back.
pub(super) fn delete_identity(
    tx: &Tx<'_>,
    new: &Exclusion,
    cause: HubCause,
    enrollment: &EnrollmentRow,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    let Excluded::Device(device) = &new.subject else {
        return Ok(());
    };
    if !deleting_hubs(tx, new)?.contains(&enrollment.provisioning) {
        return Ok(());
    }
    let task = NewHubTask::deletion(&enrollment.provisioning, device, Some(enrollment.id));
    hub_task::queue(tx, cause, &[task], at)?;
    Ok(())
}

/// Queues the deletion of a device's identity at the hubs of services without an enrollment that
/// the exclusion changes: an enrollment that admitted the device may have been removed since.
pub(super) fn delete_without_path(
    tx: &Tx<'_>,
    new: &Exclusion,
    cause: HubCause,
    applied: &[Applied],
    at: UnixSeconds,
) -> Result<(), StoreError> {
    let Excluded::Device(device) = &new.subject else {
        return Ok(());
    };
    let has_path = |service: &String| applied.iter().any(|it| it.before.provisioning == *service);
    let hubs = deleting_hubs(tx, new)?;
    let tasks = hubs.iter().filter(|it| !has_path(it));
    let tasks = tasks.map(|service| NewHubTask::deletion(service, device, None));
    hub_task::queue(tx, cause, &Vec::from_iter(tasks), at)?;
    Ok(())
}

/// Queues the deletion of the identities of devices whose individual enrollment may hold a leaf
/// that is not on record, and that is excluded with a group or a generation: adopted enrollments,
/// and unknown ones that are being removed. No list of devices has them.
pub(super) fn delete_unknown(
    tx: &Tx<'_>,
    new: &Exclusion,
    cause: HubCause,
    applied: &[Applied],
    at: UnixSeconds,
) -> Result<(), StoreError> {
    let is_of_group = match &new.subject {
        Excluded::Device(_) => return Ok(()),
        Excluded::Group(_) => true,
        Excluded::Generation(..) => false,
    };
    let changed: BTreeSet<EnrollmentId> = applied.iter().map(|it| it.before.id).collect();
    let services: BTreeSet<&str> = applied
        .iter()
        .map(|it| it.before.provisioning.as_str())
        .collect();
    let hubs = deleting_hubs(tx, new)?;
    for row in individual::with_unknown_leaves(tx)? {
        let service = row.provisioning.as_str();
        let is_removed = row.slots == Slots::Empty && (!is_of_group || services.contains(service));
        if hubs.contains(service) && (is_removed || changed.contains(&row.id)) {
            let task = NewHubTask::deletion(service, &row.name, Some(row.id));
            hub_task::queue(tx, cause, &[task], at)?;
        }
    }
    Ok(())
}

/// Returns the exclusions in force of groups, generations and authorities that may concern a device
/// of this service which is not on record.
pub(super) fn causes_in_force(tx: &Tx<'_>, service: &str) -> Result<Vec<HubCause>, StoreError> {
    let sql = "SELECT 'roll', id FROM roll
             WHERE authority IS NOT NULL AND reason = 'compromise' AND parent IS NULL
         UNION ALL SELECT 'block', id FROM block
             WHERE lifted_at IS NULL AND (kind = 'generation' OR kind = 'group' AND EXISTS (
                 SELECT 1 FROM json_each(block.restricted) its
                 WHERE its.value ->> '$.provisioning' = ?1))";
    tx.query_all(sql, params![service], |row| {
        Ok(HubCause::of(row.get(0)?, row.get(1)?))
    })
}

/// Queues the deletion of the identity of a device whose unknown enrollment is being removed, for
/// each exclusion at its service that may concern it.
pub(super) fn delete_for_all(
    tx: &Tx<'_>,
    service: &str,
    device: &str,
    enrollment: EnrollmentId,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    for cause in causes_in_force(tx, service)? {
        let task = NewHubTask::deletion(service, device, Some(enrollment));
        hub_task::queue(tx, cause, &[task], at)?;
    }
    Ok(())
}

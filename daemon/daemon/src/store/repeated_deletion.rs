//! Queues again what the exclusions in force delete at the hub of a service.
//!
//! An answered deletion says nothing about later. A hub that was not configured was never asked;
//! and where another program has undone an exclusion, or an enrollment came later, the device may
//! have registered again. A repeated task waits for the enrollment that excludes again.

use super::block::{self, BlockKind};
use super::compromise::of_authority_and_below;
use super::engine::dialect::values_of_1;
use super::engine::{Tx, params};
use super::enrollment::{self, EnrollmentKind, EnrollmentRow};
use super::excluded_identity::{causes_in_force, delete_for_all};
use super::hierarchy;
use super::hub_task::{self, HubCause, NewHubTask};
use super::json::to_json;
use super::roll::{RollRow, RollSubject, roll_rows};
use super::{
    Store, StoreError, UnixSeconds, fleet_queries, group_registrations, individual, new_enrollment,
};
use crate::enrollment::history::History;
use crate::enrollment::roll::{HubPolicy, LeafDetail};
use crate::enrollment::slots::Slots;
use crate::ids::{EnrollmentId, GenerationId};
use std::collections::BTreeSet;

/// The most devices of one roll that are queued.
const DEVICES_MAX: u32 = 1_000_000;

impl Store {
    /// Returns the services that have a hub by the last start or reload. An exclusion queues its
    /// deletions there: a reload records a new hub before the next configuration is in use.
    pub fn services_with_hub(&self) -> Result<BTreeSet<String>, StoreError> {
        self.read(services_with_hub)
    }

    /// Records which services have a hub. Where one has come, queues the deletions of all
    /// exclusions in force. Returns whether one has come.
    pub fn record_hubs(
        &self,
        services: BTreeSet<String>,
        at: UnixSeconds,
    ) -> Result<bool, StoreError> {
        let known = self.services_with_hub()?;
        if known == services {
            return Ok(false);
        }
        self.write(move |tx| {
            let sql = concat!(
                "UPDATE service_load SET hub = 0 WHERE provisioning NOT IN ",
                values_of_1!()
            );
            tx.execute(sql, params![serde_json::json!(services).to_string()])?;
            for service in services.difference(&known) {
                tx.execute(
                    "INSERT INTO service_load (provisioning, hub) VALUES (?1, 1)
                     ON CONFLICT (provisioning) DO UPDATE SET hub = 1",
                    params![service],
                )?;
                at_service(tx, service, None, at)?;
            }
            Ok(services.difference(&known).next().is_some())
        })
    }

    /// Does [`record_attempt`](Store::record_attempt) for an enrollment that excludes, and that
    /// another program has changed: what it excludes may have registered since.
    pub fn record_repair(
        &self,
        row: &EnrollmentRow,
        history: &History,
        at: UnixSeconds,
    ) -> Result<(), StoreError> {
        let row = row.clone();
        let history = to_json(history)?;
        self.write(move |tx| {
            let sql = "UPDATE enrollment SET history = ?2 WHERE id = ?1";
            tx.execute(sql, params![row.id, history])?;
            match row.kind {
                EnrollmentKind::Individual => {
                    of_device(tx, &row.provisioning, &row.name, Some(row.id), at)
                }
                EnrollmentKind::Group => at_service(tx, &row.provisioning, Some(row.id), at),
            }
        })
    }

    /// Returns the services with open deletions for one of these causes, all of one kind, or with
    /// identities in a hub that is not configured or that nothing names; with `device`, those of
    /// this device alone.
    pub fn services_with_deletions(
        &self,
        causes: &[HubCause],
        device: Option<&str>,
    ) -> Result<BTreeSet<String>, StoreError> {
        let Some((kind, _)) = causes.first().map(|it| it.columns()) else {
            return Ok(BTreeSet::new());
        };
        let ids: Vec<i64> = causes.iter().map(|it| it.columns().1).collect();
        let ids = serde_json::json!(ids).to_string();
        let sql = concat!(
            "SELECT DISTINCT provisioning FROM hub_task
             WHERE action = 'delete'
               AND (done_at IS NULL OR hub IS NOT NULL OR outcome = 'unknown') AND cause_id IN ",
            values_of_1!(),
            " AND cause = ?2 AND (?3 IS NULL OR device = ?3)"
        );
        let services =
            self.read(|tx| tx.query_all(sql, params![ids, kind, device], |row| row.get(0)))?;
        Ok(services.into_iter().collect())
    }

    /// Returns whether a compromise of this device is in force.
    pub fn is_compromised(&self, device: &str, now: UnixSeconds) -> Result<bool, StoreError> {
        self.read(|tx| new_enrollment::is_compromised(tx, device, now))
    }
}

pub(super) fn services_with_hub(tx: &Tx<'_>) -> Result<BTreeSet<String>, StoreError> {
    let sql = "SELECT provisioning FROM service_load WHERE hub = 1";
    let services = tx.query_all(sql, params![], |row| row.get(0))?;
    Ok(services.into_iter().collect())
}

/// Queues the deletions of every exclusion in force at a service, once `after` was observed as
/// desired. Blocks of groups and generations go through their devices again.
pub(super) fn at_service(
    tx: &Tx<'_>,
    service: &str,
    after: Option<EnrollmentId>,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    if !has_hub(tx, service)? {
        return Ok(());
    }
    for device in new_enrollment::excluded_devices(tx, at)? {
        of_device(tx, service, &device, after, at)?;
    }
    repeat(tx, service, None, after, at)?;
    for roll in authority_rolls(tx, at)? {
        clear(tx, service, &roll, after, at)?;
    }
    for cause in causes_in_force(tx, service)? {
        if let HubCause::Block(block) = cause {
            let sql = "UPDATE block SET reached = '' WHERE id = ?1";
            tx.execute(sql, params![block])?;
        }
        group_registrations::queue(tx, cause, service, at)?;
    }
    for row in individual::with_unknown_leaves(tx)? {
        let is_excluded = !row.enabled || row.slots == Slots::Empty;
        if row.provisioning == service && is_excluded {
            delete_for_all(tx, service, &row.name, row.id, at)?;
        }
    }
    Ok(())
}

/// Queues the deletions of one device for its own exclusions and for others that have found it,
/// once its own enrollment, or else `after`, was observed as desired.
pub(super) fn of_device(
    tx: &Tx<'_>,
    service: &str,
    device: &str,
    after: Option<EnrollmentId>,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    if !has_hub(tx, service)? {
        return Ok(());
    }
    let own = enrollment::individual(tx, device)?;
    let own = own.iter().find(|it| it.provisioning == service);
    let own = own.map(|it| it.id);
    let task = [NewHubTask::deletion(service, device, own.or(after))];
    for cause in causes_of_device(tx, device, own, at)? {
        hub_task::queue(tx, cause, &task, at)?;
    }
    repeat(tx, service, Some(device), own.or(after), at)
}

/// Queues the deletion of a device that has no enrollment at a service any more.
pub(super) fn without_roll(
    tx: &Tx<'_>,
    service: &str,
    device: &str,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    if !has_hub(tx, service)? {
        return Ok(());
    }
    let task = [NewHubTask::deletion(service, device, None)];
    for cause in causes_of_device(tx, device, None, at)? {
        hub_task::queue(tx, cause, &task, at)?;
    }
    Ok(())
}

fn has_hub(tx: &Tx<'_>, service: &str) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM service_load WHERE provisioning = ?1 AND hub = 1)";
    tx.query_one(sql, params![service], |row| row.get(0))
}

/// A compromise that leaves the identity in place asks for no deletion.
fn causes_of_device(
    tx: &Tx<'_>,
    device: &str,
    own: Option<EnrollmentId>,
    at: UnixSeconds,
) -> Result<Vec<HubCause>, StoreError> {
    let block = block::active(tx, BlockKind::Device, device, None)?;
    let mut causes = Vec::from_iter(block.map(HubCause::Block));
    if !new_enrollment::is_compromised(tx, device, at)? {
        return Ok(causes);
    }
    let condition = "WHERE e.kind = 'individual' AND e.name = ?1 AND r.reason = 'compromise'
         ORDER BY r.id";
    let mut rolls = roll_rows(tx, condition, params![device])?;
    let keeps = |it: &RollRow| {
        let detail = serde_json::from_value::<LeafDetail>(it.detail.clone());
        detail.is_ok_and(|it| it.hub == Some(HubPolicy::Reprovision))
    };
    if !rolls.last().is_some_and(keeps) {
        causes.push(HubCause::Device);
    }
    let is_own =
        |it: &RollRow| matches!(it.subject, RollSubject::Enrollment { id, .. } if Some(id) == own);
    rolls.retain(|it| is_own(it) && !keeps(it));
    causes.extend(rolls.iter().map(|it| HubCause::Roll(it.id)));
    Ok(causes)
}

/// Repeats the tasks on record of blocks in force and of compromised authorities.
fn repeat(
    tx: &Tx<'_>,
    service: &str,
    device: Option<&str>,
    after: Option<EnrollmentId>,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    let sql = "SELECT t.cause, t.cause_id, t.device FROM hub_task t
         WHERE t.provisioning = ?1 AND t.action = 'delete' AND (?2 IS NULL OR t.device = ?2)
           AND (t.cause = 'block' AND EXISTS (
                 SELECT 1 FROM block b WHERE b.id = t.cause_id AND b.lifted_at IS NULL)
             OR t.cause = 'roll' AND EXISTS (
                 SELECT 1 FROM roll r WHERE r.id = t.cause_id AND r.authority IS NOT NULL))
         ORDER BY t.id";
    let tasks = tx.query_all(sql, params![service, device], |row| {
        let cause = HubCause::of(row.get(0)?, row.get(1)?);
        Ok((cause, row.get::<String>(2)?))
    })?;
    for (cause, device) in tasks {
        let task = NewHubTask::deletion(service, &device, after);
        hub_task::queue(tx, cause, &[task], at)?;
    }
    Ok(())
}

/// Returns the compromises of authorities whose certificate has not expired. While a roll excludes,
/// it has yet to queue its deletions, and may have read the hubs before.
fn authority_rolls(tx: &Tx<'_>, at: UnixSeconds) -> Result<Vec<RollRow>, StoreError> {
    let condition = "WHERE r.authority IS NOT NULL AND r.reason = 'compromise'
           AND r.state <> 'aborted' AND r.old_generation IN (
             SELECT g.id FROM generation g JOIN intent i ON i.id = g.certificate
             WHERE i.not_after >= ?1)
         ORDER BY r.id";
    roll_rows(tx, condition, params![at])
}

/// Queues the deletions of all devices of a compromised authority, but for those of rolls below.
fn clear(
    tx: &Tx<'_>,
    service: &str,
    roll: &RollRow,
    after: Option<EnrollmentId>,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    let hierarchy = hierarchy::all(tx)?;
    let cleared_below = roll.detail["cleared_below"].clone();
    let cleared_below: BTreeSet<GenerationId> =
        serde_json::from_value(cleared_below).unwrap_or_default();
    let all = of_authority_and_below(roll.subject.name(), &hierarchy);
    let generations = Vec::from_iter(all.difference(&cleared_below).copied());
    let strangers = roll.parent.is_none();
    let devices = fleet_queries::devices_to_clear(tx, &generations, strangers, DEVICES_MAX)?;
    let tasks = devices
        .iter()
        .map(|it| NewHubTask::deletion(service, it, after));
    hub_task::queue(tx, HubCause::Roll(roll.id), &Vec::from_iter(tasks), at)?;
    Ok(())
}

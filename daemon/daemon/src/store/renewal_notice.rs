//! Announces new leaves to the devices of groups, outside of any roll.
//!
//! A renewal of an individually enrolled device is a roll, which notifies it. Under a group nothing
//! changes at the service, so the renewal itself is the cause of the call. Renewals are found by
//! the ids of their intents, after they were recorded: issuing does no work for it.

use super::access_path::groups_admitting;
use super::engine::{Tx, params};
use super::enrollment::individual;
use super::hub_progress::HubProgress;
use super::hub_task::{self, HubAction, HubCause, NewHubTask};
use super::{Store, StoreError, UnixSeconds};
use crate::ids::IntentId;
use std::collections::BTreeSet;

/// The most renewals that are announced in one transaction.
const ANNOUNCED_MAX: usize = 100;

/// Renewals that were recorded, in the order of their intents.
struct Renewals {
    /// The intent and the device of each.
    found: Vec<(IntentId, String)>,
    /// The last intent that was checked.
    until: IntentId,
}

impl Store {
    /// Ends the announcing of renewals: those until it begins again are not announced.
    pub fn stop_renewal_notices(&self) -> Result<(), StoreError> {
        if self.read(announced)?.is_none() {
            return Ok(());
        }
        self.write(|tx| {
            tx.execute("DELETE FROM renewal_notice", params![])
                .map(drop)
        })
    }

    /// Returns the progress of the calls that announce a device's current leaf, if there are any.
    pub fn renewal_progress(&self, device: &str) -> Result<Option<HubProgress>, StoreError> {
        let sql = "SELECT certificate FROM device WHERE registration_id = ?1";
        let current: Option<IntentId> =
            self.read(|tx| tx.query_optional(sql, params![device], |row| row.get(0)))?;
        let progress = current.map(|it| self.hub_progress(HubCause::Renewal(it), None));
        Ok(progress.transpose()?.filter(|it| it.total > 0))
    }

    /// Queues the calls of devices of groups that have a new leaf since the last time, at the hubs
    /// of the services among `hubs` that admit them. The first time it only notes where to begin.
    /// Returns how many calls were queued.
    pub fn announce_renewals(
        &self,
        hubs: &BTreeSet<String>,
        at: UnixSeconds,
    ) -> Result<usize, StoreError> {
        let mut queued = 0;
        loop {
            let Some(next) = self.read(next_renewals)? else {
                return Ok(queued);
            };
            let is_last = next.found.len() < ANNOUNCED_MAX;
            let hubs = hubs.clone();
            queued += self.write(move |tx| {
                let mut queued = 0;
                for (intent, device) in &next.found {
                    queued += announce(tx, *intent, device, &hubs, at)?;
                }
                tx.execute(
                    "INSERT INTO renewal_notice (only, intent) VALUES (1, ?1)
                     ON CONFLICT (only) DO UPDATE SET intent = excluded.intent",
                    params![next.until],
                )?;
                Ok(queued)
            })?;
            if is_last {
                return Ok(queued);
            }
        }
    }
}

fn announced(tx: &Tx<'_>) -> Result<Option<IntentId>, StoreError> {
    let sql = "SELECT intent FROM renewal_notice";
    tx.query_optional(sql, params![], |row| row.get(0))
}

/// Returns the next renewals, and how far they go; `None` if nothing was issued since. An intent
/// that is open may be issued later, so they end before the first one.
fn next_renewals(tx: &Tx<'_>) -> Result<Option<Renewals>, StoreError> {
    let end: Option<IntentId> = tx.query_one(
        "SELECT coalesce((SELECT min(intent) - 1 FROM open_intent),
                         (SELECT max(id) FROM intent))",
        params![],
        |row| row.get(0),
    )?;
    let Some(end) = end else {
        return Ok(None);
    };
    let Some(after) = announced(tx)? else {
        let found = Vec::new();
        return Ok(Some(Renewals { found, until: end }));
    };
    if end <= after {
        return Ok(None);
    }
    let found: Vec<(IntentId, String)> = tx.query_all(
        "SELECT i.id, d.registration_id FROM intent i JOIN device d ON d.registration_id = i.subject
         WHERE i.id > ?1 AND i.id <= ?2 AND d.certificate = i.id AND EXISTS (
             SELECT 1 FROM intent o JOIN certificate c ON c.intent = o.id
             WHERE o.subject = i.subject AND o.id < i.id
               AND o.purpose = 'leaf' AND o.role = 'device')
         ORDER BY i.id LIMIT ?3",
        params![after, end, ANNOUNCED_MAX as u32],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let is_full = found.len() == ANNOUNCED_MAX;
    let last = found.last().map(|it| it.0).filter(|_| is_full);
    let until = last.unwrap_or(end);
    Ok(Some(Renewals { found, until }))
}

/// Queues the calls for one renewal. A call of a roll that is open announces it, too; and a hub
/// whose identity of the device an exclusion has deleted has nothing to call.
fn announce(
    tx: &Tx<'_>,
    intent: IntentId,
    device: &str,
    hubs: &BTreeSet<String>,
    at: UnixSeconds,
) -> Result<usize, StoreError> {
    let is_called = "SELECT EXISTS (
         SELECT 1 FROM hub_task t WHERE t.device = ?1 AND t.provisioning = ?2
           AND (t.action = 'call' AND t.cause = 'roll' AND t.done_at IS NULL
             OR t.action = 'delete' AND t.outcome IS DISTINCT FROM 'kept' AND t.queued_at >= (
                 SELECT max(o.recorded_at) FROM intent o JOIN certificate c ON c.intent = o.id
                 WHERE o.subject = ?1 AND o.id < ?3 AND o.purpose = 'leaf')))";
    let own = individual(tx, device)?;
    let mut services = BTreeSet::new();
    for group in groups_admitting(tx, device, at)? {
        let service = group.provisioning;
        let is_own = own.iter().any(|it| it.provisioning == service);
        if group.enabled && !is_own && hubs.contains(&service) {
            services.insert(service);
        }
    }
    let mut tasks = Vec::new();
    for provisioning in services {
        if !tx.query_one(is_called, params![device, provisioning, intent], |row| {
            row.get::<bool>(0)
        })? {
            tasks.push(NewHubTask {
                provisioning,
                device: device.to_owned(),
                action: HubAction::Call,
                enrollment: None,
            });
        }
    }
    hub_task::queue(tx, HubCause::Renewal(intent), &tasks, at)
}

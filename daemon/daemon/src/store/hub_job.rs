//! Records jobs at a hub, which call many devices in one request.
//!
//! A job takes calls that are due and gets its name in one transaction, before the hub is asked. It
//! is polled until the hub has ended it and reports each device: that ends its calls. A device that
//! was not reached may be called by a later job.

use super::engine::{Tx, params};
use super::hub_answer::HubTaskEnd;
use super::hub_task::{self, NEEDED, NEEDED_NO_MORE};
use super::{Store, StoreError, UnixSeconds};
use crate::ids::{HubJobId, HubTaskId};

/// A job.
#[derive(Clone, Debug)]
pub struct HubJobRow {
    /// The job's row id.
    pub id: HubJobId,
    /// The job's id at the hub.
    pub name: String,
    pub calls: Vec<HubCall>,
    /// When it was made.
    pub made_at: UnixSeconds,
    /// How often it was polled and had not ended.
    pub attempts: i64,
}

/// One call of a job.
#[derive(Clone, Debug)]
pub struct HubCall {
    /// Row id of the task.
    pub id: HubTaskId,
    /// The device's id in the hub: that of its enrollment as last observed, or of its last
    /// registration, or its registration id.
    pub hub_device: String,
    /// How often its cause has asked for it.
    pub round: i64,
    /// When it was queued.
    pub queued_at: UnixSeconds,
}

impl Store {
    /// Makes a job called `name` from at most `devices_max` calls that are due: those of one
    /// authority's roll, or those of rolls of leaves and of renewals. Devices that need no call any
    /// more are left out. Returns false if no call is left.
    pub fn make_hub_job(
        &self,
        provisioning: String,
        name: String,
        devices_max: u32,
        now: UnixSeconds,
    ) -> Result<bool, StoreError> {
        self.write(move |tx| {
            drop_needless(tx, &provisioning, now)?;
            let calls: Vec<HubTaskId> = tx.query_all(
                "WITH due AS (
                     SELECT t.id, t.device, t.due_at, r.authority FROM hub_task t
                     LEFT JOIN roll r ON t.cause = 'roll' AND r.id = t.cause_id
                     WHERE t.done_at IS NULL AND t.provisioning = ?1 AND t.due_at <= ?2
                       AND t.action = 'call' AND t.job IS NULL)
                 SELECT min(id) FROM due
                 WHERE authority IS NOT DISTINCT FROM (
                         SELECT authority FROM due ORDER BY due_at, id LIMIT 1)
                 GROUP BY device ORDER BY min(due_at), min(id) LIMIT ?3",
                params![provisioning, now, devices_max],
                |row| row.get(0),
            )?;
            if calls.is_empty() {
                return Ok(false);
            }
            let job: HubJobId = tx.insert(
                "INSERT INTO hub_job (name, provisioning, made_at, due_at)
                 VALUES (?1, ?2, ?3, ?3) RETURNING id",
                params![name, provisioning, now],
            )?;
            for call in &calls {
                tx.execute(
                    "UPDATE hub_task SET job = ?2 WHERE id = ?1",
                    params![call, job],
                )?;
            }
            Ok(true)
        })
    }

    /// Returns the job at this service's hub that has been due longest.
    pub fn due_hub_job(
        &self,
        provisioning: &str,
        now: UnixSeconds,
    ) -> Result<Option<HubJobRow>, StoreError> {
        self.read(|tx| {
            let due = tx.query_optional(
                "SELECT id, name, made_at, attempts FROM hub_job
                 WHERE done_at IS NULL AND provisioning = ?1 AND due_at <= ?2
                 ORDER BY due_at, id LIMIT 1",
                params![provisioning, now],
                |row| {
                    Ok(HubJobRow {
                        id: row.get(0)?,
                        name: row.get(1)?,
                        calls: Vec::new(),
                        made_at: row.get(2)?,
                        attempts: row.get(3)?,
                    })
                },
            )?;
            let Some(job) = due else {
                return Ok(None);
            };
            let calls = tx.query_all(
                "SELECT t.id, coalesce(
                     (SELECT e.observed ->> '$.deviceId' FROM enrollment e
                      WHERE e.provisioning = t.provisioning AND e.kind = 'individual'
                        AND e.name = t.device),
                     (SELECT p.hub_device FROM hub_place p
                      WHERE p.provisioning = t.provisioning AND p.device = t.device),
                     t.device), t.queued_at, t.round
                 FROM hub_task t WHERE t.job = ?1 ORDER BY t.id",
                params![job.id],
                |row| {
                    Ok(HubCall {
                        id: row.get(0)?,
                        hub_device: row.get(1)?,
                        queued_at: row.get(2)?,
                        round: row.get(3)?,
                    })
                },
            )?;
            Ok(Some(HubJobRow { calls, ..job }))
        })
    }

    /// Records that a job has not ended or could not be read. It is polled again at `due_at`.
    pub fn postpone_hub_job(
        &self,
        id: HubJobId,
        due_at: UnixSeconds,
        error: Option<String>,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "UPDATE hub_job SET due_at = ?2, attempts = attempts + 1, last_error = ?3
                 WHERE id = ?1",
                params![id, due_at, error],
            )?;
            Ok(())
        })
    }

    /// Ends a job and its calls.
    pub fn end_hub_job(
        &self,
        id: HubJobId,
        ends: Vec<HubTaskEnd>,
        at: UnixSeconds,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "UPDATE hub_job SET done_at = ?2, last_error = NULL WHERE id = ?1",
                params![id, at],
            )?;
            ends.iter().try_for_each(|end| hub_task::end(tx, end, at))
        })
    }
}

fn drop_needless(tx: &Tx<'_>, provisioning: &str, now: UnixSeconds) -> Result<(), StoreError> {
    let sql = format!(
        "UPDATE hub_task AS t SET done_at = ?2, answer = ?3, reached = NULL
         WHERE t.done_at IS NULL AND t.provisioning = ?1 AND t.due_at <= ?2
           AND t.action = 'call' AND t.job IS NULL AND NOT {NEEDED}"
    );
    tx.execute(&sql, params![provisioning, now, NEEDED_NO_MORE])?;
    Ok(())
}

//! Queues tasks at hubs, one per device, and records their results.
//!
//! A task is queued in the transaction of its cause. It is idempotent. A device that several hubs
//! may know is called at each of them, until one has reached it. A task is not due while its
//! enrollment has a dirty mark: the provisioning service must exclude a device before its identity
//! is deleted, or the device would register again.

use super::engine::dialect::{from_hex, values_of_1};
use super::engine::{Row, Tx, params};
use super::hub_answer::{HubAnswer, HubTaskEnd};
use super::hub_deletion::Deletion;
use super::{Store, StoreError, UnixSeconds};
use crate::ids::{BlockId, EnrollmentId, HubJobId, HubTaskId, IntentId, RollId};
use crate::trace::{self, TraceContext};
use std::collections::BTreeSet;

/// The action of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HubAction {
    /// Delete the device's identity.
    Delete,
    /// Call a method of the device, so that it registers again.
    Call,
}

impl HubAction {
    /// The name on record.
    pub fn name(self) -> &'static str {
        match self {
            HubAction::Delete => "delete",
            HubAction::Call => "call",
        }
    }
}

/// The cause of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HubCause {
    /// A roll's row id.
    Roll(RollId),
    /// A block's row id.
    Block(BlockId),
    /// The new leaf of a device that a group admits, outside of any roll.
    Renewal(IntentId),
    /// The compromise of the task's device, at a service that has no roll of it: no enrollment
    /// admits the device there.
    Device,
}

/// The kind of a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HubCauseKind {
    Roll,
    Block,
    Renewal,
    Device,
}

impl HubCauseKind {
    /// The name on record.
    pub(super) fn name(self) -> &'static str {
        match self {
            HubCauseKind::Roll => "roll",
            HubCauseKind::Block => "block",
            HubCauseKind::Renewal => "renewal",
            HubCauseKind::Device => "device",
        }
    }
}

impl HubCause {
    /// Returns the name of its kind on record, and the row id; 0 for a device, which the task
    /// names.
    pub(super) fn columns(self) -> (&'static str, i64) {
        match self {
            HubCause::Roll(id) => (HubCauseKind::Roll.name(), id.get()),
            HubCause::Block(id) => (HubCauseKind::Block.name(), id.get()),
            HubCause::Renewal(id) => (HubCauseKind::Renewal.name(), id.get()),
            HubCause::Device => (HubCauseKind::Device.name(), 0),
        }
    }

    pub(super) fn of(kind: HubCauseKind, id: i64) -> Self {
        match kind {
            HubCauseKind::Roll => HubCause::Roll(RollId::new(id)),
            HubCauseKind::Block => HubCause::Block(BlockId::new(id)),
            HubCauseKind::Renewal => HubCause::Renewal(IntentId::new(id)),
            HubCauseKind::Device => HubCause::Device,
        }
    }
}

/// A task to queue.
#[derive(Clone, Debug)]
pub struct NewHubTask {
    /// The provisioning service to which the hub is linked.
    pub provisioning: String,
    /// The device's name in the hub.
    pub device: String,
    /// The action of a task.
    pub action: HubAction,
    /// The enrollment that must have no mark before the task is due.
    pub enrollment: Option<EnrollmentId>,
}

impl NewHubTask {
    /// Deletes the device's identity, once the change of `enrollment` was observed.
    pub(super) fn deletion(
        provisioning: &str,
        device: &str,
        enrollment: Option<EnrollmentId>,
    ) -> Self {
        Self {
            provisioning: provisioning.to_owned(),
            device: device.to_owned(),
            action: HubAction::Delete,
            enrollment,
        }
    }
}

/// A task on record.
#[derive(Clone, Debug)]
pub struct HubTaskRow {
    /// The task's row id.
    pub id: HubTaskId,
    pub provisioning: String,
    /// The device's name in the hub.
    pub device: String,
    /// The action of a task.
    pub action: HubAction,
    /// The exclusion or roll that asks for it.
    pub cause: HubCause,
    /// How often its cause has asked for it.
    pub round: i64,
    /// When it was queued.
    pub queued_at: UnixSeconds,
    /// How often it has failed.
    pub attempts: i64,
    pub last_error: Option<String>,
    /// The trace of the request that was its cause.
    pub trace: Option<TraceContext>,
    /// The hub's final answer.
    pub answer: Option<String>,
}

/// The recorded answer for a device that needs no call any more.
pub const NEEDED_NO_MORE: &str = "needed no more";

/// How long calls wait for others before the first is made, in seconds: the rolls of a fleet start
/// one by one, and its devices are called together.
const GATHER_SECONDS: i64 = 2;

/// The task `t` may be done: its enrollment has no mark.
const FREE: &str = "NOT EXISTS (SELECT 1 FROM mark m WHERE m.enrollment = t.enrollment)";

/// The block that asks for `t` is in force, and no enrollment at the service that it restricts has
/// a mark. A group by reference does not count while the service holds none of its CA certificates:
/// the service rejects the group, and admits nothing by it.
pub(super) const BLOCK_FOLLOWED: &str = concat!(
    "NOT (t.cause = 'block' AND EXISTS (
         SELECT 1 FROM block b WHERE b.id = t.cause_id AND b.lifted_at IS NOT NULL))
     AND NOT (t.cause = 'block' AND (t.cause_id, t.provisioning) IN (
         SELECT b.id, e.provisioning FROM block b, json_each(b.restricted) its
         JOIN enrollment e ON e.id = its.value ->> '$.id' AND e.name = its.value ->> '$.name'
         JOIN mark m ON m.enrollment = e.id
         WHERE b.lifted_at IS NULL AND (e.by_reference = 0 OR EXISTS (
             SELECT 1 FROM json_each(e.slots) slot JOIN certificate c ON c.sha256 = ",
    from_hex!(),
    "(slot.value)
             JOIN generation g ON g.certificate = c.intent
             JOIN ca_certificate a ON a.generation = g.id AND a.provisioning = e.provisioning
             WHERE a.observed IS NOT NULL))))"
);
const SELECT: &str = "SELECT t.id, t.provisioning, t.device, t.action, t.attempts, t.last_error, \
     t.answer, t.queued_at, t.round, t.cause, t.cause_id, t.trace FROM hub_task t";

/// The call `t` is still needed: no hub has reached the device, its roll is the last one of the
/// enrollment, and no hub was observed with the device's current leaf, which for an authority's
/// roll is by another generation than the old one. A request for that leaf ends no call: the
/// requester may be a station, and the device registers only after the call. For a renewal, its
/// leaf is the current one, is not revoked, and no hub was observed with it.
pub(super) const NEEDED: &str = "NOT EXISTS (
    SELECT 1 FROM hub_task o WHERE o.cause = t.cause AND o.cause_id = t.cause_id
        AND o.device = t.device AND o.action = t.action AND o.reached = 1)
    AND (t.cause = 'renewal' AND EXISTS (
        SELECT 1 FROM device d JOIN certificate c ON c.intent = d.certificate
        WHERE d.registration_id = t.device AND d.certificate = t.cause_id
            AND c.revoked_at IS NULL
            AND NOT EXISTS (
                SELECT 1 FROM hub_observation p
                WHERE p.device = d.registration_id AND p.certificate = c.sha256))
    OR EXISTS (
    SELECT 1 FROM roll r WHERE t.cause = 'roll' AND r.id = t.cause_id AND r.state <> 'aborted'
        AND NOT EXISTS (
            SELECT 1 FROM roll n WHERE n.enrollment = r.enrollment AND n.id > r.id
                AND n.state NOT IN ('requested', 'aborted'))
        AND NOT EXISTS (
            SELECT 1 FROM device d JOIN intent i ON i.id = d.certificate
            JOIN certificate c ON c.intent = i.id
            JOIN hub_observation p ON p.device = d.registration_id AND p.certificate = c.sha256
            WHERE d.registration_id = t.device AND i.issuer IS DISTINCT FROM r.old_generation
                AND (r.enrollment IS NULL OR p.provisioning = t.provisioning))))";

impl Store {
    /// Queues tasks for `cause`. Tasks that were queued before are repeated. Returns how many tasks
    /// are new or repeated.
    pub fn queue_hub_tasks(
        &self,
        cause: HubCause,
        tasks: Vec<NewHubTask>,
        at: UnixSeconds,
    ) -> Result<usize, StoreError> {
        self.write(move |tx| queue(tx, cause, &tasks, at))
    }

    /// Returns the tasks that are due at this service's hub, oldest first, at most `limit`. With
    /// `calls`, calls that belong to no job are included.
    pub fn due_hub_tasks(
        &self,
        provisioning: &str,
        now: UnixSeconds,
        limit: u32,
        calls: bool,
    ) -> Result<Vec<HubTaskRow>, StoreError> {
        self.read(|tx| {
            let select = format!(
                "{SELECT} WHERE t.done_at IS NULL AND t.provisioning = ?1 AND t.due_at <= ?2
                   AND (t.action = 'delete' OR ?4 AND t.job IS NULL)
                   AND {FREE} AND {BLOCK_FOLLOWED}
                 ORDER BY t.due_at, t.id LIMIT ?3"
            );
            tx.query_all(&select, params![provisioning, now, limit, calls], from_row)
        })
    }

    /// Returns when the next task or job is due at this service's hub. Tasks that wait for a mark
    /// do not count: completing the mark wakes the reconciler.
    pub fn next_hub_task(&self, provisioning: &str) -> Result<Option<UnixSeconds>, StoreError> {
        self.read(|tx| {
            let sql = format!(
                "SELECT min(due_at) FROM (
                 SELECT min(t.due_at) AS due_at FROM hub_task t
                 WHERE t.done_at IS NULL AND t.provisioning = ?1 AND t.job IS NULL AND {FREE}
                   AND {BLOCK_FOLLOWED}
                 UNION ALL
                 SELECT min(j.due_at) FROM hub_job j
                 WHERE j.done_at IS NULL AND j.provisioning = ?1)"
            );
            tx.query_one(&sql, params![provisioning], |row| row.get(0))
        })
    }

    /// Returns true if a call is still needed.
    pub fn is_call_needed(&self, id: HubTaskId) -> Result<bool, StoreError> {
        self.read(|tx| {
            let sql =
                format!("SELECT EXISTS (SELECT 1 FROM hub_task t WHERE t.id = ?1 AND {NEEDED})");
            tx.query_one(&sql, params![id], |row| row.get(0))
        })
    }

    /// Ends or postpones a task.
    pub fn end_hub_task(&self, end: HubTaskEnd, at: UnixSeconds) -> Result<(), StoreError> {
        self.write(move |tx| self::end(tx, &end, at))
    }

    /// Returns at most `limit` finished tasks that may be deleted: tasks done before `before` whose
    /// roll or block has ended, and all but the newest `keep`. Tasks of compromised devices without
    /// a roll stay: nothing else shows that the hub was cleared. So do those of identities that
    /// were not deleted, with their roll or the block in force: receipts name them.
    pub fn hub_tasks_to_forget(
        &self,
        before: UnixSeconds,
        keep: u32,
        limit: u32,
    ) -> Result<Vec<HubTaskId>, StoreError> {
        self.read(|tx| {
            tx.query_all(
                "SELECT t.id FROM hub_task t
                 WHERE t.done_at IS NOT NULL AND t.cause <> 'device'
                   AND NOT (coalesce(t.outcome, '') IN ('elsewhere', 'unknown') AND (
                     t.cause = 'roll' AND EXISTS (SELECT 1 FROM roll r WHERE r.id = t.cause_id)
                     OR t.cause = 'block' AND EXISTS (
                         SELECT 1 FROM block b WHERE b.id = t.cause_id AND b.lifted_at IS NULL)))
                   AND (
                     t.done_at < ?1 AND NOT EXISTS (
                         SELECT 1 FROM roll r WHERE t.cause = 'roll' AND r.id = t.cause_id
                           AND r.state NOT IN ('done', 'aborted'))
                       AND NOT EXISTS (
                         SELECT 1 FROM block b WHERE t.cause = 'block' AND b.id = t.cause_id
                           AND b.lifted_at IS NULL)
                     OR t.id <= (SELECT id FROM hub_task WHERE done_at IS NOT NULL
                                 ORDER BY id DESC LIMIT 1 OFFSET ?2))
                 ORDER BY t.id LIMIT ?3",
                params![before, keep, limit],
                |row| row.get(0),
            )
        })
    }

    /// Deletes finished tasks, and jobs that have no task left.
    pub fn forget_hub_tasks(&self, tasks: Vec<HubTaskId>) -> Result<(), StoreError> {
        self.write(move |tx| {
            let tasks = serde_json::json!(tasks).to_string();
            let jobs: Vec<Option<HubJobId>> = tx.query_all(
                concat!(
                    "DELETE FROM hub_task WHERE done_at IS NOT NULL AND id IN ",
                    values_of_1!(),
                    " RETURNING job"
                ),
                params![tasks],
                |row| row.get(0),
            )?;
            for job in BTreeSet::from_iter(jobs.into_iter().flatten()) {
                tx.execute(
                    "DELETE FROM hub_job WHERE id = ?1 AND done_at IS NOT NULL
                     AND NOT EXISTS (SELECT 1 FROM hub_task WHERE job = ?1)",
                    params![job],
                )?;
            }
            Ok(())
        })
    }

    /// Returns the tasks of `cause`, open ones first, at most `limit`.
    pub fn hub_tasks(&self, cause: HubCause, limit: u32) -> Result<Vec<HubTaskRow>, StoreError> {
        let (cause, id) = cause.columns();
        self.read(|tx| {
            let select = format!(
                "{SELECT} WHERE t.cause = ?1 AND t.cause_id = ?2
                 ORDER BY t.done_at IS NOT NULL, t.id LIMIT ?3"
            );
            tx.query_all(&select, params![cause, id, limit], from_row)
        })
    }
}

/// Queues tasks within the caller's transaction. A task that is done or in progress is repeated,
/// because its device may have registered in between, or got another leaf. Returns how many are new
/// or repeated.
pub(super) fn queue(
    tx: &Tx<'_>,
    cause: HubCause,
    tasks: &[NewHubTask],
    at: UnixSeconds,
) -> Result<usize, StoreError> {
    let (cause, id) = cause.columns();
    let sql = "INSERT INTO hub_task (provisioning, device, action, cause, cause_id, enrollment,
             queued_at, due_at, trace)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (cause, cause_id, provisioning, device, action) DO UPDATE SET
             done_at = NULL, answer = NULL, reached = NULL, job = NULL, outcome = NULL,
             hub = NULL, hub_device = NULL, round = round + 1,
             enrollment = coalesce(excluded.enrollment, enrollment),
             attempts = CASE WHEN done_at IS NULL THEN attempts ELSE 0 END,
             last_error = CASE WHEN done_at IS NULL THEN last_error END,
             queued_at = excluded.queued_at, trace = excluded.trace,
             due_at = CASE WHEN done_at IS NULL THEN due_at ELSE excluded.due_at END";
    let trace = trace::current().map(|it| it.to_text());
    let mut queued = 0;
    for task in tasks {
        let gathered = match task.action {
            HubAction::Delete => 0,
            HubAction::Call => GATHER_SECONDS,
        };
        queued += tx.execute(
            sql,
            params![
                task.provisioning,
                task.device,
                task.action.name(),
                cause,
                id,
                task.enrollment,
                at,
                at + gathered,
                trace
            ],
        )?;
    }
    Ok(queued)
}

/// Ends or postpones a task within the caller's transaction, unless a later round was asked for. A
/// postponed task leaves its job.
pub(super) fn end(tx: &Tx<'_>, end: &HubTaskEnd, at: UnixSeconds) -> Result<(), StoreError> {
    let HubAnswer {
        words,
        reached,
        deletion,
    } = &end.answer;
    let outcome = deletion.as_ref().map(Deletion::columns);
    match end.again_at {
        None => tx.execute(
            "UPDATE hub_task SET done_at = ?2, answer = ?3, reached = ?4,
                 outcome = ?6, hub = ?7, hub_device = ?8
             WHERE id = ?1 AND round = ?5 AND done_at IS NULL",
            params![
                end.id,
                at,
                words,
                reached,
                end.round,
                outcome.map(|it| it.0),
                outcome.and_then(|it| it.1),
                outcome.and_then(|it| it.2)
            ],
        )?,
        Some(due_at) => tx.execute(
            "UPDATE hub_task SET due_at = ?2, last_error = ?3, reached = ?4,
                 attempts = attempts + 1, job = NULL
             WHERE id = ?1 AND round = ?5 AND done_at IS NULL",
            params![end.id, due_at, words, reached, end.round],
        )?,
    };
    Ok(())
}

fn from_row(row: &Row<'_>) -> Result<HubTaskRow, StoreError> {
    let trace: Option<String> = row.get(11)?;
    Ok(HubTaskRow {
        trace: trace.as_deref().and_then(TraceContext::from_text),
        id: row.get(0)?,
        provisioning: row.get(1)?,
        device: row.get(2)?,
        action: row.get(3)?,
        attempts: row.get(4)?,
        last_error: row.get(5)?,
        answer: row.get(6)?,
        queued_at: row.get(7)?,
        round: row.get(8)?,
        cause: HubCause::of(row.get(9)?, row.get(10)?),
    })
}

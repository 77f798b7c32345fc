//! What has to be done at a hub, device by device, and what became of it.
//!
//! A task is queued in the transaction of its cause and done once; done twice it does no harm. A
//! device that may be known to several hubs is called at each, until one of them has reached it. A task
//! is not due while its enrollment has a dirty mark: the provisioning service shuts a device out
//! first, or the device would come back as soon as its identity is gone.

use super::engine::dialect::values_of_1;
use super::engine::{Row, Tx, params};
use super::{Store, StoreError};
use serde::Serialize;
use std::collections::BTreeSet;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HubAction {
    /// The device's identity is deleted.
    Delete,
    /// A method of the device is called, so that it registers again.
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

/// For whom a task is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HubCause {
    /// A roll, by row id.
    Roll(i64),
    /// A block, by row id.
    Block(i64),
}

impl HubCause {
    fn columns(self) -> (&'static str, i64) {
        match self {
            HubCause::Roll(id) => ("roll", id),
            HubCause::Block(id) => ("block", id),
        }
    }
}

/// A task to queue.
#[derive(Clone, Debug)]
pub struct NewHubTask {
    /// The provisioning service, by its name in the configuration: its hub is meant.
    pub provisioning: String,
    /// The device's name in the hub.
    pub device: String,
    /// What is to be done.
    pub action: HubAction,
    /// The enrollment that must be settled first.
    pub enrollment: Option<i64>,
}

/// A task as it stands.
#[derive(Clone, Debug)]
pub struct HubTaskRow {
    /// Row id.
    pub id: i64,
    /// The provisioning service.
    pub provisioning: String,
    /// The device's name in the hub.
    pub device: String,
    /// What is to be done.
    pub action: HubAction,
    /// How often it was asked for.
    pub round: i64,
    /// Unix seconds since when.
    pub queued_at: i64,
    /// Times that it failed so far.
    pub attempts: i64,
    /// Why it failed last.
    pub last_error: Option<String>,
    /// What the hub answered in the end.
    pub answer: Option<String>,
}

/// What a hub answered to a task, for the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubAnswer {
    words: String,
    reached: Option<bool>,
}

impl HubAnswer {
    /// In the hub's words or ours; nothing is said of the device.
    pub fn said(words: impl Into<String>) -> Self {
        let words = words.into();
        Self {
            words,
            reached: None,
        }
    }

    /// The device heard the call, and answered with its own status if the hub tells it.
    pub fn heard(status: Option<i64>) -> Self {
        Self {
            words: status.map_or("answered".into(), |status| format!("answered {status}")),
            reached: Some(true),
        }
    }

    /// The device was not there to hear the call; the hub's code, if there is one.
    pub fn not_heard(code: Option<String>) -> Self {
        Self {
            words: code.map_or("offline".into(), |code| format!("offline: {code}")),
            reached: Some(false),
        }
    }

    /// Whether the device was called in vain.
    pub fn is_not_heard(&self) -> bool {
        self.reached == Some(false)
    }
}

/// What becomes of a task after an answer.
#[derive(Clone, Debug)]
pub struct HubTaskEnd {
    /// Row id.
    pub id: i64,
    /// What was asked for when the hub was called; a later round is not ended by it.
    pub round: i64,
    /// What was answered.
    pub answer: HubAnswer,
    /// Unix seconds when it is tried again; `None` if it is done.
    pub again_at: Option<i64>,
}

/// How far the tasks of one cause are. A device that is called at several hubs is several tasks and one
/// device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HubProgress {
    /// Tasks in all.
    pub total: i64,
    /// Done, whatever the answer.
    pub done: i64,
    /// Devices that heard the call, at whichever hub.
    pub told: i64,
    /// Devices that were called everywhere and heard it nowhere: for good, or when called last.
    pub offline: i64,
    /// Still to do, and failed at least once.
    pub failing: i64,
    /// Jobs by which these tasks are done, or were.
    pub jobs: i64,
    /// Of these, such as have ended.
    pub jobs_ended: i64,
}

impl HubProgress {
    /// Still to do.
    pub fn open(&self) -> i64 {
        self.total - self.done
    }
}

/// The answer on record of a device that need not be told any more.
pub const NEEDED_NO_MORE: &str = "needed no more";
/// Whether the device of the call `t` was reached at no hub, and no hub has yet to try.
const UNREACHED: &str = "t.reached = 0 AND NOT EXISTS (
    SELECT 1 FROM hub_task o WHERE o.cause = t.cause AND o.cause_id = t.cause_id
        AND o.device = t.device AND o.action = t.action
        AND (o.reached = 1 OR o.reached IS NULL AND o.done_at IS NULL))";

/// How long calls are gathered before the first is made, in seconds: a fleet's rolls begin one by
/// one, and its devices are told together.
const GATHER_SECONDS: i64 = 2;

/// Whether `t` may be done now: the enrollment that shuts out is settled, and its block not lifted.
const FREE: &str = "NOT EXISTS (SELECT 1 FROM mark m WHERE m.enrollment = t.enrollment) \
     AND NOT (t.cause = 'block' AND EXISTS (
         SELECT 1 FROM block b WHERE b.id = t.cause_id AND b.lifted_at IS NOT NULL))";
const SELECT: &str = "SELECT t.id, t.provisioning, t.device, t.action, t.attempts, t.last_error, t.answer, \
     t.queued_at, t.round FROM hub_task t";

/// Whether a device still has to hear of the roll for which `t` calls it: no hub has reached it, and
/// its own roll waits for a request, or that of an authority for a leaf which is not by the old generation.
pub(super) const NEEDED: &str = "NOT EXISTS (
    SELECT 1 FROM hub_task o WHERE o.cause = t.cause AND o.cause_id = t.cause_id
        AND o.device = t.device AND o.action = t.action AND o.reached = 1)
    AND EXISTS (
    SELECT 1 FROM roll r WHERE t.cause = 'roll' AND r.id = t.cause_id AND (
        r.enrollment IS NOT NULL AND r.state = 'requested'
        OR r.state NOT IN ('done', 'aborted') AND EXISTS (
            SELECT 1 FROM device d JOIN intent i ON i.id = d.certificate
            WHERE d.registration_id = t.device AND i.issuer = r.old_generation)))";

impl Store {
    /// Queues tasks for `cause`; calls that it has queued before are left as they are, identities are
    /// deleted anew. Returns how many are new, or to be done again.
    pub fn queue_hub_tasks(
        &self,
        cause: HubCause,
        tasks: Vec<NewHubTask>,
        at: i64,
    ) -> Result<usize, StoreError> {
        self.write(move |tx| queue(tx, cause, &tasks, at))
    }

    /// Tasks whose time has come at this service's hub, oldest first, at most `limit`; with `calls`,
    /// those that no job does are among them.
    pub fn due_hub_tasks(
        &self,
        provisioning: &str,
        now: i64,
        limit: u32,
        calls: bool,
    ) -> Result<Vec<HubTaskRow>, StoreError> {
        self.read(|tx| {
            let select = format!(
                "{SELECT} WHERE t.done_at IS NULL AND t.provisioning = ?1 AND t.due_at <= ?2
                   AND (t.action = 'delete' OR ?4 AND t.job IS NULL)
                   AND {FREE}
                 ORDER BY t.due_at, t.id LIMIT ?3"
            );
            tx.query_all(&select, params![provisioning, now, limit, calls], from_row)
        })
    }

    /// Unix seconds of the next task or job that falls due at this service's hub. Those that wait for
    /// a mark do not count: whoever settles it rings the bell.
    pub fn next_hub_task(&self, provisioning: &str) -> Result<Option<i64>, StoreError> {
        self.read(|tx| {
            let sql = format!(
                "SELECT min(due_at) FROM (
                 SELECT min(t.due_at) AS due_at FROM hub_task t
                 WHERE t.done_at IS NULL AND t.provisioning = ?1 AND t.job IS NULL AND {FREE}
                 UNION ALL
                 SELECT min(j.due_at) FROM hub_job j
                 WHERE j.done_at IS NULL AND j.provisioning = ?1)"
            );
            tx.query_one(&sql, params![provisioning], |row| row.get(0))
        })
    }

    /// Whether the device of a call still has to hear of it.
    pub fn is_call_needed(&self, id: i64) -> Result<bool, StoreError> {
        self.read(|tx| {
            let sql =
                format!("SELECT EXISTS (SELECT 1 FROM hub_task t WHERE t.id = ?1 AND {NEEDED})");
            tx.query_one(&sql, params![id], |row| row.get(0))
        })
    }

    /// The hub has answered, or could not.
    pub fn end_hub_task(&self, end: HubTaskEnd, at: i64) -> Result<(), StoreError> {
        self.write(move |tx| self::end(tx, &end, at))
    }

    /// Finished tasks that may be forgotten, at most `limit`: those done before `before` whose roll or
    /// block has ended, and whatever is more than the newest `keep`.
    pub fn hub_tasks_to_forget(
        &self,
        before: i64,
        keep: u32,
        limit: u32,
    ) -> Result<Vec<i64>, StoreError> {
        self.read(|tx| {
            tx.query_all(
                "SELECT t.id FROM hub_task t WHERE t.done_at IS NOT NULL AND (
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

    /// Forgets finished tasks, and jobs that have none left.
    pub fn forget_hub_tasks(&self, tasks: Vec<i64>) -> Result<(), StoreError> {
        self.write(move |tx| {
            let tasks = serde_json::json!(tasks).to_string();
            let jobs: Vec<Option<i64>> = tx.query_all(
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

    /// How far the tasks of `cause` are, one service or all.
    pub fn hub_progress(
        &self,
        cause: HubCause,
        provisioning: Option<&str>,
    ) -> Result<HubProgress, StoreError> {
        let (cause, id) = cause.columns();
        let sql = format!(
            "SELECT count(*), count(t.done_at),
                    count(DISTINCT t.device) FILTER (WHERE t.reached = 1),
                    count(DISTINCT t.device) FILTER (WHERE {UNREACHED}),
                    count(*) FILTER (WHERE t.done_at IS NULL AND t.attempts > 0
                                       AND t.reached IS NULL),
                    count(DISTINCT t.job), count(DISTINCT t.job) FILTER (WHERE j.done_at IS NOT NULL)
             FROM hub_task t LEFT JOIN hub_job j ON j.id = t.job
             WHERE t.cause = ?1 AND t.cause_id = ?2 AND (?3 IS NULL OR t.provisioning = ?3)"
        );
        self.read(|tx| {
            tx.query_one(&sql, params![cause, id, provisioning], |row| {
                Ok(HubProgress {
                    total: row.get(0)?,
                    done: row.get(1)?,
                    told: row.get(2)?,
                    offline: row.get(3)?,
                    failing: row.get(4)?,
                    jobs: row.get(5)?,
                    jobs_ended: row.get(6)?,
                })
            })
        })
    }

    /// The devices that the calls of `cause` have not reached, in order, at most `limit`.
    pub fn devices_not_reached(
        &self,
        cause: HubCause,
        limit: u32,
    ) -> Result<Vec<String>, StoreError> {
        let (cause, id) = cause.columns();
        let sql = format!(
            "SELECT DISTINCT t.device FROM hub_task t
             WHERE t.cause = ?1 AND t.cause_id = ?2 AND {UNREACHED} ORDER BY t.device LIMIT ?3"
        );
        self.read(|tx| tx.query_all(&sql, params![cause, id, limit], |row| row.get(0)))
    }

    /// The tasks of `cause`, those to do first, at most `limit`.
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

/// Queues tasks within the caller's transaction; an identity that was deleted is deleted once more, and
/// so is one that is being deleted now: its device may have come back before. Returns how many are
/// new, or to be done again.
pub(super) fn queue(
    tx: &Tx<'_>,
    cause: HubCause,
    tasks: &[NewHubTask],
    at: i64,
) -> Result<usize, StoreError> {
    let (cause, id) = cause.columns();
    let sql = "INSERT INTO hub_task (provisioning, device, action, cause, cause_id, enrollment,
             queued_at, due_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (cause, cause_id, provisioning, device, action) DO UPDATE SET
             done_at = NULL, answer = NULL, round = round + 1,
             attempts = CASE WHEN done_at IS NULL THEN attempts ELSE 0 END,
             last_error = CASE WHEN done_at IS NULL THEN last_error END,
             queued_at = excluded.queued_at,
             due_at = CASE WHEN done_at IS NULL THEN due_at ELSE excluded.due_at END
         WHERE action = 'delete'";
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
                at + gathered
            ],
        )?;
    }
    Ok(queued)
}

/// Ends a task, or puts it off, within the caller's transaction, unless it was asked for anew
/// meanwhile. One that a job did in vain is free for the next.
pub(super) fn end(tx: &Tx<'_>, end: &HubTaskEnd, at: i64) -> Result<(), StoreError> {
    let HubAnswer { words, reached } = &end.answer;
    match end.again_at {
        None => tx.execute(
            "UPDATE hub_task SET done_at = ?2, answer = ?3, reached = ?4
             WHERE id = ?1 AND round = ?5 AND done_at IS NULL",
            params![end.id, at, words, reached, end.round],
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
    Ok(HubTaskRow {
        id: row.get(0)?,
        provisioning: row.get(1)?,
        device: row.get(2)?,
        action: row.get(3)?,
        attempts: row.get(4)?,
        last_error: row.get(5)?,
        answer: row.get(6)?,
        queued_at: row.get(7)?,
        round: row.get(8)?,
    })
}

//! Counts the tasks of one cause, for the progress that receipts and rollovers show.

use super::engine::params;
use super::hub_task::HubCause;
use super::{Store, StoreError};
use schemars::JsonSchema;
use serde::Serialize;

/// The progress of the tasks of one cause. A device that is called at several hubs has several
/// tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct HubProgress {
    pub total: i64,
    /// Tasks whose effect was observed: the hub deleted the identity, or the device answered.
    pub done: i64,
    /// Calls that ended without an answer of the device: not needed any more, or abandoned. And
    /// deletions of identities in a hub that is not configured, or that nothing names.
    pub unanswered: i64,
    /// Devices that were reached by any hub.
    pub notified: i64,
    /// Devices that were called at every hub and reached by none.
    pub offline: i64,
    /// Open tasks that have failed at least once.
    pub failing: i64,
    /// Jobs that carry these tasks.
    pub jobs: i64,
    /// Jobs that have ended.
    pub jobs_ended: i64,
}

impl HubProgress {
    /// Returns the number of open tasks.
    pub fn open(&self) -> i64 {
        self.total - self.done - self.unanswered
    }
}

/// The device of the call `t` was reached by no hub, and no hub has yet to try.
const UNREACHED: &str = "t.reached = 0 AND NOT EXISTS (
    SELECT 1 FROM hub_task o WHERE o.cause = t.cause AND o.cause_id = t.cause_id
        AND o.device = t.device AND o.action = t.action
        AND (o.reached = 1 OR o.reached IS NULL AND o.done_at IS NULL))";

impl Store {
    /// Returns the progress of the tasks of `cause`, at one service or all.
    pub fn hub_progress(
        &self,
        cause: HubCause,
        provisioning: Option<&str>,
    ) -> Result<HubProgress, StoreError> {
        let (cause, id) = cause.columns();
        let sql = format!(
            "SELECT count(*),
                    count(*) FILTER (WHERE t.done_at IS NOT NULL
                                       AND (t.action = 'delete' AND t.hub IS NULL
                                              AND t.outcome IS DISTINCT FROM 'unknown'
                                            OR t.reached = 1)),
                    count(*) FILTER (WHERE t.done_at IS NOT NULL
                                       AND (t.action = 'call' AND t.reached IS DISTINCT FROM 1
                                            OR t.hub IS NOT NULL OR t.outcome = 'unknown')),
                    count(DISTINCT t.device) FILTER (WHERE t.reached = 1),
                    count(DISTINCT t.device) FILTER (WHERE {UNREACHED}),
                    count(*) FILTER (WHERE t.done_at IS NULL AND t.attempts > 0
                                       AND t.reached IS NULL),
                    count(DISTINCT t.job),
                    count(DISTINCT t.job) FILTER (WHERE j.done_at IS NOT NULL)
             FROM hub_task t LEFT JOIN hub_job j ON j.id = t.job
             WHERE t.cause = ?1 AND t.cause_id = ?2 AND (?3 IS NULL OR t.provisioning = ?3)"
        );
        self.read(|tx| {
            tx.query_one(&sql, params![cause, id, provisioning], |row| {
                Ok(HubProgress {
                    total: row.get(0)?,
                    done: row.get(1)?,
                    unanswered: row.get(2)?,
                    notified: row.get(3)?,
                    offline: row.get(4)?,
                    failing: row.get(5)?,
                    jobs: row.get(6)?,
                    jobs_ended: row.get(7)?,
                })
            })
        })
    }

    /// Returns the devices that the calls of `cause` have not reached, in order, at most `limit`.
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
}

//! Jobs at a hub: calls of many devices that are made in one request.
//!
//! A job is made of calls that are due, and named, in one transaction; only then is the hub asked.
//! What has come of it is read from the hub until it has ended, and ends its calls. A job says how
//! many devices answered, not which: none of them is called again for the same roll.

use super::hub_task::{JobProgress, NEEDED, NEEDED_NO_MORE};
use super::{Store, StoreError};
use rusqlite::{Connection, params};

/// A job as it stands.
#[derive(Clone, Debug)]
pub struct HubJobRow {
    /// Row id.
    pub id: i64,
    /// Its id at the hub.
    pub name: String,
    /// Whom it calls.
    pub devices: Vec<String>,
    /// Unix seconds.
    pub made_at: i64,
    /// Times that it was looked at and had not ended.
    pub attempts: i64,
}

impl Store {
    /// Makes a job called `name` of calls that are due, at most `devices_max`: those of one
    /// authority's roll, or of rolls of leaves. Whoever need not be called any more is left out.
    /// Returns whether there is one.
    pub fn make_hub_job(
        &self,
        provisioning: String,
        name: String,
        devices_max: u32,
        now: i64,
    ) -> Result<bool, StoreError> {
        self.write(move |connection| {
            drop_needless(connection, &provisioning, now)?;
            let calls: Vec<i64> = connection
                .prepare_cached(
                    "WITH due AS (
                         SELECT t.id, t.device, t.due_at, r.authority FROM hub_task t
                         JOIN roll r ON r.id = t.cause_id
                         WHERE t.done_at IS NULL AND t.provisioning = ?1 AND t.due_at <= ?2
                           AND t.action = 'call' AND t.job IS NULL AND t.cause = 'roll')
                     SELECT min(id) FROM due
                     WHERE authority IS (SELECT authority FROM due ORDER BY due_at, id LIMIT 1)
                     GROUP BY device ORDER BY min(due_at), min(id) LIMIT ?3",
                )?
                .query_map(params![provisioning, now, devices_max], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            if calls.is_empty() {
                return Ok(false);
            }
            connection.execute(
                "INSERT INTO hub_job (name, provisioning, devices, made_at, due_at)
                 VALUES (?1, ?2, ?3, ?4, ?4)",
                params![name, provisioning, calls.len() as i64, now],
            )?;
            let job = connection.last_insert_rowid();
            let mut update =
                connection.prepare_cached("UPDATE hub_task SET job = ?2 WHERE id = ?1")?;
            for call in &calls {
                update.execute(params![call, job])?;
            }
            Ok(true)
        })
    }

    /// The job at this service's hub that has been due longest.
    pub fn due_hub_job(
        &self,
        provisioning: &str,
        now: i64,
    ) -> Result<Option<HubJobRow>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, name, made_at, attempts FROM hub_job
                 WHERE done_at IS NULL AND provisioning = ?1 AND due_at <= ?2
                 ORDER BY due_at, id LIMIT 1",
            )?;
            let mut rows = statement.query(params![provisioning, now])?;
            let Some(row) = rows.next()? else {
                return Ok(None);
            };
            let id = row.get(0)?;
            let devices = connection
                .prepare_cached("SELECT device FROM hub_task WHERE job = ?1 ORDER BY id")?
                .query_map([id], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            Ok(Some(HubJobRow {
                id,
                name: row.get(1)?,
                devices,
                made_at: row.get(2)?,
                attempts: row.get(3)?,
            }))
        })
    }

    /// The job has not ended, or could not be read: look again at `due_at`.
    pub fn postpone_hub_job(
        &self,
        id: i64,
        due_at: i64,
        error: Option<String>,
    ) -> Result<(), StoreError> {
        self.write(move |connection| {
            connection.execute(
                "UPDATE hub_job SET due_at = ?2, attempts = attempts + 1, last_error = ?3
                 WHERE id = ?1",
                params![id, due_at, error],
            )?;
            Ok(())
        })
    }

    /// The job has ended: `told` devices answered. Its calls are done with it.
    pub fn settle_hub_job(&self, id: i64, told: i64, at: i64) -> Result<(), StoreError> {
        self.write(move |connection| {
            let settled = connection.execute(
                "UPDATE hub_job SET done_at = ?3, told = min(?2, devices), last_error = NULL
                 WHERE id = ?1 AND done_at IS NULL",
                params![id, told, at],
            )?;
            if settled == 1 {
                connection.execute(
                    "UPDATE hub_task SET done_at = ?2, answer = 'called by a job' WHERE job = ?1",
                    params![id, at],
                )?;
            }
            Ok(())
        })
    }
}

fn drop_needless(connection: &Connection, provisioning: &str, now: i64) -> Result<(), StoreError> {
    let sql = format!(
        "UPDATE hub_task AS t SET done_at = ?2, answer = ?3
         WHERE t.done_at IS NULL AND t.provisioning = ?1 AND t.due_at <= ?2
           AND t.action = 'call' AND t.job IS NULL AND NOT {NEEDED}"
    );
    connection
        .prepare_cached(&sql)?
        .execute(params![provisioning, now, NEEDED_NO_MORE])?;
    Ok(())
}

/// What came of the jobs that do the tasks of a cause, at one service or all.
pub(super) fn progress(
    connection: &Connection,
    cause: &str,
    id: i64,
    provisioning: Option<&str>,
) -> Result<JobProgress, StoreError> {
    Ok(connection
        .prepare_cached(
            "SELECT count(*), count(done_at), coalesce(sum(devices), 0), coalesce(sum(told), 0),
                    coalesce(sum(devices - told), 0)
             FROM hub_job WHERE id IN (
                 SELECT job FROM hub_task
                 WHERE cause = ?1 AND cause_id = ?2 AND job IS NOT NULL
                   AND (?3 IS NULL OR provisioning = ?3))",
        )?
        .query_row(params![cause, id, provisioning], |row| {
            Ok(JobProgress {
                total: row.get(0)?,
                ended: row.get(1)?,
                devices: row.get(2)?,
                told: row.get(3)?,
                not_reached: row.get(4)?,
            })
        })?)
}

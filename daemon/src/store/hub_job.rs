//! Jobs at a hub: calls of many devices that are made in one request.
//!
//! A job is made of calls that are due, and named, in one transaction; only then is the hub asked.
//! It is looked at until the hub has ended it and tells what became of each device: that ends its
//! calls, and whoever was not reached may be called again by another.

use super::hub_task::{self, HubTaskEnd, NEEDED, NEEDED_NO_MORE};
use super::{Store, StoreError};
use rusqlite::{Connection, params};

/// A job as it stands.
#[derive(Clone, Debug)]
pub struct HubJobRow {
    /// Row id.
    pub id: i64,
    /// Its id at the hub.
    pub name: String,
    /// Its calls.
    pub calls: Vec<HubCall>,
    /// Unix seconds.
    pub made_at: i64,
    /// Times that it was looked at and had not ended.
    pub attempts: i64,
}

/// One call of a job.
#[derive(Clone, Debug)]
pub struct HubCall {
    /// Row id of the task.
    pub id: i64,
    /// The device's name in the hub.
    pub device: String,
    /// How often it was asked for.
    pub round: i64,
    /// Unix seconds since when it waits.
    pub queued_at: i64,
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
                "INSERT INTO hub_job (name, provisioning, made_at, due_at) VALUES (?1, ?2, ?3, ?3)",
                params![name, provisioning, now],
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
            let calls = connection
                .prepare_cached(
                    "SELECT id, device, queued_at, round FROM hub_task WHERE job = ?1 ORDER BY id",
                )?
                .query_map([id], |row| {
                    Ok(HubCall {
                        id: row.get(0)?,
                        device: row.get(1)?,
                        queued_at: row.get(2)?,
                        round: row.get(3)?,
                    })
                })?
                .collect::<Result<_, _>>()?;
            Ok(Some(HubJobRow {
                id,
                name: row.get(1)?,
                calls,
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

    /// The job has ended, and with it its calls.
    pub fn end_hub_job(&self, id: i64, ends: Vec<HubTaskEnd>, at: i64) -> Result<(), StoreError> {
        self.write(move |connection| {
            connection.execute(
                "UPDATE hub_job SET done_at = ?2, last_error = NULL WHERE id = ?1",
                params![id, at],
            )?;
            ends.iter()
                .try_for_each(|end| hub_task::end(connection, end, at))
        })
    }
}

fn drop_needless(connection: &Connection, provisioning: &str, now: i64) -> Result<(), StoreError> {
    let sql = format!(
        "UPDATE hub_task AS t SET done_at = ?2, answer = ?3, reached = NULL
         WHERE t.done_at IS NULL AND t.provisioning = ?1 AND t.due_at <= ?2
           AND t.action = 'call' AND t.job IS NULL AND NOT {NEEDED}"
    );
    connection
        .prepare_cached(&sql)?
        .execute(params![provisioning, now, NEEDED_NO_MORE])?;
    Ok(())
}

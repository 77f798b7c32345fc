//! Dirty marks: what the reconciler has to look at, when, and what kept it from it so far.

use super::audit::{self, AuditEntry};
use super::enrollment::to_json;
use super::{Store, StoreError, possession};
use crate::enrollment::history::History;
use rusqlite::{Connection, Row, params};
use serde_json::Value;

/// What a mark is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MarkSubject {
    /// An enrollment, by row id.
    Enrollment(i64),
    /// A CA certificate, by row id.
    CaCertificate(i64),
}

/// A dirty mark as it stands.
#[derive(Clone, Debug)]
pub struct MarkRow {
    /// Row id.
    pub id: i64,
    /// What it is on.
    pub subject: MarkSubject,
    /// How many causes it has had; a mark is cleared only by whom has seen them all.
    pub version: i64,
    /// The last cause.
    pub cause: String,
    /// Unix seconds of the first cause.
    pub since: i64,
    /// Unix seconds before which it is not looked at.
    pub due_at: i64,
    /// Looks that failed since the last cause.
    pub attempts: i64,
    /// Why the last look failed.
    pub last_error: Option<String>,
    /// Rejected: not looked at again until its cause or an operator says so.
    pub parked: bool,
}

/// What the service was seen with when there was nothing left to do.
#[derive(Clone, Debug)]
pub enum Sighting {
    /// The enrollment, as it shall be.
    InPlace {
        /// What we sent and saw, this included.
        history: Box<History>,
        /// The record.
        record: Value,
    },
    /// The enrollment, as somebody else has changed it; policy says to leave it.
    Drifted {
        /// The record, if there is one.
        record: Option<Value>,
        /// The difference.
        drift: Value,
    },
    /// No enrollment or CA certificate, and none shall be.
    Gone,
    /// A CA certificate, verified.
    Verified,
}

impl Store {
    /// Marks whose time has come at this service, urgent ones first, then oldest first, at most
    /// `limit`. One that must come after another waits until that one is settled. Without
    /// `new_ones`, those of individual enrollments that were never sent are left out.
    pub fn due_marks(
        &self,
        provisioning: &str,
        now: i64,
        limit: u32,
        new_ones: bool,
    ) -> Result<Vec<MarkRow>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT m.id, m.version, m.cause, m.since, m.due_at, m.attempts, m.last_error,
                        m.parked, m.enrollment, m.ca_certificate
                 FROM mark m LEFT JOIN enrollment e ON e.id = m.enrollment
                 WHERE m.parked = 0 AND m.due_at <= ?2 AND m.provisioning = ?1
                   AND (?4 OR e.id IS NULL OR e.kind = 'group' OR e.history <> '{}' OR m.urgent)
                   AND NOT EXISTS (SELECT 1 FROM mark first WHERE first.enrollment = e.after)
                 ORDER BY NOT m.urgent, m.ca_certificate IS NULL, m.due_at, m.id LIMIT ?3",
            )?;
            let mut rows = statement.query(params![provisioning, now, limit, new_ones])?;
            let mut marks = Vec::new();
            while let Some(row) = rows.next()? {
                let subject = match row.get::<_, Option<i64>>(8)? {
                    Some(enrollment) => MarkSubject::Enrollment(enrollment),
                    None => MarkSubject::CaCertificate(row.get(9)?),
                };
                marks.extend(from_columns(row, 0, subject)?);
            }
            Ok(marks)
        })
    }

    /// Unix seconds of the next mark that falls due at this service. Those that come after another
    /// do not count: whoever settles that one looks again.
    pub fn next_due(&self, provisioning: &str) -> Result<Option<i64>, StoreError> {
        self.read(|connection| {
            Ok(connection
                .prepare_cached(
                    "SELECT min(m.due_at) FROM mark m LEFT JOIN enrollment e ON e.id = m.enrollment
                     WHERE m.parked = 0 AND m.provisioning = ?1
                       AND NOT EXISTS (SELECT 1 FROM mark first WHERE first.enrollment = e.after)",
                )?
                .query_row([provisioning], |row| row.get(0))?)
        })
    }

    /// There is nothing left to do: keeps the observation and clears the mark, unless it has had another cause since `mark` was read. Returns whether it was cleared.
    pub fn settle_mark(
        &self,
        mark: &MarkRow,
        sighting: Sighting,
        at: i64,
    ) -> Result<bool, StoreError> {
        let mark = mark.clone();
        self.write(move |connection| settle(connection, &mark, &sighting, at))
    }

    /// The look failed for now: look again at `due_at`. A newer cause is looked at without delay.
    pub fn postpone_mark(
        &self,
        mark: &MarkRow,
        due_at: i64,
        error: String,
    ) -> Result<(), StoreError> {
        let (id, version) = (mark.id, mark.version);
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE mark SET due_at = ?3, attempts = attempts + 1, last_error = ?4
                     WHERE id = ?1 AND version = ?2",
                )?
                .execute(params![id, version, due_at, error])?;
            Ok(())
        })
    }

    /// Nothing failed, but somebody else has to do something first: look again at `due_at` at the
    /// latest.
    pub fn defer_mark(&self, mark: &MarkRow, due_at: i64, reason: &str) -> Result<(), StoreError> {
        let (id, version, reason) = (mark.id, mark.version, reason.to_owned());
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE mark SET due_at = ?3, attempts = 0, last_error = ?4
                     WHERE id = ?1 AND version = ?2",
                )?
                .execute(params![id, version, due_at, reason])?;
            Ok(())
        })
    }

    /// The service rejects it: parked with the reason, which blocks no other mark.
    pub fn park_mark(
        &self,
        mark: &MarkRow,
        reason: String,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        let (id, version) = (mark.id, mark.version);
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE mark SET parked = 1, attempts = attempts + 1, last_error = ?3
                     WHERE id = ?1 AND version = ?2",
                )?
                .execute(params![id, version, reason])?;
            audit::append(connection, &entry)
        })
    }

    /// Makes waiting and parked marks due now: all, or those of one enrollment or CA certificate
    /// name. A parked proof of possession gets new attempts. Returns how many.
    pub fn retry_marks(
        &self,
        name: Option<String>,
        entry: AuditEntry,
    ) -> Result<usize, StoreError> {
        self.write(move |connection| {
            possession::restart_parked(connection, name.as_deref())?;
            let changed = connection.execute(
                "UPDATE mark SET parked = 0, due_at = ?2, attempts = 0
                 WHERE ?1 IS NULL
                    OR enrollment IN (SELECT id FROM enrollment WHERE name = ?1)
                    OR ca_certificate IN (SELECT id FROM ca_certificate WHERE name = ?1)",
                params![name, entry.at],
            )?;
            audit::append(connection, &entry)?;
            Ok(changed)
        })
    }

    /// Every mark with its subject's service and name: the push queue, oldest first.
    pub fn push_queue(&self, limit: u32) -> Result<Vec<(String, String, MarkRow)>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT m.id, m.version, m.cause, m.since, m.due_at, m.attempts, m.last_error,
                        m.parked, m.enrollment, m.ca_certificate, m.provisioning,
                        coalesce(e.name, a.name)
                 FROM mark m LEFT JOIN enrollment e ON e.id = m.enrollment
                 LEFT JOIN ca_certificate a ON a.id = m.ca_certificate
                 ORDER BY m.since, m.id LIMIT ?1",
            )?;
            let mut rows = statement.query([limit])?;
            let mut queue = Vec::new();
            while let Some(row) = rows.next()? {
                let subject = match row.get::<_, Option<i64>>(8)? {
                    Some(enrollment) => MarkSubject::Enrollment(enrollment),
                    None => MarkSubject::CaCertificate(row.get(9)?),
                };
                if let Some(mark) = from_columns(row, 0, subject)? {
                    queue.push((row.get(10)?, row.get(11)?, mark));
                }
            }
            Ok(queue)
        })
    }

    /// How many marks wait, how many are parked, and since when the oldest waits (Unix seconds).
    pub fn mark_counts(&self) -> Result<(i64, i64, Option<i64>), StoreError> {
        self.read(|connection| {
            Ok(connection
                .prepare_cached(
                    "SELECT count(*) FILTER (WHERE parked = 0),
                            count(*) FILTER (WHERE parked = 1), min(since) FROM mark",
                )?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?)
        })
    }
}

/// Marks `subject` dirty within the caller's transaction, because of `cause`.
pub(super) fn raise(
    connection: &Connection,
    subject: MarkSubject,
    cause: &str,
    at: i64,
) -> Result<(), StoreError> {
    let (table, id) = match subject {
        MarkSubject::Enrollment(id) => ("enrollment", id),
        MarkSubject::CaCertificate(id) => ("ca_certificate", id),
    };
    connection
        .prepare_cached(&format!(
            "INSERT INTO mark (provisioning, {table}, cause, since, due_at)
             SELECT provisioning, id, ?2, ?3, ?3 FROM {table} WHERE id = ?1
             ON CONFLICT ({table}) DO UPDATE SET version = version + 1, cause = excluded.cause,
                 due_at = excluded.due_at, attempts = 0, last_error = NULL, parked = 0"
        ))?
        .execute(params![id, cause, at])?;
    Ok(())
}

/// The same for a change that shuts somebody out: it goes before all others.
pub(super) fn raise_urgent(
    connection: &Connection,
    enrollment: i64,
    cause: &str,
    at: i64,
) -> Result<(), StoreError> {
    raise(connection, MarkSubject::Enrollment(enrollment), cause, at)?;
    connection
        .prepare_cached("UPDATE mark SET urgent = 1 WHERE enrollment = ?1")?
        .execute([enrollment])?;
    Ok(())
}

/// Keeps the observation, and clears the mark unless it has had another cause meanwhile.
pub(super) fn settle(
    connection: &Connection,
    mark: &MarkRow,
    sighting: &Sighting,
    at: i64,
) -> Result<bool, StoreError> {
    let cleared = connection
        .prepare_cached("DELETE FROM mark WHERE id = ?1 AND version = ?2")?
        .execute(params![mark.id, mark.version])?;
    observe(connection, mark.subject, sighting, at)?;
    Ok(cleared == 1)
}

fn observe(
    connection: &Connection,
    subject: MarkSubject,
    sighting: &Sighting,
    at: i64,
) -> Result<(), StoreError> {
    match (subject, sighting) {
        (MarkSubject::Enrollment(id), Sighting::InPlace { history, record }) => connection
            .prepare_cached(
                "UPDATE enrollment SET history = ?2, observed = ?3, observed_at = ?4, drift = NULL,
                     seen_in_scan = max(seen_in_scan, coalesce((SELECT scans FROM service_load l
                         WHERE l.provisioning = enrollment.provisioning), 0))
                 WHERE id = ?1",
            )?
            .execute(params![id, to_json(history)?, record.to_string(), at])?,
        (MarkSubject::Enrollment(id), Sighting::Drifted { record, drift }) => connection
            .prepare_cached(
                "UPDATE enrollment SET observed = ?2, observed_at = ?3, drift = ?4 WHERE id = ?1",
            )?
            .execute(params![
                id,
                record.as_ref().map(Value::to_string),
                at,
                drift.to_string()
            ])?,
        (MarkSubject::Enrollment(id), Sighting::Gone) => connection
            .prepare_cached("DELETE FROM enrollment WHERE id = ?1 AND removed = 1")?
            .execute([id])?,
        (MarkSubject::CaCertificate(id), Sighting::Gone) => connection
            .prepare_cached("DELETE FROM ca_certificate WHERE id = ?1 AND removed = 1")?
            .execute([id])?,
        (MarkSubject::Enrollment(_), Sighting::Verified) | (MarkSubject::CaCertificate(_), _) => 0,
    };
    Ok(())
}

/// A mark from eight columns that begin at `first`; `None` where a left join found none.
pub(super) fn from_columns(
    row: &Row<'_>,
    first: usize,
    subject: MarkSubject,
) -> rusqlite::Result<Option<MarkRow>> {
    let Some(id) = row.get::<_, Option<i64>>(first)? else {
        return Ok(None);
    };
    Ok(Some(MarkRow {
        id,
        subject,
        version: row.get(first + 1)?,
        cause: row.get(first + 2)?,
        since: row.get(first + 3)?,
        due_at: row.get(first + 4)?,
        attempts: row.get(first + 5)?,
        last_error: row.get(first + 6)?,
        parked: row.get(first + 7)?,
    }))
}

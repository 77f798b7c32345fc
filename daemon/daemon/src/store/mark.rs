//! Records dirty marks: what the reconciler must observe, when, and why it failed so far.

use super::audit::{self, AuditEntry};
use super::engine::dialect::greatest;
use super::engine::{Parameter, Row, Tx, params};
use super::json::to_json;
use super::{Store, StoreError, UnixSeconds, hub_observation, repeated_deletion};
use crate::enrollment::history::History;
use crate::ids::{CaCertificateId, EnrollmentId, MarkId};
use crate::trace::{self, TraceContext};
use serde_json::Value;

/// The subject of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MarkSubject {
    /// An enrollment's row id.
    Enrollment(EnrollmentId),
    /// A CA certificate's row id.
    CaCertificate(CaCertificateId),
}

/// A dirty mark.
#[derive(Clone, Debug)]
pub struct MarkRow {
    /// The mark's row id.
    pub id: MarkId,
    /// The enrollment or CA certificate.
    pub subject: MarkSubject,
    /// How many causes it has had: work done for an older cause does not clear a newer one.
    pub version: i64,
    pub cause: String,
    /// When the first cause came.
    pub since: UnixSeconds,
    /// When the reconciler observes next.
    pub due_at: UnixSeconds,
    /// Failed attempts since the last cause.
    pub attempts: i64,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// The service rejects it: it waits for a new cause or an operator.
    pub parked: bool,
    /// The trace of the request that was the last cause; read with the marks that are due.
    pub trace: Option<TraceContext>,
}

/// The state observed at the service when nothing was left to do.
#[derive(Clone, Debug)]
pub enum Observation {
    /// The enrollment as desired.
    InPlace {
        /// The states that were sent and observed, this one included.
        history: Box<History>,
        record: Value,
    },
    /// The enrollment or CA certificate as another program has changed it, and policy leaves it so.
    Drifted {
        /// The service's record of an enrollment, if it has one.
        record: Option<Value>,
        drift: Value,
    },
    /// No enrollment or CA certificate, as desired.
    Gone,
    /// A CA certificate, verified.
    Verified,
}

impl Observation {
    /// Returns the record of the enrollment, if the service has one.
    fn record(&self) -> Option<&Value> {
        match self {
            Observation::InPlace { record, .. } => Some(record),
            Observation::Drifted { record, .. } => record.as_ref(),
            Observation::Gone | Observation::Verified => None,
        }
    }

    /// Returns whether the service shows with the enrollment in which hub the device is.
    fn names_place(&self) -> bool {
        let hub = self
            .record()
            .and_then(|it| it.pointer("/registrationState/assignedHub"));
        hub.and_then(Value::as_str).is_some_and(|it| !it.is_empty())
    }

    /// Returns when the service made the enrollment, in its words; an empty text if there is none.
    fn created(&self) -> Option<&str> {
        match self.record() {
            Some(record) => record["createdDateTimeUtc"].as_str(),
            None => Some(""),
        }
    }
}

impl Store {
    /// Returns the marks that are due at this service, at most `limit`: urgent ones first, then
    /// those that have not failed, then oldest first. The mark of an enrollment that comes `after`
    /// another waits while that one has a mark. Without `new_ones`, first attempts at individual
    /// enrollments that were never observed are left out: bulk calls send them, and a scan confirms
    /// them together.
    pub fn due_marks(
        &self,
        provisioning: &str,
        now: UnixSeconds,
        limit: u32,
        new_ones: bool,
    ) -> Result<Vec<MarkRow>, StoreError> {
        self.read(|tx| {
            let marks: Vec<Option<MarkRow>> = tx.query_all(
                "SELECT m.id, m.version, m.cause, m.since, m.due_at, m.attempts, m.last_error,
                        m.parked, m.enrollment, m.ca_certificate, m.trace
                 FROM mark m LEFT JOIN enrollment e ON e.id = m.enrollment
                 WHERE m.parked = 0 AND m.due_at <= ?2 AND m.provisioning = ?1
                   AND (?4 OR e.id IS NULL OR e.kind = 'group' OR m.urgent
                        OR e.observed_at IS NOT NULL OR m.attempts > 0)
                   AND NOT EXISTS (SELECT 1 FROM mark first WHERE first.enrollment = e.after)
                 ORDER BY NOT m.urgent, m.ca_certificate IS NULL, m.attempts > 0, m.due_at, m.id
                 LIMIT ?3",
                params![provisioning, now, limit, new_ones],
                |row| {
                    let mark = from_columns(row, 0, subject_of(row, 8)?)?;
                    let trace: Option<String> = row.get(10)?;
                    let trace = trace.as_deref().and_then(TraceContext::from_text);
                    Ok(mark.map(|mark| MarkRow { trace, ..mark }))
                },
            )?;
            Ok(marks.into_iter().flatten().collect())
        })
    }

    /// Returns when the next mark is due at this service. Marks that wait for another mark do not
    /// count: completing that one wakes the reconciler.
    pub fn next_due(&self, provisioning: &str) -> Result<Option<UnixSeconds>, StoreError> {
        self.read(|tx| {
            tx.query_one(
                "SELECT min(m.due_at) FROM mark m LEFT JOIN enrollment e ON e.id = m.enrollment
                 WHERE m.parked = 0 AND m.provisioning = ?1
                   AND NOT EXISTS (SELECT 1 FROM mark first WHERE first.enrollment = e.after)",
                params![provisioning],
                |row| row.get(0),
            )
        })
    }

    /// Records the observation, and clears the mark unless it has had another cause since `mark`
    /// was read. Returns true if the mark was cleared.
    pub fn complete_mark(
        &self,
        mark: &MarkRow,
        observation: Observation,
        at: UnixSeconds,
    ) -> Result<bool, StoreError> {
        let mark = mark.clone();
        self.write(move |tx| complete(tx, &mark, &observation, at))
    }

    /// Records a failed attempt; the next is at `due_at`. A mark with a newer cause stays due.
    pub fn postpone_mark(
        &self,
        mark: &MarkRow,
        due_at: UnixSeconds,
        error: String,
    ) -> Result<(), StoreError> {
        let id = mark.id;
        let version = mark.version;
        self.write(move |tx| {
            tx.execute(
                "UPDATE mark SET due_at = ?3, attempts = attempts + 1, last_error = ?4
                 WHERE id = ?1 AND version = ?2",
                params![id, version, due_at, error],
            )?;
            Ok(())
        })
    }

    /// Defers a mark that has to wait for something else, until `due_at` at the latest. This is no
    /// failed attempt.
    pub fn defer_mark(
        &self,
        mark: &MarkRow,
        due_at: UnixSeconds,
        reason: &str,
    ) -> Result<(), StoreError> {
        let id = mark.id;
        let version = mark.version;
        let reason = reason.to_owned();
        self.write(move |tx| {
            tx.execute(
                "UPDATE mark SET due_at = ?3, attempts = 0, last_error = ?4
                 WHERE id = ?1 AND version = ?2",
                params![id, version, due_at, reason],
            )?;
            Ok(())
        })
    }

    /// Parks a mark that the service rejects. Other marks are not affected.
    pub fn park_mark(
        &self,
        mark: &MarkRow,
        reason: String,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        let id = mark.id;
        let version = mark.version;
        self.write(move |tx| {
            tx.execute(
                "UPDATE mark SET parked = 1, attempts = attempts + 1, last_error = ?3
                 WHERE id = ?1 AND version = ?2",
                params![id, version, reason],
            )?;
            audit::append(tx, &entry)
        })
    }

    /// Returns every mark with its subject's service and name, oldest first.
    pub fn push_queue(&self, limit: u32) -> Result<Vec<(String, String, MarkRow)>, StoreError> {
        self.read(|tx| {
            let queue: Vec<Option<_>> = tx.query_all(
                "SELECT m.id, m.version, m.cause, m.since, m.due_at, m.attempts, m.last_error,
                        m.parked, m.enrollment, m.ca_certificate, m.provisioning,
                        coalesce(e.name, a.name)
                 FROM mark m LEFT JOIN enrollment e ON e.id = m.enrollment
                 LEFT JOIN ca_certificate a ON a.id = m.ca_certificate
                 ORDER BY m.since, m.id LIMIT ?1",
                params![limit],
                |row| {
                    let mark = from_columns(row, 0, subject_of(row, 8)?)?;
                    mark.map(|mark| Ok((row.get(10)?, row.get(11)?, mark)))
                        .transpose()
                },
            )?;
            Ok(queue.into_iter().flatten().collect())
        })
    }

    /// Returns how many marks wait, how many are parked, and since when the oldest waits.
    pub fn mark_counts(&self) -> Result<(i64, i64, Option<UnixSeconds>), StoreError> {
        self.read(|tx| {
            tx.query_one(
                "SELECT count(*) FILTER (WHERE parked = 0),
                 count(*) FILTER (WHERE parked = 1), min(since) FROM mark",
                params![],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
        })
    }
}

/// Marks `subject` dirty within the caller's transaction, because of `cause`.
pub(super) fn raise(
    tx: &Tx<'_>,
    subject: MarkSubject,
    cause: &str,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    let (table, id): (_, &dyn Parameter) = match &subject {
        MarkSubject::Enrollment(id) => ("enrollment", id),
        MarkSubject::CaCertificate(id) => ("ca_certificate", id),
    };
    tx.execute(
        &format!(
            "INSERT INTO mark (provisioning, {table}, cause, since, due_at, trace)
             SELECT provisioning, id, ?2, ?3, ?3, ?4 FROM {table} WHERE id = ?1
             ON CONFLICT ({table}) DO UPDATE SET version = version + 1, cause = excluded.cause,
                 due_at = excluded.due_at, attempts = 0, last_error = NULL, parked = 0,
                 trace = excluded.trace"
        ),
        params![id, cause, at, trace::current().map(|it| it.to_text())],
    )?;
    Ok(())
}

/// Marks an enrollment for an exclusion: it is reconciled before all other marks.
pub(super) fn raise_urgent(
    tx: &Tx<'_>,
    enrollment: EnrollmentId,
    cause: &str,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    raise(tx, MarkSubject::Enrollment(enrollment), cause, at)?;
    tx.execute(
        "UPDATE mark SET urgent = 1 WHERE enrollment = ?1",
        params![enrollment],
    )?;
    Ok(())
}

/// Records the observation, and clears the mark unless it has had another cause since.
pub(super) fn complete(
    tx: &Tx<'_>,
    mark: &MarkRow,
    observation: &Observation,
    at: UnixSeconds,
) -> Result<bool, StoreError> {
    let cleared = tx.execute(
        "DELETE FROM mark WHERE id = ?1 AND version = ?2",
        params![mark.id, mark.version],
    )?;
    observe(tx, mark.subject, observation, at)?;
    Ok(cleared == 1)
}

fn observe(
    tx: &Tx<'_>,
    subject: MarkSubject,
    observation: &Observation,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    if let MarkSubject::Enrollment(id) = subject
        && !observation.names_place()
    {
        hub_observation::keep_place(tx, id, observation.created())?;
    }
    match (subject, observation) {
        (MarkSubject::Enrollment(id), Observation::InPlace { history, record }) => tx.execute(
            concat!(
                "UPDATE enrollment SET history = ?2, observed = ?3, observed_at = ?4, drift = NULL,
                     restored = 0,
                     seen_in_scan = ",
                greatest!(),
                "(seen_in_scan, coalesce((SELECT scans FROM service_load l
                     WHERE l.provisioning = enrollment.provisioning), 0))
                 WHERE id = ?1"
            ),
            params![id, to_json(history)?, record.to_string(), at],
        )?,
        (MarkSubject::Enrollment(id), Observation::Drifted { record, drift }) => tx.execute(
            "UPDATE enrollment SET observed = ?2, observed_at = ?3, drift = ?4 WHERE id = ?1",
            params![
                id,
                record.as_ref().map(Value::to_string),
                at,
                drift.to_string()
            ],
        )?,
        (MarkSubject::Enrollment(id), Observation::Gone) => delete(tx, id, at)?,
        (MarkSubject::CaCertificate(id), Observation::Gone) => tx.execute(
            "UPDATE ca_certificate SET gone = 1, drift = NULL WHERE id = ?1 AND removed = 1",
            params![id],
        )?,
        (MarkSubject::CaCertificate(id), Observation::Verified) => tx.execute(
            "UPDATE ca_certificate SET drift = NULL, restored = 0 WHERE id = ?1",
            params![id],
        )?,
        (MarkSubject::CaCertificate(id), Observation::Drifted { drift, .. }) => tx.execute(
            "UPDATE ca_certificate SET drift = ?2 WHERE id = ?1",
            params![id, drift.to_string()],
        )?,
        (MarkSubject::Enrollment(_), Observation::Verified)
        | (MarkSubject::CaCertificate(_), Observation::InPlace { .. }) => 0,
    };
    Ok(())
}

/// Deletes an enrollment that is gone. Its rolls go with it, so a compromise of its device asks for
/// the deletion of the identity by the device's name from then on.
fn delete(tx: &Tx<'_>, id: EnrollmentId, at: UnixSeconds) -> Result<usize, StoreError> {
    let sql = "DELETE FROM enrollment WHERE id = ?1 AND leaving = 1 RETURNING provisioning, name";
    let deleted: Option<(String, String)> =
        tx.query_optional(sql, params![id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some((service, name)) = deleted else {
        return Ok(0);
    };
    repeated_deletion::without_roll(tx, &service, &name, at)?;
    Ok(1)
}

/// Reads the subject of a mark from two columns: the enrollment's id, or the CA certificate's.
fn subject_of(row: &Row<'_>, column: usize) -> Result<MarkSubject, StoreError> {
    Ok(match row.get(column)? {
        Some(enrollment) => MarkSubject::Enrollment(enrollment),
        None => MarkSubject::CaCertificate(row.get(column + 1)?),
    })
}

/// Reads a mark from eight columns that begin at `first`; `None` where a left join found none.
pub(super) fn from_columns(
    row: &Row<'_>,
    first: usize,
    subject: MarkSubject,
) -> Result<Option<MarkRow>, StoreError> {
    let Some(id) = row.get::<Option<MarkId>>(first)? else {
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
        trace: None,
    }))
}

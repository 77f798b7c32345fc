//! Scans: which enrollments a walk over the whole service has met, and which were never sent.

use super::enrollment::{EnrollmentRow, enrollment_rows, to_json};
use super::mark::{self, MarkSubject};
use super::{EnrollmentKind, Store, StoreError};
use crate::enrollment::history::History;
use rusqlite::params;

impl Store {
    /// The number of a new scan: higher than that of any scan that has met an enrollment.
    pub fn begin_scan(&self) -> Result<i64, StoreError> {
        self.read(|connection| {
            Ok(connection.query_row(
                "SELECT coalesce(max(seen_in_scan), 0) + 1 FROM enrollment",
                [],
                |row| row.get(0),
            )?)
        })
    }

    /// The scan has met this enrollment.
    pub fn note_seen(&self, id: i64, scan: i64) -> Result<(), StoreError> {
        self.write(move |connection| {
            connection
                .prepare_cached("UPDATE enrollment SET seen_in_scan = ?2 WHERE id = ?1")?
                .execute(params![id, scan])?;
            Ok(())
        })
    }

    /// The scan came to its end: what was in place before and was not met is marked dirty.
    pub fn mark_unseen(
        &self,
        provisioning: String,
        kind: EnrollmentKind,
        scan: i64,
        at: i64,
    ) -> Result<usize, StoreError> {
        self.write(move |connection| {
            let missing: Vec<i64> = connection
                .prepare_cached(
                    "SELECT id FROM enrollment e
                     WHERE provisioning = ?1 AND kind = ?2 AND seen_in_scan < ?3 AND removed = 0
                       AND observed IS NOT NULL
                       AND NOT EXISTS (SELECT 1 FROM mark WHERE enrollment = e.id)",
                )?
                .query_map(params![provisioning, kind.name(), scan], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            for id in &missing {
                let cause = "the service does not list it any more";
                mark::raise(connection, MarkSubject::Enrollment(*id), cause, at)?;
            }
            Ok(missing.len())
        })
    }

    /// Marks one enrollment dirty, unless it is already.
    pub fn raise_mark(
        &self,
        enrollment: i64,
        cause: &'static str,
        at: i64,
    ) -> Result<(), StoreError> {
        self.write(move |connection| {
            mark::raise(connection, MarkSubject::Enrollment(enrollment), cause, at)
        })
    }

    /// Individual enrollments that wait and were never sent, oldest first.
    pub fn never_sent(
        &self,
        provisioning: &str,
        now: i64,
        limit: u32,
    ) -> Result<Vec<EnrollmentRow>, StoreError> {
        self.read(|connection| {
            enrollment_rows(
                connection,
                "WHERE e.provisioning = ?1 AND e.kind = 'individual' AND e.history = '{}'
                   AND e.removed = 0 AND m.parked = 0 AND m.due_at <= ?2
                 ORDER BY m.id LIMIT ?3",
                params![provisioning, now, limit],
            )
        })
    }

    /// [`record_attempt`](Store::record_attempt) for several, in one transaction.
    pub fn record_attempts<'a>(
        &self,
        attempts: impl Iterator<Item = (i64, &'a History)>,
    ) -> Result<(), StoreError> {
        let attempts: Vec<(i64, String)> = attempts
            .map(|(id, history)| Ok((id, to_json(history)?)))
            .collect::<Result<_, StoreError>>()?;
        self.write(move |connection| {
            let mut statement =
                connection.prepare_cached("UPDATE enrollment SET history = ?2 WHERE id = ?1")?;
            for (id, history) in &attempts {
                statement.execute(params![id, history])?;
            }
            Ok(())
        })
    }
}

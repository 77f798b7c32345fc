//! Scans: which enrollments a walk over the whole service has met, and which were never sent.

use super::enrollment::{EnrollmentRow, enrollment_rows, to_json};
use super::mark::{self, MarkRow, MarkSubject, Sighting};
use super::{EnrollmentKind, Store, StoreError};
use crate::enrollment::history::History;
use rusqlite::params;

/// What one page of a scan has shown.
#[derive(Clone, Debug, Default)]
pub struct ScannedPage {
    /// The scan's number.
    pub scan: i64,
    /// Rows that were met.
    pub seen: Vec<i64>,
    /// Rows without a mark whose record is another one than was last seen.
    pub changed: Vec<i64>,
    /// Marks whose enrollment is in place.
    pub in_place: Vec<(MarkRow, Sighting)>,
}

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

    /// The scan has met these enrollments; some were seen in place, which settles their marks as
    /// [`settle_mark`](Store::settle_mark) does, and some differ from what was last seen. Returns
    /// how many marks were cleared.
    pub fn record_page(&self, page: ScannedPage, at: i64) -> Result<usize, StoreError> {
        self.write(move |connection| {
            let mut seen = connection
                .prepare_cached("UPDATE enrollment SET seen_in_scan = ?2 WHERE id = ?1")?;
            for id in &page.seen {
                seen.execute(params![id, page.scan])?;
            }
            for id in &page.changed {
                let subject = MarkSubject::Enrollment(*id);
                mark::raise(connection, subject, "somebody else changed it", at)?;
            }
            let mut cleared = 0;
            for (mark, sighting) in &page.in_place {
                cleared += usize::from(mark::settle(connection, mark, sighting, at)?);
            }
            Ok(cleared)
        })
    }

    /// The scan came to its end: what was in place before it began (`begun_at`, Unix seconds) and was not
    /// met is marked dirty. What came into place since may be on a page that was read before.
    pub fn mark_unseen(
        &self,
        provisioning: String,
        kind: EnrollmentKind,
        scan: i64,
        begun_at: i64,
        at: i64,
    ) -> Result<usize, StoreError> {
        self.write(move |connection| {
            let missing: Vec<i64> = connection
                .prepare_cached(
                    "SELECT id FROM enrollment e
                     WHERE provisioning = ?1 AND kind = ?2 AND seen_in_scan < ?3 AND removed = 0
                       AND observed IS NOT NULL AND observed_at < ?4
                       AND NOT EXISTS (SELECT 1 FROM mark WHERE enrollment = e.id)",
                )?
                .query_map(params![provisioning, kind.name(), scan, begun_at], |row| {
                    row.get(0)
                })?
                .collect::<Result<_, _>>()?;
            for id in &missing {
                let cause = "the service does not list it any more";
                mark::raise(connection, MarkSubject::Enrollment(*id), cause, at)?;
            }
            Ok(missing.len())
        })
    }

    /// How much of its limits a service uses, whoever put it there; `None` was not counted.
    pub fn record_service_load(
        &self,
        provisioning: String,
        ca_certificates: Option<i64>,
        groups: Option<i64>,
    ) -> Result<(), StoreError> {
        self.write(move |connection| {
            connection.execute(
                "INSERT INTO service_load (provisioning, ca_certificates, groups)
                 VALUES (?1, ?2, ?3) ON CONFLICT (provisioning) DO UPDATE
                 SET ca_certificates = coalesce(?2, ca_certificates),
                     groups = coalesce(?3, groups)",
                params![provisioning, ca_certificates, groups],
            )?;
            Ok(())
        })
    }

    /// CA certificates and groups at a service: as last counted, and no fewer than are ours.
    pub fn service_load(&self, provisioning: &str) -> Result<(i64, i64), StoreError> {
        self.read(|connection| {
            Ok(connection.query_row(
                "SELECT max(coalesce((SELECT ca_certificates FROM service_load
                                      WHERE provisioning = ?1), 0),
                            (SELECT count(*) FROM ca_certificate WHERE provisioning = ?1)),
                        max(coalesce((SELECT groups FROM service_load
                                      WHERE provisioning = ?1), 0),
                            (SELECT count(*) FROM enrollment
                             WHERE provisioning = ?1 AND kind = 'group'))",
                [provisioning],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?)
        })
    }

    /// Individual enrollments that wait and were never sent, in the order of their marks, those
    /// after the mark `after`.
    pub fn never_sent(
        &self,
        provisioning: &str,
        after: i64,
        now: i64,
        limit: u32,
    ) -> Result<Vec<EnrollmentRow>, StoreError> {
        self.read(|connection| {
            enrollment_rows(
                connection,
                "WHERE m.id > ?2 AND m.provisioning = ?1 AND m.parked = 0 AND m.due_at <= ?3
                   AND e.kind = 'individual' AND e.history = '{}' AND e.removed = 0 AND m.urgent = 0
                 ORDER BY m.id LIMIT ?4",
                params![provisioning, after, now, limit],
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

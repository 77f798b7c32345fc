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

/// What a page has brought about.
#[derive(Clone, Copy, Debug, Default)]
pub struct PageEffect {
    /// Marks that were cleared.
    pub cleared: usize,
    /// Marks that were raised.
    pub raised: usize,
}

impl Store {
    /// The number of a new scan: higher than that of any before at this service.
    pub fn begin_scan(&self, provisioning: String) -> Result<i64, StoreError> {
        self.write(move |connection| {
            Ok(connection.query_row(
                "INSERT INTO service_load (provisioning, scans) VALUES (?1, 1)
                 ON CONFLICT (provisioning) DO UPDATE SET scans = scans + 1 RETURNING scans",
                [&provisioning],
                |row| row.get(0),
            )?)
        })
    }

    /// The scan has met these enrollments; some were seen in place, which settles their marks as
    /// [`settle_mark`](Store::settle_mark) does, and some differ from what was last seen, unless that was
    /// during this scan: then the page may be older.
    pub fn record_page(&self, page: ScannedPage, at: i64) -> Result<PageEffect, StoreError> {
        self.write(move |connection| {
            let mut effect = PageEffect::default();
            let mut seen_since = connection
                .prepare_cached("SELECT seen_in_scan >= ?2 FROM enrollment WHERE id = ?1")?;
            for id in &page.changed {
                if !seen_since.query_row(params![id, page.scan], |row| row.get(0))? {
                    let subject = MarkSubject::Enrollment(*id);
                    mark::raise(connection, subject, "somebody else changed it", at)?;
                    effect.raised += 1;
                }
            }
            let mut seen = connection.prepare_cached(
                "UPDATE enrollment SET seen_in_scan = max(seen_in_scan, ?2) WHERE id = ?1",
            )?;
            for id in &page.seen {
                seen.execute(params![id, page.scan])?;
            }
            for (mark, sighting) in &page.in_place {
                effect.cleared += usize::from(mark::settle(connection, mark, sighting, at)?);
            }
            Ok(effect)
        })
    }

    /// The scan came to its end: what was in place before it began and was not met is marked dirty. What
    /// came into place since may be on a page that was read before.
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

    /// Every enrollment at a service was compared with what is on record, or there was nothing to compare.
    pub fn record_scan(&self, provisioning: String, at: i64) -> Result<(), StoreError> {
        self.write(move |connection| {
            connection.execute(
                "INSERT INTO service_load (provisioning, scanned_at) VALUES (?1, ?2)
                 ON CONFLICT (provisioning) DO UPDATE SET scanned_at = ?2",
                params![provisioning, at],
            )?;
            Ok(())
        })
    }

    /// When that was, in Unix seconds; `None` if it never was.
    pub fn last_scan(&self, provisioning: &str) -> Result<Option<i64>, StoreError> {
        self.read(|connection| {
            Ok(connection.query_row(
                "SELECT max(scanned_at) FROM service_load WHERE provisioning = ?1",
                [provisioning],
                |row| row.get(0),
            )?)
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

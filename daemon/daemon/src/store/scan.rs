//! Records scans: which enrollments a list of the whole service contained, and which were never
//! sent.

use super::engine::dialect::greatest;
use super::engine::params;
use super::enrollment::{EnrollmentRow, enrollment_rows};
use super::json::to_json;
use super::mark::{self, MarkRow, MarkSubject, Observation};
use super::unknown_enrollment::{self, FoundEnrollment};
use super::{EnrollmentKind, Store, StoreError, UnixSeconds};
use crate::enrollment::history::History;
use crate::ids::{EnrollmentId, MarkId};

/// The result of one page of a scan.
#[derive(Clone, Debug, Default)]
pub struct ScannedPage {
    pub scan: i64,
    /// Enrollments on the page.
    pub seen: Vec<EnrollmentId>,
    /// Enrollments without a mark whose record differs from the last observation.
    pub changed: Vec<EnrollmentId>,
    /// Enrollments without drift whose record was not written since the last observation.
    pub unchanged: Vec<EnrollmentId>,
    /// Marks whose enrollment is as desired.
    pub in_place: Vec<(MarkRow, Observation)>,
    /// Enrollments without a row that may hold certificates of this daemon.
    pub unknown: Vec<FoundEnrollment>,
}

/// The enrollments of a service that another program has changed.
#[derive(Clone, Debug)]
pub struct DriftedEnrollments {
    pub provisioning: String,
    /// Whether they may have been changed in the period whose records a restore has lost.
    pub restored: bool,
    /// How many there are.
    pub count: i64,
    /// The name of the first one.
    pub first: String,
}

/// The changes that a page has caused.
#[derive(Clone, Copy, Debug, Default)]
pub struct PageEffect {
    /// Marks that were cleared.
    pub cleared: usize,
    /// Marks that were raised.
    pub raised: usize,
    /// Unknown enrollments that are too many to be recorded.
    pub left_out: usize,
}

impl Store {
    /// Begins a scan. Returns its number, which is higher than those of all earlier scans.
    pub fn begin_scan(&self, provisioning: String) -> Result<i64, StoreError> {
        self.write(move |tx| {
            tx.query_one(
                "INSERT INTO service_load (provisioning, scans) VALUES (?1, 1)
                 ON CONFLICT (provisioning) DO UPDATE SET scans = scans + 1 RETURNING scans",
                params![&provisioning],
                |row| row.get(0),
            )
        })
    }

    /// Records one page of a scan. Enrollments as desired complete their marks, as
    /// [`complete_mark`](Store::complete_mark) does. Enrollments that differ from the last
    /// observation are marked, unless that was during this scan: then the page may be older.
    pub fn record_page(
        &self,
        page: ScannedPage,
        at: UnixSeconds,
    ) -> Result<PageEffect, StoreError> {
        self.write(move |tx| {
            let mut effect = PageEffect::default();
            let seen_since = "SELECT seen_in_scan >= ?2 FROM enrollment WHERE id = ?1";
            for id in &page.changed {
                if !tx.query_one(seen_since, params![id, page.scan], |row| row.get(0))? {
                    let subject = MarkSubject::Enrollment(*id);
                    mark::raise(tx, subject, "changed by another program", at)?;
                    effect.raised += 1;
                }
            }
            let seen = concat!(
                "UPDATE enrollment SET seen_in_scan = ",
                greatest!(),
                "(seen_in_scan, ?2) WHERE id = ?1"
            );
            for id in &page.seen {
                tx.execute(seen, params![id, page.scan])?;
            }
            for id in &page.unchanged {
                let sql = "UPDATE enrollment SET restored = 0 WHERE id = ?1 AND restored = 1";
                tx.execute(sql, params![id])?;
            }
            for (mark, observation) in &page.in_place {
                effect.cleared += usize::from(mark::complete(tx, mark, observation, at)?);
            }
            effect.left_out = unknown_enrollment::record(tx, page.scan, &page.unknown, at)?;
            Ok(effect)
        })
    }

    /// Marks enrollments that existed before the scan and were not listed. Newer ones may have
    /// landed on a page already read. Unknown enrollments that were not listed are forgotten.
    pub fn mark_unseen(
        &self,
        provisioning: String,
        kind: EnrollmentKind,
        scan: i64,
        at: UnixSeconds,
    ) -> Result<usize, StoreError> {
        self.write(move |tx| {
            unknown_enrollment::forget_unseen(tx, &provisioning, kind, scan)?;
            let missing: Vec<EnrollmentId> = tx.query_all(
                "SELECT id FROM enrollment e
                 WHERE provisioning = ?1 AND kind = ?2 AND seen_in_scan < ?3
                   AND observed IS NOT NULL
                   AND NOT EXISTS (SELECT 1 FROM mark WHERE enrollment = e.id)",
                params![provisioning, kind.name(), scan],
                |row| row.get(0),
            )?;
            for id in &missing {
                let cause = "no longer listed by the service";
                mark::raise(tx, MarkSubject::Enrollment(*id), cause, at)?;
            }
            Ok(missing.len())
        })
    }

    /// Returns the enrollments that another program has changed, by service.
    pub fn drifted_enrollments(&self) -> Result<Vec<DriftedEnrollments>, StoreError> {
        self.read(|tx| {
            tx.query_all(
                "SELECT provisioning, restored, count(*), min(name) FROM enrollment
                 WHERE drift IS NOT NULL
                 GROUP BY provisioning, restored ORDER BY provisioning, restored",
                params![],
                |row| {
                    Ok(DriftedEnrollments {
                        provisioning: row.get(0)?,
                        restored: row.get(1)?,
                        count: row.get(2)?,
                        first: row.get(3)?,
                    })
                },
            )
        })
    }

    /// Records how much of its limits a service uses, by whatever program. `None` was not counted.
    pub fn record_service_load(
        &self,
        provisioning: String,
        ca_certificates: Option<i64>,
        groups: Option<i64>,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO service_load (provisioning, ca_certificates, groups)
                 VALUES (?1, ?2, ?3) ON CONFLICT (provisioning) DO UPDATE
                 SET ca_certificates = coalesce(?2, ca_certificates),
                     groups = coalesce(?3, groups)",
                params![provisioning, ca_certificates, groups],
            )?;
            Ok(())
        })
    }

    /// Records that every enrollment at a service was compared with the store.
    pub fn record_scan(&self, provisioning: String, at: UnixSeconds) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO service_load (provisioning, scanned_at, scanned_restore)
                 VALUES (?1, ?2, (SELECT max(id) FROM restore))
                 ON CONFLICT (provisioning) DO UPDATE
                 SET scanned_at = ?2, scanned_restore = excluded.scanned_restore",
                params![provisioning, at],
            )?;
            Ok(())
        })
    }

    /// Begins the first interval between scans of a service.
    pub fn begin_scan_interval(
        &self,
        provisioning: String,
        at: UnixSeconds,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO service_load (provisioning, scanned_at) VALUES (?1, ?2)
                 ON CONFLICT (provisioning) DO UPDATE SET scanned_at = ?2",
                params![provisioning, at],
            )?;
            Ok(())
        })
    }

    /// Returns when a scan of the service last ended; `None` if none has.
    pub fn last_scan(&self, provisioning: &str) -> Result<Option<UnixSeconds>, StoreError> {
        self.read(|tx| {
            tx.query_one(
                "SELECT max(scanned_at) FROM service_load WHERE provisioning = ?1",
                params![provisioning],
                |row| row.get(0),
            )
        })
    }

    /// Returns how many CA certificates and groups a service holds: as last counted, and no fewer
    /// than Hallmark has there.
    pub fn service_load(&self, provisioning: &str) -> Result<(i64, i64), StoreError> {
        self.read(|tx| {
            tx.query_one(
                concat!(
                    "SELECT ",
                    greatest!(),
                    "(coalesce((SELECT ca_certificates FROM service_load
                                WHERE provisioning = ?1), 0),
                      (SELECT count(*) FROM ca_certificate
                       WHERE provisioning = ?1 AND gone = 0)), ",
                    greatest!(),
                    "(coalesce((SELECT groups FROM service_load WHERE provisioning = ?1), 0),
                      (SELECT count(*) FROM enrollment
                       WHERE provisioning = ?1 AND kind = 'group'))"
                ),
                params![provisioning],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
        })
    }

    /// Returns individual enrollments that wait and were never sent, in the order of their marks,
    /// from the mark after `after`.
    pub fn never_sent(
        &self,
        provisioning: &str,
        after: MarkId,
        now: UnixSeconds,
        limit: u32,
    ) -> Result<Vec<EnrollmentRow>, StoreError> {
        self.read(|tx| {
            enrollment_rows(
                tx,
                "WHERE m.id > ?2 AND m.provisioning = ?1 AND m.parked = 0 AND m.due_at <= ?3
                   AND e.kind = 'individual' AND e.history = '{}' AND e.leaving = 0 AND m.urgent = 0
                 ORDER BY m.id LIMIT ?4",
                params![provisioning, after, now, limit],
            )
        })
    }

    /// Does [`record_attempt`](Store::record_attempt) for several enrollments in one transaction.
    pub fn record_attempts<'a>(
        &self,
        attempts: impl Iterator<Item = (EnrollmentId, &'a History)>,
    ) -> Result<(), StoreError> {
        let attempts: Vec<(EnrollmentId, String)> = attempts
            .map(|(id, history)| Ok((id, to_json(history)?)))
            .collect::<Result<_, StoreError>>()?;
        self.write(move |tx| {
            let sql = "UPDATE enrollment SET history = ?2 WHERE id = ?1";
            for (id, history) in &attempts {
                tx.execute(sql, params![id, history])?;
            }
            Ok(())
        })
    }
}

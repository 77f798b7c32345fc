//! Scans every enrollment at the service, page by page, and compares it with the record. CA
//! certificates follow (`ca_scan`).
//!
//! A scan finds enrollments that were changed or deleted outside Hallmark. It changes nothing at
//! the service: it raises marks, and the reconciler decides. A page costs one operation, so a fleet
//! of 10,000 costs 100. A scan also completes marks whose enrollment it finds in place, which
//! confirms enrollments that were created in bulk.

use super::backoff::while_the_store_fails;
use super::enrollment::observation;
use super::unknown::{found, may_be_ours};
use super::{Failure, Reconciler};
use crate::ca::{CertificateAuthority, Error};
use crate::enrollment::plan::holds;
use crate::enrollment::record::Record;
use crate::provisioning::dps::ScanKind;
use crate::provisioning::pages::Pages;
use crate::store::{EnrollmentKind, EnrollmentRow, ScannedPage, UNKNOWN_MAX};
use std::time::Duration;

/// How long after a scan that ended early the next one begins, at most.
const FAILURE_PAUSE: Duration = Duration::from_secs(300);

impl Reconciler {
    /// Scans concurrently with the reconciler: a slow scan delays no mark. Restarts and reloads do
    /// not restart the interval.
    pub(super) async fn scan_from_time_to_time(&self) {
        while_the_store_fails(&self.ca).await;
        let compared = self.count_at_start().await;
        let mut pause = self.until_next_scan().await;
        if let Err(failure) = compared {
            let service = &self.name;
            tracing::warn!(service, reason = %failure, "scan ended early, retrying");
            pause = pause.min(FAILURE_PAUSE);
        }
        loop {
            tokio::time::sleep(pause).await;
            while_the_store_fails(&self.ca).await;
            pause = match self.scan().await {
                Ok(()) => self.scan_interval,
                Err(failure) => {
                    let service = &self.name;
                    tracing::warn!(service, reason = %failure, "scan ended early, retrying");
                    self.scan_interval.min(FAILURE_PAUSE)
                }
            };
        }
    }

    /// At most the interval: a clock that was set back must not put scans off. A restore makes a
    /// scan due at once, since the service may hold what is not on record any more.
    async fn until_next_scan(&self) -> Duration {
        let name = self.name.clone();
        let passed = self.blocking(move |ca| {
            let last = ca.store().last_scan(&name)?;
            let now = ca.now();
            if !ca.store().is_compared_since_restore(&name)? {
                return Ok(i64::MAX);
            }
            if last.is_none() {
                // The first interval begins with the first start.
                ca.store().begin_scan_interval(name, now)?;
            }
            Ok(last.map_or(0, |last| now - last))
        });
        let passed = u64::try_from(passed.await.unwrap_or(0)).unwrap_or(0);
        self.scan_interval
            .saturating_sub(Duration::from_secs(passed))
    }

    /// Scans individual enrollments, then groups, then CA certificates. Enrollments are scanned
    /// although CA certificates cannot be, and the reverse.
    async fn scan(&self) -> Result<(), Failure> {
        let enrollments = self.scan_enrollments().await;
        self.scan_ca_certificates().await?;
        if enrollments? > 0 {
            let service = &self.name;
            tracing::warn!(
                service,
                max = UNKNOWN_MAX,
                "too many unknown enrollments to list"
            );
            return Ok(());
        }
        let name = self.name.clone();
        self.blocking(move |ca| Ok(ca.store().record_scan(name, ca.now())?))
            .await?;
        Ok(())
    }

    /// Returns how many unknown enrollments were too many to be recorded.
    async fn scan_enrollments(&self) -> Result<usize, Failure> {
        let individuals = self.scan_kind(EnrollmentKind::Individual).await?;
        Ok(individuals + self.scan_kind(EnrollmentKind::Group).await?)
    }

    /// Returns how many unknown enrollments were too many to be recorded.
    pub(super) async fn scan_kind(&self, kind: EnrollmentKind) -> Result<usize, Failure> {
        let asked = match kind {
            EnrollmentKind::Individual => ScanKind::Individuals,
            EnrollmentKind::Group => ScanKind::Groups,
        };
        let service = self.name.clone();
        let begun = self.blocking(move |ca| Ok(ca.store().begin_scan(service)?));
        let scan = begun.await?;
        let mut pages = Pages::of(asked);
        let mut next = None;
        let mut left_out = 0;
        loop {
            let page = self.clients.dps.scan(asked, next.as_ref()).await?;
            pages.count(&page)?;
            let service = self.name.clone();
            let records = page.records;
            let effect = self.blocking(move |ca| {
                let mut shown = ScannedPage {
                    scan,
                    ..ScannedPage::default()
                };
                for record in &records {
                    compare(ca, &service, kind, record, &mut shown)?;
                }
                Ok(ca.store().record_page(shown, ca.now())?)
            });
            let effect = effect.await?;
            left_out += effect.left_out;
            if effect.raised > 0 {
                self.wake.notify_one();
            }
            if effect.cleared > 0 {
                self.observed.notify_one();
                self.canary_wake.notify_one();
                self.hub_wake.notify_one();
            }
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        self.record_load(kind, pages.records()).await?;
        let service = self.name.clone();
        // Only a scan that came to its end can tell that something is missing.
        let missing = self.blocking(move |ca| {
            let store = ca.store();
            Ok(store.mark_unseen(service, kind, scan, ca.now())?)
        });
        if missing.await? > 0 {
            self.wake.notify_one();
        }
        Ok(left_out)
    }
}

impl Reconciler {
    /// Counts what is limited at the service: the groups that a scan has met.
    async fn record_load(&self, kind: EnrollmentKind, met: usize) -> Result<(), Failure> {
        if kind != EnrollmentKind::Group {
            return Ok(());
        }
        let service = self.name.clone();
        let groups = i64::try_from(met).ok();
        self.blocking(move |ca| Ok(ca.store().record_service_load(service, None, groups)?))
            .await?;
        Ok(())
    }

    /// Counts the groups and CA certificates at the service once at the start, and compares them
    /// with the record; every scan does, too.
    async fn count_at_start(&self) -> Result<(), Failure> {
        if let Err(failure) = self.scan_kind(EnrollmentKind::Group).await {
            let service = &self.name;
            tracing::warn!(service, reason = %failure, "group count failed");
        }
        self.scan_ca_certificates().await
    }
}

/// Compares one record with its row, and notes on `page` what that shows.
fn compare(
    ca: &CertificateAuthority,
    service: &str,
    kind: EnrollmentKind,
    record: &Record,
    page: &mut ScannedPage,
) -> Result<(), Error> {
    let Some(name) = record.id() else {
        return Ok(());
    };
    let rows = ca.store().enrollments_named(name)?;
    let ours = |row: &EnrollmentRow| row.kind == kind && row.provisioning == service;
    let Some(row) = rows.into_iter().find(ours) else {
        if may_be_ours(ca, service, record)? {
            page.unknown.push(found(service, kind, name, record));
        }
        return Ok(());
    };
    page.seen.push(row.id);
    match &row.mark {
        Some(mark) if !mark.parked => {
            let desired = ca.enrollments().desired(&row)?;
            if desired
                .as_ref()
                .is_some_and(|desired| holds(record, desired))
            {
                page.in_place
                    .push((mark.clone(), observation(desired.as_ref(), Some(record))));
            }
        }
        Some(_) => {}
        None => {
            let known = row
                .observed
                .as_ref()
                .and_then(|observed| observed["etag"].as_str());
            match known {
                Some(known) if known != record.etag().if_match() => page.changed.push(row.id),
                Some(_) if row.drift.is_none() => page.unchanged.push(row.id),
                _ => {}
            }
        }
    }
    Ok(())
}

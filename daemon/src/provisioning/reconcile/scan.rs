//! The scan: every enrollment at the service, page by page, compared with what is on record.
//!
//! It finds what nobody told us of: an enrollment that somebody else changed or deleted. It changes
//! nothing; it raises marks, and the look at the mark decides. A page costs one operation, so a
//! fleet of 10,000 is compared for 100. It also settles marks whose enrollment it sees in place,
//! which is how a bulk of new enrollments is confirmed.

use super::enrollment::sighting;
use super::{Failure, Reconciler};
use crate::ca::{CertificateAuthority, Error};
use crate::enrollment::plan::holds;
use crate::enrollment::record::Record;
use crate::provisioning::dps::ScanKind;
use crate::store::{EnrollmentKind, EnrollmentRow, ScannedPage};

impl Reconciler {
    /// Scans individual enrollments, then groups.
    pub(super) async fn scan(&self) -> Result<(), Failure> {
        self.scan_kind(EnrollmentKind::Individual).await?;
        self.scan_kind(EnrollmentKind::Group).await
    }

    pub(super) async fn scan_kind(&self, kind: EnrollmentKind) -> Result<(), Failure> {
        let asked = match kind {
            EnrollmentKind::Individual => ScanKind::Individuals,
            EnrollmentKind::Group => ScanKind::Groups,
        };
        let begun = self.blocking(|ca| Ok((ca.store().begin_scan()?, ca.now())));
        let (scan, begun_at) = begun.await?;
        let (mut next, mut met) = (None, 0);
        loop {
            let page = self.clients.dps.scan(asked, next.as_ref()).await?;
            let service = self.name.clone();
            let records = page.records;
            met += records.len();
            let settled = self.blocking(move |ca| {
                let mut shown = ScannedPage {
                    scan,
                    ..ScannedPage::default()
                };
                for record in &records {
                    compare(ca, &service, kind, record, &mut shown)?;
                }
                let raised = !shown.changed.is_empty();
                Ok((ca.store().record_page(shown, ca.now())?, raised))
            });
            let (settled, raised) = settled.await?;
            if raised {
                self.wake.notify_one();
            }
            if settled > 0 {
                self.observed.notify_one();
                self.canary_wake.notify_one();
                self.hub_wake.notify_one();
            }
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        self.record_load(kind, met).await?;
        let service = self.name.clone();
        // Only a scan that came to its end can tell that something is missing.
        let missing = self.blocking(move |ca| {
            let store = ca.store();
            Ok(store.mark_unseen(service, kind, scan, begun_at, ca.now())?)
        });
        if missing.await? > 0 {
            self.wake.notify_one();
        }
        Ok(())
    }
}

impl Reconciler {
    /// Counts what is limited at the service: CA certificates, and the groups that a scan has met.
    async fn record_load(&self, kind: EnrollmentKind, met: usize) -> Result<(), Failure> {
        if kind != EnrollmentKind::Group {
            return Ok(());
        }
        let certificates = match &self.clients.arm {
            Some(arm) => Some(arm.list().await?.len() as i64),
            None => None,
        };
        let service = self.name.clone();
        self.blocking(move |ca| {
            let groups = i64::try_from(met).ok();
            Ok(ca
                .store()
                .record_service_load(service, certificates, groups)?)
        })
        .await?;
        Ok(())
    }

    /// What others have at the service is counted once at the start, and by every scan.
    pub(super) async fn count_at_start(&self) {
        if let Err(failure) = self.scan_kind(EnrollmentKind::Group).await {
            let service = &self.name;
            tracing::warn!(service, reason = %failure, "the groups there could not be counted");
        }
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
        return Ok(());
    };
    page.seen.push(row.id);
    match &row.mark {
        Some(mark) if !mark.parked => {
            let desired = ca.desired(&row)?;
            if desired
                .as_ref()
                .is_some_and(|desired| holds(record, desired))
            {
                page.in_place
                    .push((mark.clone(), sighting(desired.as_ref(), Some(record))));
            }
        }
        Some(_) => {}
        None => {
            let known = row
                .observed
                .as_ref()
                .and_then(|observed| observed["etag"].as_str());
            if known.is_some_and(|known| known != record.etag().if_match()) {
                page.changed.push(row.id);
            }
        }
    }
    Ok(())
}

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
use crate::store::{EnrollmentKind, EnrollmentRow};

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
        let scan = self.blocking(|ca| Ok(ca.store().begin_scan()?)).await?;
        let mut next = None;
        loop {
            let page = self.clients.dps.scan(asked, next.as_ref()).await?;
            let (service, observed) = (self.name.clone(), self.observed.clone());
            self.blocking(move |ca| {
                for record in &page.records {
                    if compare(ca, &service, kind, record, scan)? {
                        observed.notify_one();
                    }
                }
                Ok(())
            })
            .await?;
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        let service = self.name.clone();
        // Only a scan that came to its end can tell that something is missing.
        self.blocking(move |ca| Ok(ca.store().mark_unseen(service, kind, scan, ca.now())?))
            .await?;
        Ok(())
    }
}

/// Compares one record with its row. Returns whether a mark was settled by it.
fn compare(
    ca: &CertificateAuthority,
    service: &str,
    kind: EnrollmentKind,
    record: &Record,
    scan: i64,
) -> Result<bool, Error> {
    let Some(name) = record.id() else {
        return Ok(false);
    };
    let rows = ca.store().enrollments_named(name)?;
    let ours = |row: &EnrollmentRow| row.kind == kind && row.provisioning == service;
    let Some(row) = rows.into_iter().find(ours) else {
        return Ok(false);
    };
    ca.store().note_seen(row.id, scan)?;
    match &row.mark {
        Some(mark) if !mark.parked => {
            let desired = ca.desired(&row)?;
            let in_place = desired
                .as_ref()
                .is_some_and(|desired| holds(record, desired));
            if !in_place {
                return Ok(false);
            }
            let sighting = sighting(desired.as_ref(), Some(record));
            Ok(ca.store().settle_mark(mark, sighting, ca.now())?)
        }
        Some(_) => Ok(false),
        None => {
            let known = row
                .observed
                .as_ref()
                .and_then(|observed| observed["etag"].as_str());
            if known.is_some_and(|known| known != record.etag().if_match()) {
                ca.store()
                    .raise_mark(row.id, "somebody else changed it", ca.now())?;
            }
            Ok(false)
        }
    }
}

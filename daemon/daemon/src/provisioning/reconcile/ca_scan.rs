//! Scans the CA certificates of the service, and compares them with the record.
//!
//! One list shows all of them (a service holds at most 25), so a scan costs one operation. It
//! changes nothing at the service: it raises marks, and the reconciler decides.

use super::{Failure, Reconciler};
use crate::provisioning::arm::NamedCaCertificate;
use crate::store::{CaCertificateRow, ScannedCaCertificate};

impl Reconciler {
    /// Compares every CA certificate, and counts them: their number is limited.
    pub(super) async fn scan_ca_certificates(&self) -> Result<(), Failure> {
        let Some(arm) = &self.clients.arm else {
            return Ok(());
        };
        let service = self.name.clone();
        let known = self.blocking(move |ca| Ok(ca.store().ca_certificates_at(&service)?));
        let known = known.await?;
        let listed = arm.list().await?;
        let service = self.name.clone();
        let marked = self.blocking(move |ca| {
            let store = ca.store();
            let count = i64::try_from(listed.len()).ok();
            store.record_service_load(service, count, None)?;
            let scanned = known.into_iter().map(|row| beside(row, &listed));
            Ok(store.record_ca_scan(scanned.collect(), ca.now())?)
        });
        if marked.await? > 0 {
            self.wake.notify_one();
        }
        Ok(())
    }
}

/// Returns a row with the certificate that is listed under its name.
fn beside(row: CaCertificateRow, listed: &[NamedCaCertificate]) -> ScannedCaCertificate {
    let found = listed
        .iter()
        .find(|it| it.name.eq_ignore_ascii_case(&row.name));
    ScannedCaCertificate {
        observed: found.map(|it| it.certificate.clone()),
        row,
    }
}

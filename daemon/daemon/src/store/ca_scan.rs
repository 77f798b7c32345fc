//! Records what services hold of CA certificates, and marks those that another program has changed.

use super::engine::{Tx, params};
use super::json::to_json;
use super::mark::{self, MarkSubject};
use super::possession::{CaCertificateRow, by_id};
use super::{Store, StoreError, UnixSeconds, new_enrollment};
use crate::enrollment::ca_certificate::ObservedCaCertificate;
use crate::enrollment::ca_drift::{self, CaCertificateDrift};
use crate::enrollment::desired::SlotCertificate;
use crate::ids::CaCertificateId;

/// The certificate that a list shows under the name of a CA certificate on record.
#[derive(Clone, Debug)]
pub struct ScannedCaCertificate {
    /// The record before the list was read.
    pub row: CaCertificateRow,
    pub observed: Option<ObservedCaCertificate>,
}

impl Store {
    /// Records what the service holds under the name of a CA certificate.
    pub fn observe_ca_certificate(
        &self,
        id: CaCertificateId,
        observed: Option<ObservedCaCertificate>,
        at: UnixSeconds,
    ) -> Result<(), StoreError> {
        self.write(move |tx| observe(tx, id, observed.as_ref(), at))
    }

    /// Compares a complete list of a service's CA certificates with the record, and marks each
    /// certificate that differs from its last observation. Returns how many were marked.
    ///
    /// A certificate whose record changed after the list was read is left out: the list may be
    /// older than that change.
    pub fn record_ca_scan(
        &self,
        scanned: Vec<ScannedCaCertificate>,
        at: UnixSeconds,
    ) -> Result<usize, StoreError> {
        self.write(move |tx| {
            let mut marked = 0;
            for it in &scanned {
                if is_unchanged(&it.row, &by_id(tx, it.row.id)?) {
                    marked += usize::from(compare(tx, it, at)?);
                }
            }
            Ok(marked)
        })
    }
}

/// Compares one listed certificate with its row. Returns true if the row was marked.
fn compare(
    tx: &Tx<'_>,
    scanned: &ScannedCaCertificate,
    at: UnixSeconds,
) -> Result<bool, StoreError> {
    let row = &scanned.row;
    let observed = scanned.observed.as_ref();
    let certificate = SlotCertificate::new(row.certificate.clone());
    let is_ours = observed.is_some_and(|it| it.is(&certificate));
    if row.gone && is_ours {
        let returned = to_json(&CaCertificateDrift::Returned)?;
        tx.execute(
            "UPDATE ca_certificate SET gone = 0, drift = ?2 WHERE id = ?1",
            params![row.id, returned],
        )?;
        raise(tx, row.id, "deleted CA certificate is there again", at)?;
        return Ok(true);
    }
    let drift = ca_drift::drift(&certificate, &row.proof, observed);
    let is_in_place = !row.removed && row.drift.is_none() && drift.is_none();
    // Nothing else would be decided: only the ETag differs.
    let is_known = match &row.drift {
        Some(CaCertificateDrift::Returned) => is_ours,
        known => known.is_some() && *known == drift,
    };
    if row.gone || is_in_place || is_known || observed == row.observed.as_ref() {
        observe(tx, row.id, observed, at)?;
        if is_in_place {
            let sql = "UPDATE ca_certificate SET restored = 0 WHERE id = ?1";
            tx.execute(sql, params![row.id])?;
        }
        return Ok(false);
    }
    raise(tx, row.id, "changed by another program", at)?;
    Ok(true)
}

fn observe(
    tx: &Tx<'_>,
    id: CaCertificateId,
    observed: Option<&ObservedCaCertificate>,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE ca_certificate SET observed = ?2, observed_at = ?3 WHERE id = ?1",
        params![id, observed.map(to_json).transpose()?, at],
    )?;
    let row = by_id(tx, id)?;
    if row.is_verified() {
        return Ok(());
    }
    new_enrollment::exclude_again(tx, &row.provisioning, at)
}

fn raise(tx: &Tx<'_>, id: CaCertificateId, cause: &str, at: UnixSeconds) -> Result<(), StoreError> {
    mark::raise(tx, MarkSubject::CaCertificate(id), cause, at)
}

/// Returns true if nothing was decided or observed since `before` was read. A row with a mark is
/// observed by the reconciler.
fn is_unchanged(before: &CaCertificateRow, now: &CaCertificateRow) -> bool {
    now.mark.is_none()
        && before.mark.is_none()
        && before.proof == now.proof
        && before.removed == now.removed
        && before.gone == now.gone
        && before.observed == now.observed
        && before.drift == now.drift
}

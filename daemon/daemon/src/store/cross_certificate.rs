//! Records the cross-certificates of roots: which generation certifies which other one.

use super::certificate::{CertificateRow, SELECT, from_row};
use super::engine::{Tx, params};
use super::{Store, StoreError};
use crate::ids::{GenerationId, IntentId};
use std::collections::BTreeSet;

/// The certificate of one generation of a root by another one. Its issuer is `certificate.issuer`.
#[derive(Clone, Debug)]
pub struct CrossRow {
    /// The generation whose key it certifies.
    pub subject: GenerationId,
    pub certificate: CertificateRow,
}

impl Store {
    /// Returns all cross-certificates, in the order in which they were issued.
    pub fn cross_certificates(&self) -> Result<Vec<CrossRow>, StoreError> {
        self.read(|tx| {
            let all = "SELECT certificate, subject FROM cross_certificate ORDER BY certificate";
            let all: Vec<(IntentId, GenerationId)> =
                tx.query_all(all, params![], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let select = format!("{SELECT} WHERE i.id = ?1");
            all.into_iter()
                .map(|(intent, subject)| {
                    let certificate = tx.query_one(&select, params![intent], from_row)?;
                    Ok(CrossRow {
                        subject,
                        certificate,
                    })
                })
                .collect()
        })
    }

    /// Returns the generations that have signed for others: a generation, a leaf or an authority
    /// elsewhere. One whose rollover was aborted has signed nothing but what tried it.
    pub fn generations_in_use(&self) -> Result<BTreeSet<GenerationId>, StoreError> {
        let sql = "SELECT g.id FROM generation g
                   WHERE EXISTS (SELECT 1 FROM generation it WHERE it.parent = g.id)
                       OR EXISTS (SELECT 1 FROM intent l WHERE l.purpose = 'leaf'
                                  AND l.issuer = g.id AND l.role IS NOT NULL)
                       OR EXISTS (SELECT 1 FROM intent s WHERE s.purpose = 'subordinate'
                                  AND s.issuer = g.id)";
        let ids = self.read(|tx| tx.query_all(sql, params![], |row| row.get(0)))?;
        Ok(ids.into_iter().collect())
    }
}

/// Records which generation a new cross-certificate certifies. Fails if its issuer has certified
/// that one before.
pub(super) fn record(
    tx: &Tx<'_>,
    certificate: IntentId,
    subject: GenerationId,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO cross_certificate (issuer, subject, certificate)
         SELECT issuer, ?2, id FROM intent WHERE id = ?1",
        params![certificate, subject],
    )?;
    Ok(())
}

/// Returns true if the generation with this key (DER SubjectPublicKeyInfo) is revoked or on hold.
pub(super) fn is_excluded(tx: &Tx<'_>, public_key: &[u8]) -> Result<bool, StoreError> {
    tx.query_one(
        "SELECT EXISTS (
             SELECT 1 FROM generation g JOIN certificate c ON c.intent = g.certificate
             WHERE g.spki = ?1 AND c.revoked_at IS NOT NULL)",
        params![public_key],
        |row| row.get(0),
    )
}

//! Records CA certificates at the provisioning services, and how far each proof of possession is.

use super::audit::{self, AuditEntry};
use super::engine::{Row, Tx, params};
use super::json::{from_json, optional_json, to_json};
use super::mark::{self, MarkRow, MarkSubject};
use super::{Store, StoreError, UnixSeconds, certificate};
use crate::der_bytes::Der;
use crate::enrollment::ca_certificate::{
    ObservedCaCertificate, PossessionProof, Stage, VerificationCode,
};
use crate::enrollment::ca_drift::CaCertificateDrift;
use crate::enrollment::desired::SlotCertificate;
use crate::ids::{CaCertificateId, GenerationId};

/// A CA certificate that a service must hold verified.
#[derive(Clone, Debug)]
pub struct CaCertificateRow {
    /// The CA certificate's row id.
    pub id: CaCertificateId,
    pub provisioning: String,
    /// Its name at the service.
    pub name: String,
    /// The generation whose certificate it is.
    pub generation: GenerationId,
    pub certificate: Der,
    /// How far the proof is.
    pub proof: PossessionProof,
    pub removed: bool,
    /// The service was observed without the removed certificate.
    pub gone: bool,
    /// The certificate under this name as last observed; `None` where there was none.
    pub observed: Option<ObservedCaCertificate>,
    /// When it was observed.
    pub observed_at: Option<UnixSeconds>,
    /// How another program has changed what was verified.
    pub drift: Option<CaCertificateDrift>,
    /// Not observed as desired since a restore, and not retried by an operator: what differs may be
    /// from the lost period.
    pub restored: bool,
    /// The dirty mark, if it has one.
    pub mark: Option<MarkRow>,
}

impl CaCertificateRow {
    /// Returns true if the service was last observed to hold this certificate verified.
    pub fn is_verified(&self) -> bool {
        let certificate = SlotCertificate::new(self.certificate.clone());
        let observed = self.observed.as_ref();
        observed.is_some_and(|it| it.is_verified && it.is(&certificate))
    }
}

const SELECT: &str = "SELECT a.id, a.provisioning, a.name, a.generation, i.tbs, a.proof, \
                      a.removed, a.gone, a.observed, a.observed_at, a.drift, \
     m.id, m.version, m.cause, m.since, m.due_at, m.attempts, m.last_error, m.parked, a.restored, \
     c.signature \
     FROM ca_certificate a JOIN generation g ON g.id = a.generation \
     JOIN certificate c ON c.intent = g.certificate JOIN intent i ON i.id = c.intent \
     LEFT JOIN mark m ON m.ca_certificate = a.id";

impl Store {
    /// Returns whether a CA certificate of this name is on record at the service, and was not
    /// observed to be deleted.
    pub fn is_ca_certificate(&self, provisioning: &str, name: &str) -> Result<bool, StoreError> {
        self.read(|tx| {
            tx.query_one(
                "SELECT EXISTS (SELECT 1 FROM ca_certificate
                     WHERE provisioning = ?1 AND lower(name) = lower(?2) AND gone = 0)",
                params![provisioning, name],
                |row| row.get(0),
            )
        })
    }

    /// Records that a service must hold this generation's certificate. Returns false if that is on
    /// record.
    pub fn want_ca_certificate(
        &self,
        provisioning: String,
        name: String,
        generation: GenerationId,
        entry: AuditEntry,
    ) -> Result<bool, StoreError> {
        self.write(move |tx| {
            let added: Option<CaCertificateId> = tx.query_optional(
                "INSERT INTO ca_certificate (provisioning, name, generation, proof)
                 VALUES (?1, ?2, ?3, ?4) ON CONFLICT (provisioning, generation) DO NOTHING
                 RETURNING id",
                params![
                    provisioning,
                    name,
                    generation,
                    to_json(&PossessionProof::default())?
                ],
                |row| row.get(0),
            )?;
            if let Some(id) = added {
                let subject = MarkSubject::CaCertificate(id);
                mark::raise(tx, subject, "CA certificate wanted", entry.at)?;
                audit::append(tx, &entry)?;
            }
            Ok(added.is_some())
        })
    }

    /// Returns all CA certificates at all services, without those that are removed and gone.
    pub fn ca_certificates(&self) -> Result<Vec<CaCertificateRow>, StoreError> {
        self.read(all)
    }

    /// Returns all CA certificates that a service holds or has held.
    pub fn ca_certificates_at(
        &self,
        provisioning: &str,
    ) -> Result<Vec<CaCertificateRow>, StoreError> {
        self.read(|tx| {
            let sql = format!("{SELECT} WHERE a.provisioning = ?1 ORDER BY a.id");
            tx.query_all(&sql, params![provisioning], from_row)
        })
    }

    /// Returns one CA certificate.
    pub fn ca_certificate(&self, id: CaCertificateId) -> Result<CaCertificateRow, StoreError> {
        self.read(|tx| by_id(tx, id))
    }

    /// Replaces the proof `from`. Fails with `Conflict` if another one is on record.
    pub fn advance_proof(
        &self,
        id: CaCertificateId,
        from: PossessionProof,
        to: PossessionProof,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let changed = tx.execute(
                "UPDATE ca_certificate SET proof = ?3 WHERE id = ?1 AND proof = ?2",
                params![id, to_json(&from)?, to_json(&to)?],
            )?;
            match changed {
                1 => Ok(()),
                _ => Err(StoreError::Conflict(format!(
                    "the proof of CA certificate {id} changed concurrently; no changes were made. \
                     Retry"
                ))),
            }
        })
    }

    /// Returns the codes that wait for a verification certificate, each with its CA certificate.
    pub fn codes_to_sign(&self) -> Result<Vec<(CaCertificateRow, VerificationCode)>, StoreError> {
        let wanted = self
            .ca_certificates()?
            .into_iter()
            .filter(|row| !row.removed);
        let open = wanted.filter_map(|row| {
            let Stage::CodeKnown { code } = row.proof.stage() else {
                return None;
            };
            let code = code.clone();
            Some((row, code))
        });
        Ok(open.collect())
    }
}

/// The verification certificate with the code `?1`.
pub(super) const OF_CODE: &str = "SELECT i.tbs, c.signature
     FROM intent i JOIN certificate c ON c.intent = i.id
     WHERE i.purpose = 'possession' AND i.subject = ?1 AND i.ended IS NULL";

/// Step 10, for a verification certificate: adds it to the proof.
pub(super) fn prove(
    tx: &Tx<'_>,
    ca_certificate: CaCertificateId,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    let row = by_id(tx, ca_certificate)?;
    let Stage::CodeKnown { code } = row.proof.stage().clone() else {
        return Ok(());
    };
    let der: Der = tx.query_one(OF_CODE, params![code.as_str()], |row| {
        certificate::der(row, 0, 1)
    })?;
    let proof = row
        .proof
        .proven(&code, SlotCertificate::new(der))
        .map_err(|refusal| StoreError::Conflict(refusal.to_string()))?;
    tx.execute(
        "UPDATE ca_certificate SET proof = ?2 WHERE id = ?1",
        params![ca_certificate, to_json(&proof)?],
    )?;
    mark::raise(
        tx,
        MarkSubject::CaCertificate(ca_certificate),
        "possession proven",
        at,
    )
}

/// Marks a generation's certificate for removal at every service. Returns how many hold it.
pub(super) fn remove(
    tx: &Tx<'_>,
    generation: GenerationId,
    at: UnixSeconds,
) -> Result<usize, StoreError> {
    let held: Vec<CaCertificateId> = tx.query_all(
        "SELECT id FROM ca_certificate WHERE generation = ?1 AND removed = 0",
        params![generation],
        |row| row.get(0),
    )?;
    for id in &held {
        tx.execute(
            "UPDATE ca_certificate SET removed = 1, drift = NULL WHERE id = ?1",
            params![id],
        )?;
        let subject = MarkSubject::CaCertificate(*id);
        mark::raise(tx, subject, "CA certificate not wanted any more", at)?;
    }
    Ok(held.len())
}

/// Returns all CA certificates at all services, without those that are removed and gone.
pub(super) fn all(tx: &Tx<'_>) -> Result<Vec<CaCertificateRow>, StoreError> {
    let sql = format!("{SELECT} WHERE a.gone = 0 ORDER BY a.id");
    tx.query_all(&sql, params![], from_row)
}

pub(super) fn by_id(tx: &Tx<'_>, id: CaCertificateId) -> Result<CaCertificateRow, StoreError> {
    let found = tx.query_optional(&format!("{SELECT} WHERE a.id = ?1"), params![id], from_row)?;
    found.ok_or_else(|| StoreError::Missing(format!("CA certificate {id}")))
}

fn from_row(row: &Row<'_>) -> Result<CaCertificateRow, StoreError> {
    let id = row.get(0)?;
    Ok(CaCertificateRow {
        id,
        provisioning: row.get(1)?,
        name: row.get(2)?,
        generation: row.get(3)?,
        certificate: certificate::der(row, 4, 20)?,
        proof: from_json(&row.get::<String>(5)?)?,
        removed: row.get(6)?,
        gone: row.get(7)?,
        observed: optional_json(row.get(8)?)?,
        observed_at: row.get(9)?,
        drift: optional_json(row.get(10)?)?,
        restored: row.get(19)?,
        mark: mark::from_columns(row, 11, MarkSubject::CaCertificate(id))?,
    })
}

//! CA certificates at the provisioning services, and how far the proof of each has come.

use super::audit::{self, AuditEntry};
use super::enrollment::{from_json, to_json};
use super::mark::{self, MarkSubject};
use super::{Store, StoreError};
use crate::enrollment::ca_certificate::{Proof, Stage, VerificationCode};
use crate::enrollment::desired::SlotCertificate;
use rusqlite::{Connection, Row, params};

/// A CA certificate that a service shall hold verified.
#[derive(Clone, Debug)]
pub struct CaCertificateRow {
    /// Row id.
    pub id: i64,
    /// The provisioning service.
    pub provisioning: String,
    /// Its name there.
    pub name: String,
    /// The generation whose certificate it is.
    pub generation: i64,
    /// DER.
    pub certificate: Vec<u8>,
    /// How far the proof has come.
    pub proof: Proof,
    /// It shall not be there any more; the row goes when the service confirms.
    pub removed: bool,
}

const SELECT: &str = "SELECT a.id, a.provisioning, a.name, a.generation, c.der, a.proof, a.removed \
     FROM ca_certificate a JOIN generation g ON g.id = a.generation \
     JOIN certificate c ON c.intent = g.certificate";

impl Store {
    /// Wants a generation's certificate verified at a service; nothing if it is wanted already.
    pub fn want_ca_certificate(
        &self,
        provisioning: String,
        name: String,
        generation: i64,
        entry: AuditEntry,
    ) -> Result<bool, StoreError> {
        self.write(move |connection| {
            let added = connection.execute(
                "INSERT INTO ca_certificate (provisioning, name, generation, proof)
                 VALUES (?1, ?2, ?3, ?4) ON CONFLICT (provisioning, generation) DO NOTHING",
                params![provisioning, name, generation, to_json(&Proof::default())?],
            )?;
            if added == 1 {
                let subject = MarkSubject::CaCertificate(connection.last_insert_rowid());
                mark::raise(connection, subject, "CA certificate wanted", entry.at)?;
                audit::append(connection, &entry)?;
            }
            Ok(added == 1)
        })
    }

    /// All CA certificates, at all services.
    pub fn ca_certificates(&self) -> Result<Vec<CaCertificateRow>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&format!("{SELECT} ORDER BY a.id"))?;
            let mut rows = statement.query([])?;
            let mut certificates = Vec::new();
            while let Some(row) = rows.next()? {
                certificates.push(from_row(row)?);
            }
            Ok(certificates)
        })
    }

    /// One CA certificate.
    pub fn ca_certificate(&self, id: i64) -> Result<CaCertificateRow, StoreError> {
        self.read(|connection| by_id(connection, id))
    }

    /// The proof came further: replaces `from`, and only that.
    pub fn advance_proof(&self, id: i64, from: Proof, to: Proof) -> Result<(), StoreError> {
        self.write(move |connection| {
            let changed = connection
                .prepare_cached(
                    "UPDATE ca_certificate SET proof = ?3 WHERE id = ?1 AND proof = ?2",
                )?
                .execute(params![id, to_json(&from)?, to_json(&to)?])?;
            match changed {
                1 => Ok(()),
                _ => Err(StoreError::Conflict(format!(
                    "the proof of CA certificate {id} moved on"
                ))),
            }
        })
    }

    /// Codes that wait for a verification certificate, each with its CA certificate.
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

/// Step 10, for a verification certificate: the proof has what it waited for.
pub(super) fn prove(
    connection: &Connection,
    ca_certificate: i64,
    at: i64,
) -> Result<(), StoreError> {
    let row = by_id(connection, ca_certificate)?;
    let Stage::CodeKnown { code } = row.proof.stage().clone() else {
        return Ok(());
    };
    let der: Vec<u8> = connection.query_row(
        "SELECT c.der FROM certificate c JOIN intent i ON i.id = c.intent
         WHERE i.purpose = 'possession' AND i.subject = ?1",
        [code.as_str()],
        |row| row.get(0),
    )?;
    let proof = row
        .proof
        .proven(&code, SlotCertificate::new(der))
        .map_err(|refusal| StoreError::Conflict(refusal.to_string()))?;
    connection
        .prepare_cached("UPDATE ca_certificate SET proof = ?2 WHERE id = ?1")?
        .execute(params![ca_certificate, to_json(&proof)?])?;
    mark::raise(
        connection,
        MarkSubject::CaCertificate(ca_certificate),
        "possession proven",
        at,
    )
}

/// An operator has looked: parked proofs, all or the one of this name, begin anew.
pub(super) fn restart_parked(
    connection: &Connection,
    name: Option<&str>,
) -> Result<(), StoreError> {
    let parked: Vec<i64> = connection
        .prepare_cached(
            "SELECT a.id FROM ca_certificate a JOIN mark m ON m.ca_certificate = a.id
             WHERE m.parked = 1 AND (?1 IS NULL OR a.name = ?1)",
        )?
        .query_map([name], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for id in parked {
        let proof = by_id(connection, id)?.proof.restart();
        connection
            .prepare_cached("UPDATE ca_certificate SET proof = ?2 WHERE id = ?1")?
            .execute(params![id, to_json(&proof)?])?;
    }
    Ok(())
}

/// Wants a generation's certificate gone from every service. Returns how many have it.
pub(super) fn remove(
    connection: &Connection,
    generation: i64,
    at: i64,
) -> Result<usize, StoreError> {
    let held: Vec<i64> = connection
        .prepare_cached("SELECT id FROM ca_certificate WHERE generation = ?1 AND removed = 0")?
        .query_map([generation], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for id in &held {
        connection.execute("UPDATE ca_certificate SET removed = 1 WHERE id = ?1", [id])?;
        let subject = MarkSubject::CaCertificate(*id);
        mark::raise(
            connection,
            subject,
            "CA certificate not wanted any more",
            at,
        )?;
    }
    Ok(held.len())
}

fn by_id(connection: &Connection, id: i64) -> Result<CaCertificateRow, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE a.id = ?1"))?;
    let mut rows = statement.query([id])?;
    let row = rows
        .next()?
        .ok_or_else(|| StoreError::Missing(format!("CA certificate {id}")))?;
    from_row(row)
}

fn from_row(row: &Row<'_>) -> Result<CaCertificateRow, StoreError> {
    Ok(CaCertificateRow {
        id: row.get(0)?,
        provisioning: row.get(1)?,
        name: row.get(2)?,
        generation: row.get(3)?,
        certificate: row.get(4)?,
        proof: from_json(&row.get::<_, String>(5)?)?,
        removed: row.get(6)?,
    })
}

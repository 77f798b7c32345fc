//! Records the OCSP responders of generations, and finds the status of a certificate for their
//! answers.

use super::engine::{Row, Tx, params};
use super::{Store, StoreError, UnixSeconds, certificate};
use crate::der_bytes::Der;
use crate::ids::{GenerationId, IntentId};
use crate::x509::key::KeyType;
use crate::x509::ocsp::CertificateStatus;
use crate::x509::revocation::RevocationReason;

/// A responder that is going to be made, recorded before its key exists.
#[derive(Clone, Debug)]
pub struct PlannedResponder {
    /// The generation that certifies it.
    pub generation: GenerationId,
    pub token: String,
    pub key_type: KeyType,
    pub key_label: String,
    /// `CKA_ID`: random, so that a repeated attempt finds exactly its own key.
    pub key_id: Vec<u8>,
}

/// A responder on record.
#[derive(Clone, Debug)]
pub struct ResponderRow {
    pub generation: GenerationId,
    /// The token that holds the key.
    pub token: String,
    pub key_type: KeyType,
    pub key_label: String,
    pub key_id: Vec<u8>,
    /// `None` until the key exists.
    pub spki: Option<Der>,
    /// The encrypted key, for a token that stores its keys outside.
    pub key_wrapped: Option<Vec<u8>>,
    /// Its newest certificate.
    pub certificate: Option<Der>,
}

const SELECT: &str = "SELECT r.generation, r.token, r.key_type, r.key_label, r.key_id, r.spki, \
     r.key_wrapped, i.tbs, c.signature \
     FROM responder r LEFT JOIN certificate c ON c.intent = r.certificate \
     LEFT JOIN intent i ON i.id = c.intent";

/// The status of the serial number `?2` by the generation `?1`, with the same entries as its
/// lists: certificates, abandoned serial numbers, and what was issued before the adoption. Without
/// a row it is unknown.
pub(super) const STATUS: &str = "SELECT c.revoked_at, c.revocation_reason
     FROM intent i JOIN certificate c ON c.intent = i.id
     WHERE i.serial = ?2 AND i.issuer = ?1 AND i.issued_elsewhere = 0
     UNION ALL
     SELECT abandoned_at, 0 FROM intent
     WHERE serial = ?2 AND issuer = ?1 AND issued_elsewhere = 0 AND ended = 'abandoned'
     UNION ALL
     SELECT revoked_at, revocation_reason FROM former_certificate
     WHERE generation = ?1 AND serial = ?2
     LIMIT 1";

impl Store {
    /// Returns every responder.
    pub fn responders(&self) -> Result<Vec<ResponderRow>, StoreError> {
        self.read(|tx| tx.query_all(SELECT, params![], from_row))
    }

    /// Plans the responder of a generation, or returns the one on record. A plan without a key gets
    /// the token and the kind of key of this one.
    pub fn plan_responder(&self, plan: PlannedResponder) -> Result<ResponderRow, StoreError> {
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO responder (generation, token, key_type, key_label, key_id)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (generation) DO UPDATE
                 SET token = excluded.token, key_type = excluded.key_type, key_id = excluded.key_id
                 WHERE spki IS NULL AND (token, key_type) <> (excluded.token, excluded.key_type)",
                params![
                    plan.generation,
                    plan.token,
                    plan.key_type.name(),
                    plan.key_label,
                    plan.key_id
                ],
            )?;
            of(tx, plan.generation)
        })
    }

    /// Plans another key for a responder whose certificate was revoked.
    pub fn replace_responder_key(
        &self,
        generation: GenerationId,
        key_id: Vec<u8>,
    ) -> Result<ResponderRow, StoreError> {
        self.write(move |tx| {
            tx.execute(
                "UPDATE responder SET key_id = ?2, spki = NULL, key_wrapped = NULL,
                     certificate = NULL WHERE generation = ?1",
                params![generation, key_id],
            )?;
            of(tx, generation)
        })
    }

    /// Records the public key that the token made, and the encrypted key if the token stores its
    /// keys outside.
    pub fn record_responder_key(
        &self,
        generation: GenerationId,
        spki: Der,
        wrapped: Option<Vec<u8>>,
    ) -> Result<ResponderRow, StoreError> {
        self.write(move |tx| {
            let changed = tx.execute(
                "UPDATE responder SET spki = ?2, key_wrapped = ?3
                 WHERE generation = ?1 AND (
                     spki IS NULL OR (spki = ?2 AND key_wrapped IS NOT DISTINCT FROM ?3))",
                params![generation, spki, wrapped],
            )?;
            match changed {
                1 => of(tx, generation),
                _ => Err(StoreError::Conflict(format!(
                    "the responder of generation {generation} has another key on record"
                ))),
            }
        })
    }

    /// Returns the status on record of a serial number that `generation` may have given.
    pub fn certificate_status(
        &self,
        generation: GenerationId,
        serial: &[u8],
    ) -> Result<CertificateStatus, StoreError> {
        let found = self.read(|tx| {
            tx.query_optional(STATUS, params![generation, serial], |row| {
                // A date without a reason is unreadable, never good.
                Ok(match row.get::<Option<UnixSeconds>>(0)? {
                    Some(since) => Some((since, row.get::<RevocationReason>(1)?)),
                    None => None,
                })
            })
        })?;
        Ok(match found {
            None => CertificateStatus::Unknown,
            Some(None) => CertificateStatus::Good,
            Some(Some((since, reason))) => CertificateStatus::Revoked { since, reason },
        })
    }
}

/// Adds the responder's next certificate.
pub(super) fn certify(
    tx: &Tx<'_>,
    generation: GenerationId,
    certificate: IntentId,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE responder SET certificate = ?2 WHERE generation = ?1",
        params![generation, certificate],
    )?;
    Ok(())
}

fn of(tx: &Tx<'_>, generation: GenerationId) -> Result<ResponderRow, StoreError> {
    let select = format!("{SELECT} WHERE r.generation = ?1");
    tx.query_optional(&select, params![generation], from_row)?
        .ok_or_else(|| StoreError::Missing(format!("responder of generation {generation}")))
}

fn from_row(row: &Row<'_>) -> Result<ResponderRow, StoreError> {
    Ok(ResponderRow {
        generation: row.get(0)?,
        token: row.get(1)?,
        key_type: row.get(2)?,
        key_label: row.get(3)?,
        key_id: row.get(4)?,
        spki: row.get(5)?,
        key_wrapped: row.get(6)?,
        certificate: certificate::optional_der(row, 7, 8)?,
    })
}

//! Records requests to issuers elsewhere, and the certificates that they return.
//!
//! A request is recorded before it is signed, like a certificate, and signed once. The certificate
//! that is installed gets an intent of the purpose `adopted`, because no worker was asked to sign
//! it. Installing it is one transaction: a crash leaves all of it or nothing.

use super::adoption::{CertificateIssuer, MadeElsewhere, record_certificate};
use super::audit::{self, AuditEntry};
use super::engine::params;
use super::generation::{certify, record_chain};
use super::{Recorded, Store, StoreError};
use crate::der_bytes::Der;
use crate::ids::GenerationId;

/// A request to record before it is signed.
#[derive(Clone, Debug)]
pub struct NewRequest {
    /// The generation; its key is on record.
    pub generation: GenerationId,
    /// The path length that the issuer must allow.
    pub path_length: Option<u8>,
    /// The bytes to be signed, complete.
    pub tbs: Der,
}

/// A certificate that the issuer has returned.
#[derive(Clone, Debug)]
pub struct InstalledCertificate {
    /// The generation that asked for it.
    pub generation: GenerationId,
    pub certificate: MadeElsewhere,
    /// The chain above it: PEM, from the issuer's to the self-signed one.
    pub above: String,
}

impl Store {
    /// Records a request durably, or returns the one on record. A token signs nothing but the
    /// returned value.
    pub fn request_certificate(
        &self,
        request: NewRequest,
        entry: AuditEntry,
    ) -> Result<Recorded<GenerationId>, StoreError> {
        self.write(move |tx| {
            let id = request.generation;
            let known: Option<Der> = tx.query_optional(
                "SELECT tbs FROM request WHERE generation = ?1",
                params![id],
                |row| row.get(0),
            )?;
            if let Some(tbs) = known {
                return Ok(Recorded::new(id, tbs));
            }
            tx.execute(
                "INSERT INTO request (generation, path_length, tbs, recorded_at)
                 VALUES (?1, ?2, ?3, ?4)",
                params![id, request.path_length, request.tbs, entry.at],
            )?;
            audit::append(tx, &entry)?;
            Ok(Recorded::new(id, request.tbs.clone()))
        })
    }

    /// Returns true if this generation was asked to sign a certificate, its own included.
    pub fn has_signed(&self, generation: GenerationId) -> Result<bool, StoreError> {
        self.read(|tx| {
            tx.query_one(
                "SELECT EXISTS (SELECT 1 FROM intent WHERE issuer = ?1)",
                params![generation],
                |row| row.get(0),
            )
        })
    }

    /// Records the signed request. Changes nothing if a signed one is on record.
    pub fn record_signed_request(
        &self,
        recorded: &Recorded<GenerationId>,
        der: Der,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        let id = recorded.id();
        self.write(move |tx| {
            let signed = tx.execute(
                "UPDATE request SET der = ?2 WHERE generation = ?1 AND der IS NULL",
                params![id, der],
            )?;
            match signed {
                0 => Ok(()),
                _ => audit::append(tx, &entry),
            }
        })
    }

    /// Records the certificate. The first generation of an authority serves at once, a later one is
    /// staged.
    pub fn install_certificate(
        &self,
        installed: InstalledCertificate,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let id = installed.generation;
            let certificate = &installed.certificate;
            let issuer = CertificateIssuer::Elsewhere { certified: id };
            let intent = record_certificate(tx, certificate, issuer, &entry)?;
            record_chain(tx, id, &installed.above)?;
            certify(tx, id, intent)?;
            audit::append(tx, &entry)
        })
    }
}

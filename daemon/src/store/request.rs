//! Generations that are certified elsewhere: what their issuer is asked, and what it answered.
//!
//! The request is recorded before it is signed, like a certificate, and signed once. The
//! certificate that comes back gets an intent of the purpose `adopted`: no token of ours was asked for it.
//! Installing it is one transaction: a crash leaves all of it, or nothing.

use super::adoption::{MadeElsewhere, record_certificate};
use super::audit::{self, AuditEntry};
use super::generation::certify;
use super::{Recorded, Store, StoreError};
use rusqlite::{OptionalExtension, params};

/// What is about to be asked of somebody else.
#[derive(Clone, Debug)]
pub struct NewRequest {
    /// The generation; its key is on record.
    pub generation: i64,
    /// How many authorities must be allowed below.
    pub path_length: Option<u8>,
    /// The bytes to be signed, complete.
    pub tbs: Vec<u8>,
}

/// What somebody else has certified.
#[derive(Clone, Debug)]
pub struct InstalledCertificate {
    /// The generation that asked for it.
    pub generation: i64,
    /// The certificate.
    pub certificate: MadeElsewhere,
    /// Those above it: PEM, its issuer's first, up to the self-signed one.
    pub above: String,
}

impl Store {
    /// Records durably what is asked for a generation, or finds what is on record. The value that comes
    /// back is the only thing a token accepts.
    pub fn request_certificate(
        &self,
        request: NewRequest,
        entry: AuditEntry,
    ) -> Result<Recorded, StoreError> {
        self.write(move |connection| {
            let id = request.generation;
            let known: Option<Vec<u8>> = connection
                .prepare_cached("SELECT tbs FROM request WHERE generation = ?1")?
                .query_row([id], |row| row.get(0))
                .optional()?;
            if let Some(tbs) = known {
                return Ok(Recorded::new(id, tbs));
            }
            connection.execute(
                "INSERT INTO request (generation, path_length, tbs, recorded_at)
                 VALUES (?1, ?2, ?3, ?4)",
                params![id, request.path_length, request.tbs, entry.at],
            )?;
            audit::append(connection, &entry)?;
            Ok(Recorded::new(id, request.tbs.clone()))
        })
    }

    /// Whether this generation was to sign a certificate, its own included.
    pub fn has_signed(&self, generation: i64) -> Result<bool, StoreError> {
        self.read(|connection| {
            Ok(connection
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM intent WHERE issuer = ?1)")?
                .query_row([generation], |row| row.get(0))?)
        })
    }

    /// Records the signed request, DER. One that was signed meanwhile stays as it is.
    pub fn record_signed_request(
        &self,
        recorded: &Recorded,
        der: &[u8],
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        let (id, der) = (recorded.id(), der.to_vec());
        self.write(move |connection| {
            let signed = connection.execute(
                "UPDATE request SET der = ?2 WHERE generation = ?1 AND der IS NULL",
                params![id, der],
            )?;
            match signed {
                0 => Ok(()),
                _ => audit::append(connection, &entry),
            }
        })
    }

    /// Records what came back: the first generation of an authority serves from then on, any other one
    /// is staged.
    pub fn install_certificate(
        &self,
        installed: InstalledCertificate,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        self.write(move |connection| {
            let id = installed.generation;
            let certificate = &installed.certificate;
            let intent = record_certificate(connection, certificate, id, &entry)?;
            connection.execute(
                "UPDATE request SET above = ?2 WHERE generation = ?1",
                params![id, installed.above],
            )?;
            certify(connection, id, intent)?;
            audit::append(connection, &entry)
        })
    }
}

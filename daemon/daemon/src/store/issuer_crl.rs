//! Keeps the revocation lists of issuers elsewhere, as they were brought here: one for each key.

use super::audit::{self, AuditEntry};
use super::digest::sha256;
use super::engine::{Row, params};
use super::{Store, StoreError, UnixSeconds};
use crate::crl_number::CrlNumber;
use crate::der_bytes::Der;

/// Whether the journal has the transcript of requests with a SHA-256.
pub(super) const REQUESTED: &str = "SELECT EXISTS (SELECT 1 FROM audit
    WHERE action = 'transfer.requested' AND subject = ?1)";

/// The certificates of the key with a SHA-256, oldest first.
pub(super) const OF_KEY: &str = "SELECT c.sha256 FROM intent i
    JOIN certificate c ON c.intent = i.id WHERE i.key_sha256 = ?1 ORDER BY i.id";

/// The revocation list of an issuer elsewhere.
#[derive(Clone, Debug)]
pub struct IssuerCrlRow {
    /// SHA-256 of the issuer's SubjectPublicKeyInfo.
    pub issuer_key: [u8; 32],
    /// The subject of the issuer.
    pub issuer: String,
    /// The file below `/crl/` that certificates name; `None` if they name none here.
    pub file: Option<String>,
    pub number: CrlNumber,
    pub this_update: UnixSeconds,
    pub next_update: UnixSeconds,
    pub entries: i64,
    pub der: Der,
}

impl IssuerCrlRow {
    /// Returns the SHA-256 of the list.
    pub fn sha256(&self) -> [u8; 32] {
        sha256(&self.der)
    }
}

impl Store {
    /// Returns the list of each issuer elsewhere.
    pub fn issuer_crls(&self) -> Result<Vec<IssuerCrlRow>, StoreError> {
        self.read(|tx| {
            tx.query_all(
                "SELECT issuer_key, issuer, file, number, this_update, next_update, entries, der
                 FROM issuer_crl ORDER BY issuer, issuer_key",
                params![],
                from_row,
            )
        })
    }

    /// Records the list of an issuer in place of an older one; the schema refuses a list with a
    /// number that is not higher.
    pub fn record_issuer_crl(
        &self,
        row: IssuerCrlRow,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO issuer_crl (issuer_key, issuer, file, number, this_update,
                     next_update, entries, der, installed_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                 ON CONFLICT (issuer_key) DO UPDATE SET issuer = excluded.issuer,
                     file = excluded.file, number = excluded.number,
                     this_update = excluded.this_update, next_update = excluded.next_update,
                     entries = excluded.entries, der = excluded.der,
                     installed_at = excluded.installed_at",
                params![
                    row.issuer_key,
                    row.issuer,
                    row.file,
                    row.number,
                    row.this_update,
                    row.next_update,
                    row.entries,
                    row.der,
                    entry.at
                ],
            )?;
            audit::append(tx, &entry)
        })
    }

    /// Returns the SHA-256 of each certificate for the key with this SHA-256, oldest first.
    pub fn certificates_of_key(&self, key_sha256: [u8; 32]) -> Result<Vec<[u8; 32]>, StoreError> {
        self.read(|tx| tx.query_all(OF_KEY, params![key_sha256], |row| row.get(0)))
    }

    /// Returns true if this daemon has made requests with a transcript of this hex SHA-256.
    pub fn has_requested(&self, transcript_sha256: &str) -> Result<bool, StoreError> {
        let subject = transcript_sha256.to_owned();
        self.read(|tx| tx.query_one(REQUESTED, params![subject], |row| row.get(0)))
    }
}

fn from_row(row: &Row<'_>) -> Result<IssuerCrlRow, StoreError> {
    Ok(IssuerCrlRow {
        issuer_key: row.get(0)?,
        issuer: row.get(1)?,
        file: row.get(2)?,
        number: row.get(3)?,
        this_update: row.get(4)?,
        next_update: row.get(5)?,
        entries: row.get(6)?,
        der: row.get(7)?,
    })
}

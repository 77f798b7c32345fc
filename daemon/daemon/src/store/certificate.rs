//! Records the signatures of certificates, and finds certificates by digest, serial number, subject
//! or intent.
//!
//! A certificate is the bytes that its intent recorded and what follows them.

use super::digest::sha256;
use super::engine::dialect::without_statement_journal;
use super::engine::{Row, Tx, params};
use super::{Store, StoreError, UnixSeconds};
use crate::der_bytes::Der;
use crate::enrollment::role::Role;
use crate::ids::{GenerationId, IntentId};
use crate::x509::certificate;
use crate::x509::revocation::RevocationReason;

/// An issued certificate with its intent.
#[derive(Clone, Debug)]
pub struct CertificateRow {
    pub der: Der,
    /// SHA-256 of the DER.
    pub sha256: [u8; 32],
    pub serial: Vec<u8>,
    pub issuer: GenerationId,
    pub profile: String,
    /// The common name; a device's registration id.
    pub subject: String,
    /// The role of its holder; only leaves have one.
    pub role: Option<Role>,
    /// When its validity begins.
    pub not_before: UnixSeconds,
    pub not_after: UnixSeconds,
    /// When it was revoked; `None` while it is good.
    pub revoked_at: Option<UnixSeconds>,
    /// Why it is revoked.
    pub revocation_reason: Option<RevocationReason>,
    /// SHA-256 of the request, if that had an idempotency key.
    pub request_sha256: Option<Vec<u8>>,
}

impl CertificateRow {
    /// Returns true if it is revoked for a reason that can be lifted.
    pub fn is_on_hold(&self) -> bool {
        self.revocation_reason.is_some_and(|it| !it.is_final())
    }
}

pub(super) const SELECT: &str = "SELECT i.tbs, c.sha256, i.serial, i.issuer, i.profile, i.subject, \
     i.not_before, i.not_after, c.revoked_at, i.request_sha256, c.revocation_reason, i.role, \
     c.signature \
     FROM certificate c JOIN intent i ON i.id = c.intent";

/// Of the subject `?1` the newest `?2`.
pub(super) const OF_SUBJECT: &str = "WHERE i.subject = ?1 ORDER BY i.id DESC LIMIT ?2";

impl Store {
    /// Returns the certificate with this SHA-256.
    pub fn certificate_by_sha256(
        &self,
        sha256: &[u8; 32],
    ) -> Result<Option<CertificateRow>, StoreError> {
        self.read(|tx| {
            let select = format!("{SELECT} WHERE c.sha256 = ?1");
            tx.query_optional(&select, params![sha256], from_row)
        })
    }

    /// Returns all certificates with this serial number, by this authority if one is named: a
    /// serial number is unique for its issuer only (RFC 5280, section 4.1.2.2).
    pub fn certificates_by_serial(
        &self,
        serial: &[u8],
        authority: Option<&str>,
    ) -> Result<Vec<CertificateRow>, StoreError> {
        self.read(|tx| {
            let select = format!(
                "{SELECT} WHERE i.serial = ?1 AND (?2 IS NULL OR i.issuer IN (
                 SELECT id FROM generation WHERE authority = ?2))"
            );
            tx.query_all(&select, params![serial, authority], from_row)
        })
    }

    /// Returns the certificates of a subject, newest first, at most `limit`.
    pub fn certificates_of(
        &self,
        subject: &str,
        limit: u32,
    ) -> Result<Vec<CertificateRow>, StoreError> {
        self.read(|tx| {
            let select = format!("{SELECT} {OF_SUBJECT}");
            tx.query_all(&select, params![subject, limit], from_row)
        })
    }
}

pub(super) fn by_intent(
    tx: &Tx<'_>,
    intent: IntentId,
) -> Result<Option<CertificateRow>, StoreError> {
    let select = format!("{SELECT} WHERE c.intent = ?1");
    tx.query_optional(&select, params![intent], from_row)
}

/// The record of a certificate besides the bytes that were signed.
pub(super) struct Signature {
    behind: Vec<u8>,
    pub(super) sha256: [u8; 32],
}

impl Signature {
    /// Takes it from the certificate `der`, which must carry the recorded bytes.
    pub(super) fn of(der: &[u8], tbs: &[u8]) -> Result<Self, StoreError> {
        let behind = certificate::signature_behind(der, tbs).ok_or_else(|| {
            StoreError::Conflict("the certificate does not carry the recorded bytes".into())
        })?;
        Ok(Self {
            behind: behind.to_vec(),
            sha256: sha256(der),
        })
    }

    /// Records the certificate, which ends its intent.
    pub(super) fn record(
        &self,
        tx: &Tx<'_>,
        intent: IntentId,
        issued_at: UnixSeconds,
    ) -> Result<(), StoreError> {
        tx.execute_apart(
            concat!(
                "INSERT ",
                without_statement_journal!(),
                " INTO certificate (intent, signature, sha256, issued_at) VALUES (?1, ?2, ?3, ?4)"
            ),
            params![intent, self.behind, self.sha256, issued_at],
        )?;
        Ok(())
    }
}

/// Reads a certificate from the columns `tbs` and `signature`.
pub(super) fn der(row: &Row<'_>, tbs: usize, signature: usize) -> Result<Der, StoreError> {
    let [tbs, signature]: [Der; 2] = [row.get(tbs)?, row.get(signature)?];
    Ok(certificate::join(&tbs, &signature))
}

/// Reads a certificate, if there is one.
pub(super) fn optional_der(
    row: &Row<'_>,
    tbs: usize,
    signature: usize,
) -> Result<Option<Der>, StoreError> {
    let is_there = row.get::<Option<Der>>(signature)?.is_some();
    is_there.then(|| der(row, tbs, signature)).transpose()
}

pub(super) fn from_row(row: &Row<'_>) -> Result<CertificateRow, StoreError> {
    Ok(CertificateRow {
        der: der(row, 0, 12)?,
        sha256: row.get(1)?,
        serial: row.get(2)?,
        issuer: row.get(3)?,
        profile: row.get(4)?,
        subject: row.get(5)?,
        not_before: row.get(6)?,
        not_after: row.get(7)?,
        revoked_at: row.get(8)?,
        request_sha256: row.get(9)?,
        revocation_reason: row.get(10)?,
        role: row.get(11)?,
    })
}

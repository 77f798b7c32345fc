//! What a ceremony leaves in people's hands: JSON for machines, a page for a safe.

use super::authorize::{Authorized, Operate};
use super::hierarchy::Generation;
use super::rfc3339;
use crate::store::AuditEntry;
use crate::token::{KeyDescription, TokenDescription};
use crate::x509::key::KeyType;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What a ceremony did, for people to sign and machines to compare.
#[derive(Clone, Debug, Serialize)]
pub struct Transcript {
    /// The ceremony's name.
    pub ceremony: String,
    /// Hex SHA-256 of the file as it was read.
    pub input_sha256: String,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339.
    pub finished_at: String,
    /// Who ran it.
    pub operator: String,
    /// The version of this daemon.
    pub hallmark: &'static str,
    /// What each token said of itself, by its name in the configuration.
    pub tokens: BTreeMap<String, TokenDescription>,
    /// The authorities, in the order of the file.
    pub authorities: Vec<TranscriptEntry>,
}

/// What became of one authority.
#[derive(Clone, Debug, Serialize)]
pub struct TranscriptEntry {
    /// Its name.
    pub name: String,
    /// 1 for the first generation.
    pub generation: i64,
    /// `created`, or `existed`: then nothing was done.
    pub outcome: &'static str,
    /// The token that holds its key.
    pub token: String,
    /// What the token said of the key.
    pub key: KeyTranscript,
    /// Its certificate.
    pub certificate: CertificateTranscript,
    /// What a person has to know of it; nothing as a rule.
    pub remarks: Vec<String>,
}

/// What the token said of a key.
#[derive(Clone, Debug, Serialize)]
pub struct KeyTranscript {
    /// The kind of key.
    pub key_type: KeyType,
    /// `CKA_LABEL`.
    pub label: String,
    /// Hex `CKA_ID`.
    pub id: String,
    /// Hex SHA-256 of the SubjectPublicKeyInfo.
    pub spki_sha256: String,
    /// `CKA_SENSITIVE`.
    pub sensitive: bool,
    /// `CKA_EXTRACTABLE`.
    pub extractable: bool,
    /// `CKA_NEVER_EXTRACTABLE`.
    pub never_extractable: bool,
    /// `CKA_LOCAL`.
    pub local: bool,
}

/// A certificate, for the transcript.
#[derive(Clone, Debug, Serialize)]
pub struct CertificateTranscript {
    /// RFC 4514.
    pub subject: String,
    /// RFC 4514.
    pub issuer: String,
    /// Upper hex.
    pub serial: String,
    /// Upper hex SHA-256 of the DER.
    pub sha256: String,
    /// RFC 3339.
    pub not_before: String,
    /// RFC 3339.
    pub not_after: String,
    /// `pathLenConstraint`.
    pub path_length: Option<u8>,
    /// PEM.
    pub pem: String,
}

/// Of a key that the token does not say it has made.
pub(super) const NOT_LOCAL: &str =
    "WARNING: the token does not tell that this key was made on it (CKA_LOCAL is false)";

impl TranscriptEntry {
    pub(super) fn new(
        generation: &Generation,
        outcome: &'static str,
        key: &KeyDescription,
    ) -> Self {
        let certificate = &generation.certificate;
        let mut remarks = Vec::new();
        if !key.local {
            remarks.push(NOT_LOCAL.to_owned());
        }
        Self {
            remarks,
            name: generation.authority.clone(),
            generation: generation.number,
            outcome,
            token: generation.token.clone(),
            key: KeyTranscript {
                key_type: generation.public_key.key_type(),
                label: key.label.clone(),
                id: hex::encode(&key.id),
                spki_sha256: hex::encode(generation.public_key.sha256()),
                sensitive: key.sensitive,
                extractable: key.extractable,
                never_extractable: key.never_extractable,
                local: key.local,
            },
            certificate: CertificateTranscript {
                subject: certificate.subject(),
                issuer: certificate.issuer(),
                serial: certificate.serial().to_string(),
                sha256: hex::encode_upper(certificate.sha256()),
                not_before: rfc3339(certificate.not_before()),
                not_after: rfc3339(certificate.not_after()),
                path_length: certificate.path_length(),
                pem: certificate.to_pem(),
            },
        }
    }
}

impl Transcript {
    pub(super) fn audit_entry(&self, permission: &Authorized<Operate>, at: i64) -> AuditEntry {
        let made: Vec<_> = self
            .authorities
            .iter()
            .map(|entry| json!([entry.name, entry.outcome, entry.certificate.sha256]))
            .collect();
        AuditEntry {
            at,
            actor: permission.caller().to_string(),
            action: "ceremony.completed",
            subject: self.ceremony.clone(),
            detail: json!({ "input_sha256": self.input_sha256, "authorities": made }),
        }
    }

    /// The transcript as people read and sign it.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "Ceremony      {}\nInput SHA-256 {}\nBegun         {}\nEnded         {}\n\
             Operator      {}\nHallmark      {}\n",
            self.ceremony,
            self.input_sha256,
            self.started_at,
            self.finished_at,
            self.operator,
            self.hallmark
        );
        for (name, token) in &self.tokens {
            // Writing into a String cannot fail.
            let _ = write!(
                text,
                "\nToken {name}\n  label {}, serial {}, {} {}, firmware {}\n  {}\n",
                token.label,
                token.serial,
                token.manufacturer,
                token.model,
                token.firmware,
                token.interface
            );
        }
        for entry in &self.authorities {
            let (key, certificate) = (&entry.key, &entry.certificate);
            let _ = write!(
                text,
                "\nAuthority {} generation {} ({})\n  subject    {}\n  issuer     {}\n  serial     \
                 {}\n  SHA-256    {}\n  valid      {} to {}\n  path len   {}\n  key        {:?} on \
                 {}, label {:?}, id {}\n  SPKI       {}\n  sensitive {}, extractable {}, never \
                 extractable {}, local {}\n",
                entry.name,
                entry.generation,
                entry.outcome,
                certificate.subject,
                certificate.issuer,
                certificate.serial,
                certificate.sha256,
                certificate.not_before,
                certificate.not_after,
                certificate
                    .path_length
                    .map_or("none".into(), |length| length.to_string()),
                key.key_type,
                entry.token,
                key.label,
                key.id,
                key.spki_sha256,
                key.sensitive,
                key.extractable,
                key.never_extractable,
                key.local
            );
            for remark in &entry.remarks {
                let _ = writeln!(text, "  {remark}");
            }
        }
        text.push_str("\nWitnessed by  ______________________    ______________________\n");
        text
    }
}

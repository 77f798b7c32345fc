//! What a ceremony leaves in people's hands: JSON for machines, a page for a safe.

use super::authorize::{Authorized, Operate};
use super::hierarchy::Generation;
use super::rfc3339;
use crate::store::{AuditEntry, GenerationRow};
use crate::token::{KeyDescription, TokenDescription, spki_sha256};
use crate::x509::key::KeyType;
use crate::x509::request;
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
    /// `created`, `adopted`, `waiting` for a certificate from elsewhere, or `existed`: then nothing was
    /// done.
    pub outcome: &'static str,
    /// The token that holds its key.
    pub token: String,
    /// What the token said of the key.
    pub key: KeyTranscript,
    /// Its certificate, once there is one.
    pub certificate: Option<CertificateTranscript>,
    /// What its issuer elsewhere is asked: PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
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
        Self {
            remarks: remarks(key),
            name: generation.authority.clone(),
            generation: generation.number,
            outcome,
            token: generation.token.clone(),
            key: KeyTranscript::new(generation.public_key.key_type(), key),
            certificate: Some(CertificateTranscript {
                subject: certificate.subject(),
                issuer: certificate.issuer(),
                serial: certificate.serial().to_string(),
                sha256: hex::encode_upper(certificate.sha256()),
                not_before: rfc3339(certificate.not_before()),
                not_after: rfc3339(certificate.not_after()),
                path_length: certificate.path_length(),
                pem: certificate.to_pem(),
            }),
            request: None,
        }
    }

    /// Of an authority that waits for its certificate.
    pub(super) fn waiting(row: &GenerationRow, request_der: &[u8], key: &KeyDescription) -> Self {
        Self {
            remarks: remarks(key),
            name: row.authority.clone(),
            generation: row.number,
            outcome: "waiting",
            token: row.token.clone(),
            key: KeyTranscript::new(row.key_type, key),
            certificate: None,
            request: Some(request::to_pem(request_der)),
        }
    }
}

fn remarks(key: &KeyDescription) -> Vec<String> {
    match key.local {
        true => Vec::new(),
        false => vec![NOT_LOCAL.to_owned()],
    }
}

impl KeyTranscript {
    fn new(key_type: KeyType, key: &KeyDescription) -> Self {
        Self {
            key_type,
            label: key.label.clone(),
            id: hex::encode(&key.id),
            spki_sha256: hex::encode(spki_sha256(&key.spki)),
            sensitive: key.sensitive,
            extractable: key.extractable,
            never_extractable: key.never_extractable,
            local: key.local,
        }
    }
}

impl CertificateTranscript {
    fn to_text(&self) -> String {
        let length = self.path_length.map(|length| length.to_string());
        format!(
            "  subject    {}\n  issuer     {}\n  serial     {}\n  SHA-256    {}\n  valid      {} to {}\n  \
             path len   {}\n",
            self.subject,
            self.issuer,
            self.serial,
            self.sha256,
            self.not_before,
            self.not_after,
            length.as_deref().unwrap_or("none"),
        )
    }
}

impl Transcript {
    pub(super) fn audit_entry(&self, permission: &Authorized<Operate>, at: i64) -> AuditEntry {
        let made: Vec<_> = self
            .authorities
            .iter()
            .map(|entry| {
                let sha256 = entry.certificate.as_ref().map(|it| &it.sha256);
                json!([entry.name, entry.outcome, sha256])
            })
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
            let told = certificate.as_ref().map(CertificateTranscript::to_text);
            let _ = write!(
                text,
                "\nAuthority {} generation {} ({})\n{}  key        {:?} on {}, label {:?}, id {}\n  \
                 SPKI       {}\n  sensitive {}, extractable {}, never extractable {}, local {}\n",
                entry.name,
                entry.generation,
                entry.outcome,
                told.unwrap_or_default(),
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
            text.push_str(entry.request.as_deref().unwrap_or_default());
            for remark in &entry.remarks {
                let _ = writeln!(text, "  {remark}");
            }
        }
        text.push_str("\nWitnessed by  ______________________    ______________________\n");
        text
    }
}

//! Writes the transcript of a ceremony: JSON for machines, and a page to print and archive.

use super::authorize::{Authorized, Operate};
use super::hierarchy::Generation;
use crate::ids::GenerationNumber;
use crate::printable::Page;
use crate::store::{AuditEntry, GenerationRow};
use crate::token::{KeyDescription, TokenDescription, spki_sha256};
use crate::unix_seconds::UnixSeconds;
use crate::x509::key::KeyType;
use crate::x509::request;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;

/// The record of a ceremony, for people to sign and machines to compare.
#[derive(Clone, Debug, Serialize)]
pub struct Transcript {
    pub ceremony: String,
    /// Hex SHA-256 of the file as it was read.
    pub input_sha256: String,
    pub started_at: String,
    pub finished_at: String,
    pub operator: String,
    /// The version of this daemon.
    pub hallmark: &'static str,
    /// Each token's description of itself, by its name in the configuration.
    pub tokens: BTreeMap<String, TokenDescription>,
    /// The authorities, in the order of the file.
    pub authorities: Vec<TranscriptEntry>,
}

/// The result for one authority.
#[derive(Clone, Debug, Serialize)]
pub struct TranscriptEntry {
    pub name: String,
    /// 1 for the first generation.
    pub generation: GenerationNumber,
    /// `created`, `adopted`, `waiting` for a certificate from elsewhere, or `existed`: then nothing
    /// was done.
    pub outcome: &'static str,
    /// The token that holds its key.
    pub token: String,
    /// The token's description of the key.
    pub key: KeyTranscript,
    /// Its certificate, once there is one.
    pub certificate: Option<CertificateTranscript>,
    /// The request to the external issuer: PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Warnings for people; empty as a rule.
    pub remarks: Vec<String>,
}

/// The token's description of a key.
#[derive(Clone, Debug, Serialize)]
pub struct KeyTranscript {
    /// The kind of key.
    pub key_type: KeyType,
    pub label: String,
    pub id: String,
    /// Hex SHA-256 of the SubjectPublicKeyInfo.
    pub spki_sha256: String,
    pub sensitive: bool,
    pub extractable: bool,
    pub never_extractable: bool,
    pub local: bool,
}

/// A certificate, for the transcript.
#[derive(Clone, Debug, Serialize)]
pub struct CertificateTranscript {
    pub subject: String,
    pub issuer: String,
    pub serial: String,
    /// Upper hex SHA-256 of the DER.
    pub sha256: String,
    pub not_before: String,
    pub not_after: String,
    pub path_length: Option<u8>,
    /// The certificate as PEM.
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
                not_before: certificate.not_before().to_string(),
                not_after: certificate.not_after().to_string(),
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
    if key.local {
        Vec::new()
    } else {
        vec![NOT_LOCAL.to_owned()]
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
    fn write(&self, page: &mut Page) {
        let length = self.path_length.map(|length| length.to_string());
        page.lines([
            format!("  subject    {}", self.subject),
            format!("  issuer     {}", self.issuer),
            format!("  serial     {}", self.serial),
            format!("  SHA-256    {}", self.sha256),
            format!("  valid      {} to {}", self.not_before, self.not_after),
            format!("  path len   {}", length.as_deref().unwrap_or("none")),
        ]);
    }
}

impl TranscriptEntry {
    fn write(&self, page: &mut Page) {
        page.line("");
        page.line(&format!(
            "Authority {} generation {} ({})",
            self.name, self.generation, self.outcome
        ));
        if let Some(certificate) = &self.certificate {
            certificate.write(page);
        }
        let key = &self.key;
        page.lines([
            format!(
                "  key        {:?} on {}, label {:?}, id {}",
                key.key_type, self.token, key.label, key.id
            ),
            format!("  SPKI       {}", key.spki_sha256),
            format!(
                "  sensitive {}, extractable {}, never extractable {}, local {}",
                key.sensitive, key.extractable, key.never_extractable, key.local
            ),
        ]);
        if let Some(request) = &self.request {
            page.pem("", "", request);
        }
        page.lines(self.remarks.iter().map(|remark| format!("  {remark}")));
    }
}

impl Transcript {
    pub(super) fn audit_entry(
        &self,
        permission: &Authorized<Operate>,
        at: UnixSeconds,
    ) -> AuditEntry {
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
        let mut page = Page::default();
        page.lines([
            format!("Ceremony      {}", self.ceremony),
            format!("Input SHA-256 {}", self.input_sha256),
            format!("Begun         {}", self.started_at),
            format!("Ended         {}", self.finished_at),
            format!("Operator      {}", self.operator),
            format!("Hallmark      {}", self.hallmark),
        ]);
        for (name, token) in &self.tokens {
            page.lines([
                String::new(),
                format!("Token {name}"),
                format!(
                    "  label {}, serial {}, {} {}, firmware {}",
                    token.label, token.serial, token.manufacturer, token.model, token.firmware
                ),
                format!("  {}", token.interface),
            ]);
        }
        for entry in &self.authorities {
            entry.write(&mut page);
        }
        page.line("");
        page.line("Witnessed by  ______________________    ______________________");
        page.into_text()
    }
}

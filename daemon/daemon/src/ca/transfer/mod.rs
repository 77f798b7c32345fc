//! Exchanges files with an offline root: a Hallmark on a machine without network.
//!
//! The daemon whose authorities wait for certificates makes requests ([`CertificateAuthority::
//! request_by_transfer`]), the offline root signs certificates and revocation lists ([`sign`]), and
//! the first one installs them ([`install`]). Each step has a transcript with the SHA-256 of its
//! files and of the transcript before it, and an entry of the journal with its own SHA-256.

mod honour;
mod install;
mod page;
mod sign;

pub use install::{InstalledTransfer, TransferToInstall};
pub use sign::TransferToSign;

use super::authorize::{Authorized, Operate};
use super::{CertificateAuthority, Code, Error};
use crate::store::AuditEntry;
use crate::x509::authority_csr::AuthorityCsr;
use crate::x509::transfer::{Files, sha256};
use crate::x509::transfer::{
    REQUESTS_FILE, REQUESTS_MAX, Request, Requests, RequestsForm, TransferRefusal, check_size,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use page::to_text;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

/// The files that a step of a transfer writes into the folder.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Written {
    /// The name of the transcript's file.
    pub file: &'static str,
    /// The exact text of the transcript: JSON.
    pub transcript: String,
    /// Hex SHA-256 of that text.
    pub sha256: String,
    /// The same for people to sign and archive.
    pub text: String,
    pub files: Vec<WrittenFile>,
}

/// A file beside the transcript.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct WrittenFile {
    pub name: String,
    pub base64: String,
}

impl From<TransferRefusal> for Error {
    fn from(refusal: TransferRefusal) -> Self {
        Error::invalid(refusal.code(), refusal.to_string())
    }
}

impl Written {
    fn new<T: Serialize>(
        file: &'static str,
        transcript: &T,
        files: Vec<(String, Vec<u8>)>,
    ) -> Result<Self, Error> {
        let value = serde_json::to_value(transcript)
            .map_err(|error| Error::stop(Code::Internal, error.to_string()))?;
        let transcript = format!("{value:#}\n");
        let sizes = files
            .iter()
            .map(|(name, it)| (name.as_str(), it.as_slice()));
        check_size(&transcript, sizes)?;
        let sha256 = sha256(transcript.as_bytes());
        let written = files.into_iter().map(|(name, content)| WrittenFile {
            name,
            base64: STANDARD.encode(content),
        });
        Ok(Self {
            file,
            text: to_text(&value, &sha256),
            transcript,
            sha256,
            files: written.collect(),
        })
    }
}

impl CertificateAuthority {
    /// Makes the requests of the authorities that wait for a certificate; of very many, those of
    /// the first ones.
    pub fn request_by_transfer(&self, permission: &Authorized<Operate>) -> Result<Written, Error> {
        let pending = self.ceremonies.pending()?;
        if pending.is_empty() {
            let message = "no authority waits for a certificate: a ceremony makes one that does \
                           (`external_issuer`), and `hallmark roll start --authority` the next \
                           generation of it";
            return Err(Error::conflict(Code::AuthorityNotWaiting, message));
        }
        let mut requests = Vec::new();
        let mut files = Files::new();
        for waiting in pending.into_iter().take(REQUESTS_MAX) {
            let pem = self.ceremonies.request_pem(permission, &waiting.name)?;
            let csr = AuthorityCsr::parse(pem.as_bytes())
                .map_err(|error| Error::stop(Code::Internal, error.to_string()))?;
            let file = format!("{}-{}.csr", waiting.name, waiting.generation);
            requests.push(Request {
                authority: waiting.name,
                generation: waiting.generation.get(),
                sha256: sha256(pem.as_bytes()),
                subject: csr.subject().label().to_owned(),
                spki_sha256: waiting.spki_sha256,
                path_length: csr.path_length(),
                file: file.clone(),
            });
            files.insert(file, pem.into_bytes());
        }
        let transcript = Requests {
            transcript: RequestsForm::First,
            made_at: self.now().to_string(),
            operator: permission.caller().to_string(),
            hallmark: env!("CARGO_PKG_VERSION").to_owned(),
            requests,
        };
        let written = Written::new(REQUESTS_FILE, &transcript, files.into_iter().collect())?;
        let made = transcript.requests.iter();
        let made: Vec<_> = made
            .map(|it| json!([it.authority, it.generation, it.sha256]))
            .collect();
        let detail = json!({ "requests": made });
        self.record_transfer(permission, "transfer.requested", &written.sha256, detail)?;
        Ok(written)
    }

    fn record_transfer(
        &self,
        permission: &Authorized<Operate>,
        action: &'static str,
        transcript_sha256: &str,
        detail: Value,
    ) -> Result<(), Error> {
        let entry = AuditEntry {
            at: self.now(),
            actor: permission.caller().to_string(),
            action,
            subject: transcript_sha256.to_owned(),
            detail,
        };
        pollster::block_on(self.store.record_audit(entry))?;
        Ok(())
    }
}

//! Reads OCSP requests and builds their answers (RFC 6960), within the profile of RFC 5019: one
//! certificate for each request, answers by the key of a delegated responder.
//!
//! The crate x509-ocsp is of another generation of `der`, so the structures are here.

pub mod answer;
pub mod request;
mod wire;

pub use answer::{Answer, AnswerContent, CertificateStatus, ErrorStatus, SignedAnswer};
pub use request::{CertificateId, Nonce, RequestRefusal, StatusRequest};

use super::lint::ocsp::is_response_data;

/// Prefix of the label of every responder's key.
const LABEL_PREFIX: &str = "hallmark-ocsp ";

/// The longest answer that is signed, in octets.
pub const ANSWER_BYTES_MAX: usize = 1_024;

/// Returns `CKA_LABEL` of a responder's key.
pub fn key_label(generation: &str) -> String {
    format!("{LABEL_PREFIX}{generation}")
}

/// Returns true if a key with this label is a responder's.
pub fn is_responder_label(label: &str) -> bool {
    label.starts_with(LABEL_PREFIX)
}

/// Returns true if `bytes` are `ResponseData` (RFC 6960 4.2.1): neither a certificate nor a list
/// nor a request for a certificate can be read in them.
pub fn is_answer(bytes: &[u8]) -> bool {
    bytes.len() <= ANSWER_BYTES_MAX && is_response_data(bytes)
}

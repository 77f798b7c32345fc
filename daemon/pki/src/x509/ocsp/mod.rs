//! Reads OCSP requests and builds their answers (RFC 6960) by the key of a delegated responder.
//! Clients within the profile of RFC 5019 ask for one certificate; others may ask for a few.
//!
//! The crate x509-ocsp is of another generation of `der`, so the structures are here.

pub mod answer;
pub mod request;
mod wire;

pub use answer::{
    Answer, AnswerContent, CertificateStatus, ErrorStatus, SignedAnswer, SingleAnswer,
};
pub use request::{CertificateId, Nonce, RequestRefusal, StatusRequest};

use super::lint::ocsp::is_response_data;

/// Prefix of the label of every responder's key.
const LABEL_PREFIX: &str = "hallmark-ocsp ";

/// The longest answer that is signed, in octets: that for
/// [`CERTIFICATES_MAX`](request::CERTIFICATES_MAX) certificates by their longest names.
pub const ANSWER_BYTES_MAX: usize = 4_096;

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

//! Encodes certificates as certs-only CMS (RFC 5652 5, RFC 5272 4.1) for EST answers. The
//! certificates are a SET: readers must not expect an order.

use super::certificate::Certificate;
use super::pem;
use cms::content_info::ContentInfo;
use der::{Decode, Encode, ErrorKind, Tag};

/// Returns the body of the answer: base64 in lines, which older clients need (RFC 8951 allows
/// both).
pub fn to_base64(certificates: &[&Certificate]) -> der::Result<String> {
    let certificates = certificates
        .iter()
        .map(|certificate| decoded(certificate.der()))
        .collect::<der::Result<Vec<_>>>()?;
    let message = ContentInfo::try_from(certificates)?;
    Ok(pem::base64_lines(&message.to_der()?))
}

/// Decodes a certificate for the message, which encodes it again. That must not change a signed
/// byte.
fn decoded(der: &[u8]) -> der::Result<x509_cert::Certificate> {
    let certificate = x509_cert::Certificate::from_der(der)?;
    if certificate.to_der()? == der {
        Ok(certificate)
    } else {
        Err(ErrorKind::Noncanonical { tag: Tag::Sequence }.into())
    }
}

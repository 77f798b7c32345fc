//! Certificates without a message around them: certs-only CMS (RFC 5652 5, RFC 5272 4.1), in which
//! EST answers. It is a SET: readers must not expect an order.

use super::certificate::Certificate;
use super::pem;
use cms::content_info::ContentInfo;
use der::{Decode, Encode, ErrorKind, Tag};

/// The answer's body: base64 in lines, since older clients read no other (RFC 8951 allows both).
pub fn to_base64(certificates: &[&Certificate]) -> der::Result<String> {
    let certificates = certificates
        .iter()
        .map(|certificate| decoded(certificate.der()))
        .collect::<der::Result<Vec<_>>>()?;
    let message = ContentInfo::try_from(certificates)?;
    Ok(pem::base64_lines(&message.to_der()?))
}

/// The message encodes it again, and must not change a byte of what was signed.
fn decoded(der: &[u8]) -> der::Result<x509_cert::Certificate> {
    let certificate = x509_cert::Certificate::from_der(der)?;
    match certificate.to_der()? == der {
        true => Ok(certificate),
        false => Err(ErrorKind::Noncanonical { tag: Tag::Sequence }.into()),
    }
}

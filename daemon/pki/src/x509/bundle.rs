//! Reads and writes PEM text that holds several certificates.

use super::certificate::{Certificate, CertificateRefusal, PEM_LABEL};
use super::pem;

/// Longest PEM bundle that is accepted.
pub const BUNDLE_BYTES_MAX: usize = 256 * 1024;

/// Most certificates in one bundle.
pub const BUNDLE_CERTIFICATES_MAX: usize = 16;

/// The reason why text is no bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleRefusal {
    #[error("{bytes} bytes are too many for a bundle; at most {BUNDLE_BYTES_MAX} are read")]
    TooLarge { bytes: usize },
    /// The bundle has no certificate, or too many.
    #[error("a bundle holds 1 to {BUNDLE_CERTIFICATES_MAX} certificates, not {0}")]
    Length(usize),
    /// The text is not PEM.
    #[error(transparent)]
    Pem(#[from] pem::PemRefusal),
    /// One of the certificates cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateRefusal),
}

/// Returns the chain as PEM in the given order: leaf first, as TLS sends it.
pub fn render_chain(chain: &[Certificate]) -> String {
    chain.iter().map(Certificate::to_pem).collect()
}

/// Reads one certificate: DER, base64 of DER, or the first one of a PEM bundle.
pub fn parse_first(bytes: &[u8]) -> Result<Certificate, BundleRefusal> {
    if bytes.len() > BUNDLE_BYTES_MAX {
        return Err(BundleRefusal::TooLarge { bytes: bytes.len() });
    }
    if bytes.first() == Some(&0x30) {
        return Ok(Certificate::parse(bytes)?);
    }
    let blocks = pem::blocks(bytes)?;
    let der = match blocks.into_iter().find(|block| block.label == PEM_LABEL) {
        Some(block) => block.der,
        None => pem::decode_base64(bytes)?.into(),
    };
    Ok(Certificate::parse(&der)?)
}

/// Reads all certificates of a PEM bundle, in order; blocks of other kinds are skipped.
pub fn parse_bundle(text: &[u8]) -> Result<Vec<Certificate>, BundleRefusal> {
    if text.len() > BUNDLE_BYTES_MAX {
        return Err(BundleRefusal::TooLarge { bytes: text.len() });
    }
    let mut blocks = pem::blocks(text)?;
    blocks.retain(|block| block.label == PEM_LABEL);
    match blocks.len() {
        1..=BUNDLE_CERTIFICATES_MAX => blocks
            .iter()
            .map(|block| Ok(Certificate::parse(&block.der)?))
            .collect(),
        number => Err(BundleRefusal::Length(number)),
    }
}

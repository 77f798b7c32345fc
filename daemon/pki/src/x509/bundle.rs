//! Chains and bundles: several certificates in one PEM text.

use super::certificate::{Certificate, CertificateRefusal, PEM_LABEL};
use super::pem;

/// The longest PEM bundle that is read.
pub const BUNDLE_BYTES_MAX: usize = 256 * 1024;

/// How many certificates one bundle may hold.
pub const BUNDLE_CERTIFICATES_MAX: usize = 16;

/// Why text is no bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleRefusal {
    /// Larger than [`BUNDLE_BYTES_MAX`].
    #[error("{bytes} bytes are too many for a bundle; at most {BUNDLE_BYTES_MAX} are read")]
    TooLarge {
        /// How many came.
        bytes: usize,
    },
    /// Without a certificate, or with too many.
    #[error("a bundle holds 1 to {BUNDLE_CERTIFICATES_MAX} certificates, not {0}")]
    Length(usize),
    /// Not PEM.
    #[error(transparent)]
    Pem(#[from] pem::PemRefusal),
    /// One of its certificates cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateRefusal),
}

/// The chain as PEM, in the order given: leaf first, as TLS sends it.
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
        None => pem::decode_base64(bytes)?,
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

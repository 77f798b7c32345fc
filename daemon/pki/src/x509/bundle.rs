//! Reads files that hold certificates, and writes chains as PEM.
//!
//! Every place that takes a certificate from elsewhere reads it here, so that all places take the
//! same kinds of file and refuse the others in the same words.

use super::certificate::{Certificate, CertificateRefusal};
use super::contents::{self, Found};
use super::pem;
use crate::der_bytes::Der;

pub use super::other_file::OtherFile;

/// Longest file of certificates that is accepted, except of trust anchors.
pub const BUNDLE_BYTES_MAX: usize = 256 * 1024;

/// Most certificates in one file, except of trust anchors.
pub const BUNDLE_CERTIFICATES_MAX: usize = 64;

/// Most trust anchors in one file: a system has some 150.
const TRUST_ANCHORS_MAX: usize = 4096;

/// The reason why no certificates are read from a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleRefusal {
    /// Larger than [`BUNDLE_BYTES_MAX`].
    #[error("{bytes} bytes are too many for a bundle; at most {BUNDLE_BYTES_MAX} are read")]
    TooLarge {
        /// Bytes received.
        bytes: usize,
    },
    /// The file has too many certificates.
    #[error("it holds {number} certificates; at most {max} are read")]
    TooMany { number: usize, max: usize },
    /// One certificate is needed, and the file has several in no order.
    #[error(
        "it holds {0} certificates in no order, and one is needed; `openssl pkcs7 -in FILE \
         -print_certs` lists them: give the file of one"
    )]
    NotOne(usize),
    /// OpenSSL's trust settings reject every certificate in the file for TLS servers.
    #[error(
        "its trust settings reject every certificate in it for servers; `openssl x509 -in FILE \
         -clrtrust -clrreject` removes them"
    )]
    NoneTrusted,
    /// The file is PEM, and damaged.
    #[error(transparent)]
    Pem(#[from] pem::PemRefusal),
    /// The file holds no certificate.
    #[error(transparent)]
    Other(#[from] OtherFile),
    /// One of the certificates cannot be read.
    #[error("certificate {number} of the file: {refusal}")]
    Certificate {
        /// Counted from 1.
        number: usize,
        refusal: CertificateRefusal,
    },
}

/// Returns the chain as PEM in the given order: leaf first, as TLS sends it.
pub fn render_chain(chain: &[Certificate]) -> String {
    chain.iter().map(Certificate::to_pem).collect()
}

/// Reads the one certificate that a file is about: the first, or, in PKCS#7, which has no order,
/// the one that is no issuer of the others.
pub fn parse_first(bytes: &[u8]) -> Result<Certificate, BundleRefusal> {
    let found = find(bytes)?;
    let unordered = found.len() > 1 && found.iter().any(|it| it.in_set);
    let read = if unordered { &found[..] } else { &found[..1] };
    let mut certificates = parse(read)?;
    if unordered {
        let is_issuer = |it: &Certificate| {
            let mut others = certificates.iter().filter(|other| *other != it);
            others.any(|other| other.issuer_der() == it.subject_der())
        };
        let mut last = certificates.iter().filter(|it| !is_issuer(it));
        return match (last.next(), last.next()) {
            (Some(only), None) => Ok(only.clone()),
            _ => Err(BundleRefusal::NotOne(found.len())),
        };
    }
    Ok(certificates.swap_remove(0))
}

/// Reads all certificates of a file, in order; PEM blocks of other kinds are skipped.
pub fn parse_bundle(bytes: &[u8]) -> Result<Vec<Certificate>, BundleRefusal> {
    let found = find(bytes)?;
    within(found.len(), BUNDLE_CERTIFICATES_MAX)?;
    parse(&found)
}

/// Finds the certificates of a file that is to name the trusted authorities of TLS servers, as DER
/// and unread: a verifier reads them. OpenSSL's trust settings may reject one for servers: it is
/// left out.
pub fn trust_anchors(bytes: &[u8]) -> Result<Vec<Der>, BundleRefusal> {
    let mut found = contents::certificates(bytes)?;
    within(found.len(), TRUST_ANCHORS_MAX)?;
    found.retain(|it| it.trusted_for_servers);
    if found.is_empty() {
        return Err(BundleRefusal::NoneTrusted);
    }
    Ok(found.into_iter().map(|it| it.der).collect())
}

fn find(bytes: &[u8]) -> Result<Vec<Found>, BundleRefusal> {
    if bytes.len() > BUNDLE_BYTES_MAX {
        return Err(BundleRefusal::TooLarge { bytes: bytes.len() });
    }
    contents::certificates(bytes)
}

fn within(number: usize, max: usize) -> Result<(), BundleRefusal> {
    if number > max {
        return Err(BundleRefusal::TooMany { number, max });
    }
    Ok(())
}

fn parse(found: &[Found]) -> Result<Vec<Certificate>, BundleRefusal> {
    let numbered = (1..).zip(found);
    numbered
        .map(|(number, it)| {
            Certificate::parse(&it.der)
                .map_err(|refusal| BundleRefusal::Certificate { number, refusal })
        })
        .collect()
}

//! Reads certification requests (PKCS #10, RFC 2986) in the forms that devices send.
//!
//! A request supplies a public key with proof of possession, and names that a profile may allow.
//! Requested extensions are never copied: the profile alone decides the extensions.

use super::key::{KeyRefusal, PublicKey};
use super::name::{self, NameRefusal};
use super::san::{NAMES_MAX, SanRefusal, SubjectAlternativeName};
use super::signature::{self, SignatureRefusal};
use super::wire;
use super::{oid, pem};
use crate::der_bytes::Der;
use crate::error_code::Code;
use der::asn1::AnyRef;
use der::referenced::OwnedToRef;
use der::{Decode, Encode, Reader, SliceReader};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::request::{CertReq, CertReqInfo};

/// Longest request that is accepted, in any encoding. RSA-4096 with many names needs 4 KiB.
pub const CSR_BYTES_MAX: usize = 16 * 1024;

/// A well-formed request with a valid proof of possession.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    public_key: PublicKey,
    common_name: Option<String>,
    subject_alternative_names: Vec<SubjectAlternativeName>,
}

/// The reason why a request is refused. Each message says how to correct the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrRefusal {
    #[error("the request has {bytes} bytes; at most {CSR_BYTES_MAX} are read")]
    TooLarge { bytes: usize },
    /// The bytes are no PKCS #10 request in a supported encoding.
    #[error(
        "the request cannot be read ({0}); send one PKCS #10 certification request as PEM, \
         base64 or DER"
    )]
    Malformed(String),
    /// The encoding is BER or otherwise not canonical DER.
    #[error("the request is not canonical DER; make it with a conforming library, such as OpenSSL")]
    NotCanonical,
    /// The proof of possession fails.
    #[error(
        "the request's signature does not match its public key; sign it with the private key of \
         the key pair to be certified"
    )]
    BadSignature,
    /// The request is signed with an algorithm that is broken or unknown.
    #[error(
        "the request is signed with {0}; sign with ECDSA or RSA over SHA-256, SHA-384 or SHA-512, \
         or with Ed25519"
    )]
    UnsupportedAlgorithm(String),
    /// The public key is refused.
    #[error(transparent)]
    Key(KeyRefusal),
    /// The subject or a subject alternative name is refused.
    #[error("the requested name is refused: {0}")]
    BadName(String),
}

impl CsrRefusal {
    /// Returns the stable code of the API.
    pub fn code(&self) -> Code {
        match self {
            CsrRefusal::TooLarge { .. } => Code::CsrTooLarge,
            CsrRefusal::Malformed(_) | CsrRefusal::Key(KeyRefusal::Malformed(_)) => {
                Code::CsrMalformed
            }
            CsrRefusal::NotCanonical | CsrRefusal::Key(KeyRefusal::NotCanonical) => {
                Code::CsrNotCanonical
            }
            CsrRefusal::BadSignature => Code::CsrBadSignature,
            CsrRefusal::UnsupportedAlgorithm(_) => Code::CsrUnsupportedAlgorithm,
            CsrRefusal::Key(KeyRefusal::WeakKey(_)) => Code::CsrWeakKey,
            CsrRefusal::Key(KeyRefusal::UnsupportedKey(_)) => Code::CsrUnsupportedKey,
            CsrRefusal::BadName(_) => Code::CsrBadName,
        }
    }
}

impl Csr {
    /// Reads PEM, bare base64 or DER, and checks encoding, key, names and proof of possession.
    pub fn parse(bytes: &[u8]) -> Result<Csr, CsrRefusal> {
        if bytes.len() > CSR_BYTES_MAX {
            return Err(CsrRefusal::TooLarge { bytes: bytes.len() });
        }
        Csr::from_der(&unarmored(bytes)?)
    }

    fn from_der(der: &[u8]) -> Result<Csr, CsrRefusal> {
        let (request, public_key) = read_proven(der)?;
        Ok(Csr {
            public_key,
            common_name: name::read_common_name(&request.info.subject)?,
            subject_alternative_names: read_alternative_names(&request.info)?,
        })
    }

    /// Returns the public key, with possession of the private key proven.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Returns the common name of the requested subject.
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// Returns the requested dNSNames and iPAddresses, each once. Other kinds are left out.
    pub fn subject_alternative_names(&self) -> &[SubjectAlternativeName] {
        &self.subject_alternative_names
    }
}

/// Returns the DER without its armour. A DER SEQUENCE begins with `0x30`, its base64 with `M`, and
/// PEM with dashes.
pub(super) fn unarmored(bytes: &[u8]) -> Result<Der, CsrRefusal> {
    if bytes.first() == Some(&0x30) {
        return Ok(bytes.into());
    }
    let blocks = pem::blocks(bytes)?;
    if blocks.is_empty() {
        return Ok(pem::decode_base64(bytes)?.into());
    }
    let mut requests = blocks
        .into_iter()
        .filter(|block| block.label.ends_with("CERTIFICATE REQUEST"));
    match (requests.next(), requests.next()) {
        (Some(request), None) => Ok(request.der()?),
        (None, _) => Err(CsrRefusal::Malformed(
            "no CERTIFICATE REQUEST block".to_owned(),
        )),
        (Some(_), Some(_)) => Err(CsrRefusal::Malformed("more than one request".to_owned())),
    }
}

/// Returns the key of a request in canonical DER, with its possession proven. Names are not read:
/// an authority's may be of any kind.
pub(super) fn proven_key(der: &[u8]) -> Result<PublicKey, CsrRefusal> {
    read_proven(der).map(|(_, public_key)| public_key)
}

fn read_proven(der: &[u8]) -> Result<(CertReq, PublicKey), CsrRefusal> {
    let request = CertReq::from_der(der).map_err(malformed)?;
    // Later steps read the decoded request, so it must be exactly what was signed.
    if request.to_der().map_err(malformed)? != der {
        return Err(CsrRefusal::NotCanonical);
    }
    let public_key = read_public_key(&request.info)?;
    verify_possession(&request, signed_part(der)?, &public_key)?;
    Ok((request, public_key))
}

fn read_public_key(info: &CertReqInfo) -> Result<PublicKey, CsrRefusal> {
    let spki_der = info.public_key.to_der().map_err(malformed)?;
    PublicKey::from_spki_der(&spki_der).map_err(CsrRefusal::Key)
}

/// The first element of the request's SEQUENCE.
fn signed_part(der: &[u8]) -> Result<&[u8], CsrRefusal> {
    let request = AnyRef::from_der(der).map_err(malformed)?;
    SliceReader::new(request.value())
        .and_then(|mut parts| parts.tlv_bytes())
        .map_err(malformed)
}

fn verify_possession(
    request: &CertReq,
    message: &[u8],
    public_key: &PublicKey,
) -> Result<(), CsrRefusal> {
    let signature = request
        .signature
        .as_bytes()
        .ok_or(CsrRefusal::BadSignature)?;
    let algorithm = request.algorithm.owned_to_ref();
    signature::verify(public_key, algorithm, message, signature).map_err(|refusal| match refusal {
        SignatureRefusal::UnsupportedAlgorithm(oid) => CsrRefusal::UnsupportedAlgorithm(oid),
        SignatureRefusal::Mismatch => CsrRefusal::BadSignature,
    })
}

fn read_alternative_names(info: &CertReqInfo) -> Result<Vec<SubjectAlternativeName>, CsrRefusal> {
    let extensions = requested_extensions(info)?;
    let requested: Option<SubjectAltName> =
        wire::extension(&extensions, oid::SUBJECT_ALT_NAME).map_err(malformed)?;
    let mut names = Vec::new();
    for general_name in requested.iter().flat_map(|names| &names.0) {
        let name = SubjectAlternativeName::from_general_name(general_name)?;
        names.extend(name.filter(|name| !names.contains(name)));
    }
    if names.len() > NAMES_MAX {
        let reason = format!("more than {NAMES_MAX} subject alternative names");
        return Err(CsrRefusal::BadName(reason));
    }
    Ok(names)
}

/// Returns the extensions of the only extensionRequest attribute (RFC 2985 5.4.2).
pub(super) fn requested_extensions(info: &CertReqInfo) -> Result<Vec<Extension>, CsrRefusal> {
    let mut values = info
        .attributes
        .iter()
        .filter(|attribute| attribute.oid == oid::EXTENSION_REQUEST)
        .flat_map(|attribute| attribute.values.iter());
    match (values.next(), values.next()) {
        (None, _) => Ok(Vec::new()),
        (Some(value), None) => value.decode_as().map_err(malformed),
        (Some(_), Some(_)) => Err(CsrRefusal::Malformed(
            "more than one extensionRequest".to_owned(),
        )),
    }
}

pub(super) fn malformed(error: der::Error) -> CsrRefusal {
    CsrRefusal::Malformed(error.to_string())
}

impl From<pem::PemRefusal> for CsrRefusal {
    fn from(refusal: pem::PemRefusal) -> CsrRefusal {
        CsrRefusal::Malformed(refusal.to_string())
    }
}

impl From<NameRefusal> for CsrRefusal {
    fn from(refusal: NameRefusal) -> CsrRefusal {
        CsrRefusal::BadName(refusal.to_string())
    }
}

impl From<SanRefusal> for CsrRefusal {
    fn from(refusal: SanRefusal) -> CsrRefusal {
        CsrRefusal::BadName(refusal.to_string())
    }
}

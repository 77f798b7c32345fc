//! Assembles certificates from signed bytes and signature, and reads their fields.
//!
//! The certificates read here were issued by us or by an authority that we trust. Reading is no
//! path validation (RFC 5280 6): nothing here authenticates a peer.

use super::key::{KeyRefusal, PublicKey, SignatureAlgorithm, digest_of};
use super::serial::{SerialNumber, SerialRefusal};
use super::signature::{self, SignatureRefusal};
use super::subject::Subject;
use super::{oid, pem, wire};
use crate::der_bytes::Der;
use crate::unix_seconds::UnixSeconds;
use aws_lc_rs::digest;
use der::asn1::{AnyRef, BitStringRef, OctetString};
use der::{Decode, Encode, Tag, Tagged};
use spki::AlgorithmIdentifierRef;
use std::fmt;
use std::ops::Range;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, BasicConstraints, KeyUsage};
use x509_cert::name::Name;

/// Longest certificate that is accepted.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

/// The label of a certificate in PEM (RFC 7468 5.1).
pub(super) const PEM_LABEL: &str = "CERTIFICATE";

/// An X.509 version 3 certificate with the fields that are used here.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Der,
    sha256: [u8; 32],
    tbs: Range<usize>,
    algorithm_der: Der,
    signature: Vec<u8>,
    serial: SerialNumber,
    issuer_der: Der,
    subject: Name,
    subject_der: Der,
    not_before: UnixSeconds,
    not_after: UnixSeconds,
    spki_der: Der,
    extensions: ReadExtensions,
}

/// The extensions that decide what a certificate may be used for.
#[derive(Clone, PartialEq, Eq)]
struct ReadExtensions {
    subject_key_identifier: Option<Vec<u8>>,
    authority_key_identifier: Option<Vec<u8>>,
    basic_constraints: Option<BasicConstraints>,
    key_usage: Option<KeyUsage>,
}

/// The reason why bytes are no certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateRefusal {
    /// Larger than [`CERTIFICATE_BYTES_MAX`].
    #[error(
        "{bytes} bytes are too many for a certificate; at most {CERTIFICATE_BYTES_MAX} are read"
    )]
    TooLarge { bytes: usize },
    /// The bytes are no DER certificate.
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
    /// The outer signature algorithm differs from the signed one (RFC 5280 4.1.1.2).
    #[error("the certificate names two different signature algorithms")]
    TwoAlgorithms,
    /// The serial number is invalid.
    #[error(transparent)]
    Serial(#[from] SerialRefusal),
}

/// Returns a certificate as one PEM block.
pub fn render_pem(der: &[u8]) -> String {
    pem::encode(PEM_LABEL, der)
}

/// Assembles a certificate from the signed bytes and their signature.
///
/// The signature is not verified: see [`Certificate::verify_issued_by`].
pub fn assemble(
    tbs: &[u8],
    algorithm: SignatureAlgorithm,
    signature: &[u8],
) -> Result<Certificate, CertificateRefusal> {
    let certificate = wire::Signed {
        to_be_signed: AnyRef::from_der(tbs)?,
        signature_algorithm: AnyRef::from_der(algorithm.identifier_der())?,
        signature: BitStringRef::from_bytes(signature)?,
    };
    Certificate::parse(&certificate.to_der()?)
}

impl Certificate {
    /// Reads a DER certificate. Trailing bytes are an error.
    pub fn parse(der: &[u8]) -> Result<Certificate, CertificateRefusal> {
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(CertificateRefusal::TooLarge { bytes: der.len() });
        }
        let outer = wire::Signed::from_der(der)?;
        let tbs_der = outer.to_be_signed.to_der()?;
        let tbs = wire::TbsCertificate::from_der(&tbs_der)?;
        if tbs.signature != outer.signature_algorithm {
            return Err(CertificateRefusal::TwoAlgorithms);
        }
        let subject_der = tbs.subject.to_der()?;
        Ok(Certificate {
            der: der.into(),
            sha256: digest_of(&digest::SHA256, der),
            tbs: tbs_range(der, tbs_der.len())?,
            algorithm_der: tbs.signature.to_der()?.into(),
            signature: signature_octets(&outer.signature)?,
            serial: read_serial(tbs.serial_number)?,
            issuer_der: tbs.issuer.to_der()?.into(),
            subject: Name::from_der(&subject_der)?,
            subject_der: subject_der.into(),
            not_before: unix_seconds(tbs.validity.not_before),
            not_after: unix_seconds(tbs.validity.not_after),
            spki_der: tbs.subject_public_key_info.to_der()?.into(),
            extensions: ReadExtensions::read(&tbs.extensions.unwrap_or_default())?,
        })
    }

    /// Returns the DER of the certificate.
    pub fn der(&self) -> &Der {
        &self.der
    }

    /// Returns the signed bytes.
    pub fn tbs_bytes(&self) -> &[u8] {
        &self.der[self.tbs.clone()]
    }

    /// Returns the contents of the signature's BIT STRING.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Returns the serial number.
    pub fn serial(&self) -> &SerialNumber {
        &self.serial
    }

    /// Returns the issuer as text (RFC 4514).
    pub fn issuer(&self) -> String {
        Name::from_der(&self.issuer_der).map_or_else(|_| "unreadable".into(), |it| it.to_string())
    }

    /// Returns the issuer as DER, byte for byte.
    pub fn issuer_der(&self) -> &Der {
        &self.issuer_der
    }

    /// Returns the subject as DER, byte for byte.
    pub fn subject_der(&self) -> &Der {
        &self.subject_der
    }

    /// Returns the subject as text (RFC 4514).
    pub fn subject(&self) -> String {
        self.subject.to_string()
    }

    /// Returns the common name of the subject, if there is exactly one and it is text.
    pub fn common_name(&self) -> Option<String> {
        let subject = Subject::read(&self.subject_der).ok()?;
        subject.common_name().ok().flatten()
    }

    /// Returns the first second of the validity, in Unix seconds.
    pub fn not_before(&self) -> UnixSeconds {
        self.not_before
    }

    /// Returns the last second of the validity, in Unix seconds.
    pub fn not_after(&self) -> UnixSeconds {
        self.not_after
    }

    /// Returns the DER SubjectPublicKeyInfo, unchecked.
    pub fn spki_der(&self) -> &Der {
        &self.spki_der
    }

    /// Returns the public key. Fails for key types that only outside authorities use.
    pub fn public_key(&self) -> Result<PublicKey, KeyRefusal> {
        PublicKey::from_spki_der(&self.spki_der)
    }

    /// Returns the subject key identifier: the authority key identifier of certificates below.
    pub fn subject_key_identifier(&self) -> Option<&[u8]> {
        self.extensions.subject_key_identifier.as_deref()
    }

    /// Returns the authority key identifier.
    pub fn authority_key_identifier(&self) -> Option<&[u8]> {
        self.extensions.authority_key_identifier.as_deref()
    }

    /// Returns true if basicConstraints has cA.
    pub fn is_ca(&self) -> bool {
        let constraints = self.extensions.basic_constraints.as_ref();
        constraints.is_some_and(|constraints| constraints.ca)
    }

    /// Returns pathLenConstraint; `None` if unlimited.
    pub fn path_length(&self) -> Option<u8> {
        let constraints = self.extensions.basic_constraints.as_ref();
        constraints.and_then(|constraints| constraints.path_len_constraint)
    }

    /// Returns true if the key may sign certificates.
    pub fn may_sign_certificates(&self) -> bool {
        self.is_ca()
            && self
                .extensions
                .key_usage
                .is_some_and(|usage| usage.key_cert_sign())
    }

    /// Returns true if the key may sign revocation lists.
    pub fn may_sign_crls(&self) -> bool {
        self.extensions
            .key_usage
            .is_some_and(|usage| usage.crl_sign())
    }

    /// Returns true if issuer and subject are the same name.
    pub fn is_self_issued(&self) -> bool {
        self.issuer_der == self.subject_der
    }

    /// Returns the SHA-256 of the DER: the thumbprint of the provisioning service.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Verifies the signature with the issuer's key. Names and validity are not checked.
    pub fn verify_issued_by(&self, issuer: &PublicKey) -> Result<(), SignatureRefusal> {
        let algorithm = AlgorithmIdentifierRef::from_der(&self.algorithm_der)
            .map_err(|_| SignatureRefusal::UnsupportedAlgorithm("unreadable".to_owned()))?;
        signature::verify(issuer, algorithm, self.tbs_bytes(), &self.signature)
    }

    /// Returns the certificate as one PEM block.
    pub fn to_pem(&self) -> String {
        render_pem(&self.der)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({} serial {})", self.subject, self.serial)
    }
}

impl ReadExtensions {
    fn read(extensions: &[Extension]) -> der::Result<ReadExtensions> {
        let subject_key: Option<OctetString> =
            wire::extension(extensions, oid::SUBJECT_KEY_IDENTIFIER)?;
        let authority_key: Option<AuthorityKeyIdentifier> =
            wire::extension(extensions, oid::AUTHORITY_KEY_IDENTIFIER)?;
        Ok(ReadExtensions {
            subject_key_identifier: subject_key.map(|octets| octets.as_bytes().to_vec()),
            authority_key_identifier: authority_key
                .and_then(|identifier| identifier.key_identifier)
                .map(|octets| octets.as_bytes().to_vec()),
            basic_constraints: wire::extension(extensions, oid::BASIC_CONSTRAINTS)?,
            key_usage: wire::extension(extensions, oid::KEY_USAGE)?,
        })
    }
}

/// Returns the range of the to-be-signed bytes: they follow the header of the outer SEQUENCE.
pub(super) fn tbs_range(der: &[u8], tbs_length: usize) -> der::Result<Range<usize>> {
    let start = der.len() - AnyRef::from_der(der)?.value().len();
    Ok(start..start + tbs_length)
}

pub(super) fn signature_octets(bits: &BitStringRef<'_>) -> Result<Vec<u8>, CertificateRefusal> {
    bits.as_bytes()
        .map(<[u8]>::to_vec)
        .ok_or_else(|| CertificateRefusal::Malformed("the signature has unused bits".to_owned()))
}

fn read_serial(integer: AnyRef<'_>) -> Result<SerialNumber, CertificateRefusal> {
    integer.tag().assert_eq(Tag::Integer)?;
    Ok(SerialNumber::from_der_contents(integer.value())?)
}

fn unix_seconds(time: x509_cert::time::Time) -> UnixSeconds {
    // At most the year 9999.
    UnixSeconds::new(time.to_unix_duration().as_secs().cast_signed())
}

impl From<der::Error> for CertificateRefusal {
    fn from(error: der::Error) -> CertificateRefusal {
        CertificateRefusal::Malformed(error.to_string())
    }
}

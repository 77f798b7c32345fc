//! Reads OCSP requests (RFC 6960 4.1). The bytes come from strangers: every part has a limit.

use super::super::issuer::IssuerFields;
use super::super::oid;
use super::super::serial::SerialNumber;
use super::wire;
use crate::der_bytes::Der;
use aws_lc_rs::digest;
use der::asn1::{AnyRef, ObjectIdentifier, OctetString};
use der::{Decode, Encode, Tag, Tagged};
use x509_cert::ext::Extension;

/// The longest request that is read, in octets.
pub const REQUEST_BYTES_MAX: usize = 4_096;
/// Most certificates of one request.
pub const CERTIFICATES_MAX: usize = 16;
/// The longest nonce, in octets (RFC 8954 2.1).
const NONCE_OCTETS_MAX: usize = 32;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestRefusal {
    #[error("the request has more than {REQUEST_BYTES_MAX} bytes; ask for fewer certificates")]
    TooLong,
    #[error("the request is no OCSP request in DER (RFC 6960, section 4.1.1)")]
    Malformed,
    #[error("the request is not of version 1")]
    Version,
    #[error("the request is not for 1 to {CERTIFICATES_MAX} certificates; send a request for each")]
    Count,
    /// RFC 8954 2.1.
    #[error("the nonce has not 1 to {NONCE_OCTETS_MAX} octets")]
    Nonce,
    #[error("the request has a critical extension that is not supported here; leave it out")]
    CriticalExtension,
    #[error("the issuer is not named by SHA-1, SHA-256, SHA-384 or SHA-512; use one of these")]
    Digest,
}

/// The digest by which a request names the issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Digest {
    /// The only one of RFC 5019; it identifies here, and protects nothing.
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Digest {
    const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    fn of(identifier: ObjectIdentifier) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.oid() == identifier)
    }

    fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Sha1 => oid::SHA1,
            Self::Sha256 => oid::SHA256,
            Self::Sha384 => oid::SHA384,
            Self::Sha512 => oid::SHA512,
        }
    }

    fn of_octets(self, octets: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, octets).as_ref().to_vec()
    }
}

/// `CertID`: which certificate a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateId {
    der: Der,
    digest: Digest,
    issuer_name_hash: Vec<u8>,
    issuer_key_hash: Vec<u8>,
    serial: SerialNumber,
}

impl CertificateId {
    /// Names a certificate by SHA-1, as TLS clients look for it in a stapled answer.
    pub fn new(issuer: &IssuerFields, serial: &SerialNumber) -> der::Result<Self> {
        let digest = Digest::Sha1;
        let issuer_name_hash = digest.of_octets(issuer.name_der());
        let issuer_key_hash = digest.of_octets(issuer.public_key().key_bits());
        let contents = serial.der_contents();
        let id = wire::CertId {
            hash_algorithm: wire::HashIdentifier {
                algorithm: digest.oid(),
                parameters: Some(AnyRef::NULL),
            },
            issuer_name_hash: OctetString::new(issuer_name_hash.as_slice())?,
            issuer_key_hash: OctetString::new(issuer_key_hash.as_slice())?,
            serial_number: AnyRef::new(Tag::Integer, &contents)?,
        };
        Ok(Self {
            der: id.to_der()?.into(),
            digest,
            serial: serial.clone(),
            issuer_name_hash,
            issuer_key_hash,
        })
    }

    /// Returns true if `issuer` is the one that is named, by its name and by its key.
    pub fn names(&self, issuer: &IssuerFields) -> bool {
        self.issuer_name_hash == self.digest.of_octets(issuer.name_der())
            && self.issuer_key_hash == self.digest.of_octets(issuer.public_key().key_bits())
    }

    /// Returns the identifier as the client has sent it: an answer repeats it octet by octet.
    pub fn der(&self) -> &Der {
        &self.der
    }

    /// Returns the serial number; it may be one that no authority here gives.
    pub fn serial(&self) -> &SerialNumber {
        &self.serial
    }

    fn read(der: Der) -> Result<Self, RequestRefusal> {
        let malformed = |_| RequestRefusal::Malformed;
        let id = wire::CertId::from_der(&der).map_err(malformed)?;
        let has_parameters = id.hash_algorithm.parameters.is_some_and(|it| !it.is_null());
        let digest = Digest::of(id.hash_algorithm.algorithm).filter(|_| !has_parameters);
        let digest = digest.ok_or(RequestRefusal::Digest)?;
        if id.serial_number.tag() != Tag::Integer {
            return Err(RequestRefusal::Malformed);
        }
        let serial = SerialNumber::from_elsewhere(id.serial_number.value());
        Ok(Self {
            digest,
            issuer_name_hash: id.issuer_name_hash.as_bytes().to_vec(),
            issuer_key_hash: id.issuer_key_hash.as_bytes().to_vec(),
            serial: serial.map_err(|_| RequestRefusal::Malformed)?,
            der,
        })
    }
}

/// A nonce of 1 to 32 octets (RFC 8954).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce(Vec<u8>);

impl Nonce {
    /// Returns the octets.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    fn read(extension: &Extension) -> Result<Self, RequestRefusal> {
        let value = extension.extn_value.as_bytes();
        let nonce = OctetString::from_der(value).map_err(|_| RequestRefusal::Nonce)?;
        let octets = nonce.as_bytes();
        if (1..=NONCE_OCTETS_MAX).contains(&octets.len()) {
            return Ok(Self(octets.to_vec()));
        }
        Err(RequestRefusal::Nonce)
    }
}

/// A request for the status of certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusRequest {
    /// At least one, in the order of the request; clients within RFC 5019 ask for one.
    pub certificates: Vec<CertificateId>,
    pub nonce: Option<Nonce>,
}

impl StatusRequest {
    /// Reads a request in DER.
    pub fn parse(der: &[u8]) -> Result<Self, RequestRefusal> {
        if der.len() > REQUEST_BYTES_MAX {
            return Err(RequestRefusal::TooLong);
        }
        let malformed = |_| RequestRefusal::Malformed;
        let request = wire::OcspRequest::from_der(der).map_err(malformed)?;
        let request = request.tbs_request;
        if request.version.is_some_and(|it| it != 0) {
            return Err(RequestRefusal::Version);
        }
        let singles = request.request_list;
        if !(1..=CERTIFICATES_MAX).contains(&singles.len()) {
            return Err(RequestRefusal::Count);
        }
        let of_singles = singles.iter().flat_map(|it| &it.single_request_extensions);
        if of_singles.flatten().any(|it| it.critical) {
            return Err(RequestRefusal::CriticalExtension);
        }
        let mut nonce = None;
        for extension in request.request_extensions.iter().flatten() {
            if extension.extn_id == oid::OCSP_NONCE {
                let read = Nonce::read(extension)?;
                if nonce.replace(read).is_some() {
                    return Err(RequestRefusal::Malformed);
                }
            } else if extension.critical {
                return Err(RequestRefusal::CriticalExtension);
            }
        }
        let certificates = singles.iter().map(|it| {
            let certificate = it.req_cert.to_der().map_err(malformed)?;
            CertificateId::read(certificate.into())
        });
        Ok(Self {
            certificates: certificates.collect::<Result<_, _>>()?,
            nonce,
        })
    }
}

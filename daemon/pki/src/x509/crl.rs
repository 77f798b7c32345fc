//! Builds revocation lists (RFC 5280 5): a full list for each generation, signed by its own key.
//!
//! The list is built field by field, because the builder of x509-cert copies the authority key
//! identifier of the issuer's certificate, which names the key above. A list covers everything that
//! its key has signed, so it needs no delta, no indirect list and no issuing distribution point.
//!
//! The builder refuses invalid input, and its output must still pass
//! [`lint::crl`](super::lint::crl).

use super::certificate::{CertificateRefusal, signature_octets, tbs_range};
use super::extensions::{authority_key_identifier, extension};
use super::issuer::IssuerFields;
use super::key::{PublicKey, SignatureAlgorithm};
use super::revocation::RevocationReason;
use super::serial::SerialNumber;
use super::signature::{self, SignatureRefusal};
use super::tbs::{BuildRefusal, time};
use super::{oid, wire};
use crate::crl_number::CrlNumber;
use crate::der_bytes::Der;
use crate::unix_seconds::UnixSeconds;
use der::asn1::{AnyRef, BitStringRef, Int, UintRef};
use der::{Decode, Encode, Tag};
use spki::AlgorithmIdentifierRef;
use std::fmt;
use std::ops::Range;
use x509_cert::certificate::Version;
use x509_cert::ext::Extension;

/// A revoked certificate, or an abandoned serial number for which a certificate may exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub serial: SerialNumber,
    /// The revocation date, in Unix seconds.
    pub revoked_at: UnixSeconds,
    /// The reason. [`RevocationReason::Unspecified`] is not encoded (RFC 5280 5.3.1).
    pub reason: RevocationReason,
}

/// The content of a revocation list.
#[derive(Clone, Copy, Debug)]
pub struct CrlContent<'a> {
    /// Greater than the number of every earlier list of this issuer.
    pub number: CrlNumber,
    /// The time of this update, in Unix seconds.
    pub this_update: UnixSeconds,
    /// The latest time of the next update, in Unix seconds.
    pub next_update: UnixSeconds,
    /// The revoked serial numbers, each once.
    pub entries: &'a [Entry],
}

/// DER `TBSCertList`, not yet linted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToBeSigned {
    pub(super) bytes: Der,
}

/// Builds the to-be-signed bytes of a list.
pub fn build(issuer: &IssuerFields, request: &CrlContent<'_>) -> Result<ToBeSigned, BuildRefusal> {
    let entries = request.entries.iter().map(revoked_certificate);
    let entries = entries.collect::<Result<Vec<_>, _>>()?;
    let list = wire::TbsCertList {
        version: Version::V2,
        signature: AnyRef::from_der(issuer.signature_algorithm().identifier_der())?,
        issuer: AnyRef::from_der(issuer.name_der())?,
        this_update: time(request.this_update)?,
        next_update: time(request.next_update)?,
        revoked_certificates: Some(entries).filter(|entries| !entries.is_empty()),
        extensions: vec![
            authority_key_identifier(issuer)?,
            extension(
                oid::CRL_NUMBER,
                false,
                &UintRef::new(request.number.as_octets())?,
            )?,
        ],
    };
    let bytes = list.to_der()?.into();
    Ok(ToBeSigned { bytes })
}

fn revoked_certificate(entry: &Entry) -> Result<wire::RevokedCertificate, BuildRefusal> {
    let extensions = match entry.reason {
        RevocationReason::Unspecified => None,
        reason => Some(vec![reason_code(reason)?]),
    };
    Ok(wire::RevokedCertificate {
        serial_number: Int::new(&entry.serial.der_contents())?,
        revocation_date: time(entry.revoked_at)?,
        extensions,
    })
}

fn reason_code(reason: RevocationReason) -> der::Result<Extension> {
    let code = [reason.code()];
    extension(
        oid::CRL_REASON,
        false,
        &AnyRef::new(Tag::Enumerated, &code)?,
    )
}

/// A signed revocation list.
#[derive(Clone, PartialEq, Eq)]
pub struct RevocationList {
    der: Der,
    tbs: Range<usize>,
    algorithm_der: Der,
    signature: Vec<u8>,
}

/// Assembles a revocation list from the signed bytes and their signature.
///
/// The signature is not verified: see [`RevocationList::verify_issued_by`].
pub fn assemble(
    tbs: &[u8],
    algorithm: SignatureAlgorithm,
    signature: &[u8],
) -> Result<RevocationList, CertificateRefusal> {
    let list = wire::Signed {
        to_be_signed: AnyRef::from_der(tbs)?,
        signature_algorithm: AnyRef::from_der(algorithm.identifier_der())?,
        signature: BitStringRef::from_bytes(signature)?,
    };
    RevocationList::parse(list.to_der()?.into())
}

impl RevocationList {
    /// Reads a list in DER. Only its signature is of use afterwards.
    pub(super) fn read(der: &[u8]) -> Result<Self, CertificateRefusal> {
        Self::parse(der.into())
    }

    fn parse(der: Der) -> Result<Self, CertificateRefusal> {
        let outer = wire::Signed::from_der(&der)?;
        let tbs_length = outer.to_be_signed.to_der()?.len();
        let algorithm_der = outer.signature_algorithm.to_der()?.into();
        let signature = signature_octets(&outer.signature)?;
        Ok(Self {
            tbs: tbs_range(&der, tbs_length)?,
            algorithm_der,
            signature,
            der,
        })
    }

    /// Returns the DER of the list.
    pub fn der(&self) -> &Der {
        &self.der
    }

    /// Returns the signed bytes.
    pub fn tbs_bytes(&self) -> &[u8] {
        &self.der[self.tbs.clone()]
    }

    /// Verifies the signature with the issuer's key.
    pub fn verify_issued_by(&self, issuer: &PublicKey) -> Result<(), SignatureRefusal> {
        let algorithm = AlgorithmIdentifierRef::from_der(&self.algorithm_der)
            .map_err(|_| SignatureRefusal::UnsupportedAlgorithm("unreadable".to_owned()))?;
        signature::verify(issuer, algorithm, self.tbs_bytes(), &self.signature)
    }
}

impl fmt::Debug for RevocationList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RevocationList({} bytes)", self.der.len())
    }
}

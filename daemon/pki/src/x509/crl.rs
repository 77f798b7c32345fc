//! Builds revocation lists (RFC 5280 5): of everything that a key has signed, or of a partition of
//! it by serial number; complete ones, and delta lists that change a complete one.
//!
//! The list is built field by field, because the builder of x509-cert copies the authority key
//! identifier of the issuer's certificate, which names the key above. Each list is signed by the
//! key that signed the certificates, so none is indirect.
//!
//! The builder refuses invalid input, and its output must still pass
//! [`lint::crl`](super::lint::crl).

use super::certificate::{CertificateRefusal, signature_octets, tbs_range};
use super::extensions::{
    authority_key_identifier, extension, freshest_crl, issuing_distribution_point,
};
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
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

/// CRLReason removeFromCRL (5.3.1): for delta lists, and no reason for a revocation.
const REMOVE_FROM_CRL: u8 = 8;
const UNSPECIFIED: u8 = 0;

/// A revoked certificate, or an abandoned serial number for which a certificate may exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub serial: SerialNumber,
    /// The revocation date, in Unix seconds.
    pub revoked_at: UnixSeconds,
    /// The reason. [`RevocationReason::Unspecified`] is not encoded (RFC 5280 5.3.1).
    pub reason: RevocationReason,
}

/// The extensions of a list that says more than its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Of a list of some certificates: issuingDistributionPoint (5.2.5).
    pub point: Option<IssuingPoint>,
    /// Of a delta list: the number of the complete list that it changes (5.2.4).
    pub base: Option<CrlNumber>,
    /// Of a complete list: the address of the delta list (5.2.6).
    pub delta_url: Option<String>,
}

/// The certificates that a list covers: those that name its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuingPoint {
    /// The address, as the certificates have it.
    pub url: String,
    /// No certificate of an authority is among them.
    pub only_user_certificates: bool,
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
    /// Of a delta list: those whose hold has ended since its base, with the date of the hold. The
    /// list has them with the reason removeFromCRL (5.3.1).
    pub released: &'a [Entry],
    pub scope: &'a Scope,
}

/// DER `TBSCertList`, not yet linted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToBeSigned {
    pub(super) bytes: Der,
}

/// Builds the to-be-signed bytes of a list.
pub fn build(issuer: &IssuerFields, request: &CrlContent<'_>) -> Result<ToBeSigned, BuildRefusal> {
    let revoked = request.entries.iter().map(|it| (it, it.reason.code()));
    let released = request.released.iter().map(|it| (it, REMOVE_FROM_CRL));
    let entries = revoked
        .chain(released)
        .map(|(it, reason)| revoked_certificate(it, reason));
    let entries = entries.collect::<Result<Vec<_>, _>>()?;
    let mut extensions = vec![
        authority_key_identifier(issuer)?,
        extension(
            oid::CRL_NUMBER,
            false,
            &UintRef::new(request.number.as_octets())?,
        )?,
    ];
    extensions.extend(list_extensions(request.scope)?);
    let list = wire::TbsCertList {
        version: Version::V2,
        signature: AnyRef::from_der(issuer.signature_algorithm().identifier_der())?,
        issuer: AnyRef::from_der(issuer.name_der())?,
        this_update: time(request.this_update)?,
        next_update: time(request.next_update)?,
        revoked_certificates: Some(entries).filter(|entries| !entries.is_empty()),
        extensions,
    };
    let bytes = list.to_der()?.into();
    Ok(ToBeSigned { bytes })
}

/// Returns the extensions after the number. A change of what a list means is critical.
fn list_extensions(scope: &Scope) -> der::Result<Vec<Extension>> {
    let mut extensions = Vec::new();
    if let Some(base) = &scope.base {
        let base = UintRef::new(base.as_octets())?;
        extensions.push(extension(oid::DELTA_CRL_INDICATOR, true, &base)?);
    }
    if let Some(point) = &scope.point {
        extensions.push(issuing_distribution_point(point)?);
    }
    if let Some(url) = &scope.delta_url {
        extensions.push(freshest_crl(url)?);
    }
    Ok(extensions)
}

fn revoked_certificate(
    entry: &Entry,
    reason: u8,
) -> Result<wire::RevokedCertificate, BuildRefusal> {
    let extensions = match reason {
        UNSPECIFIED => None,
        reason => Some(vec![reason_code(reason)?]),
    };
    Ok(wire::RevokedCertificate {
        serial_number: Int::new(&entry.serial.der_contents())?,
        revocation_date: time(entry.revoked_at)?,
        extensions,
    })
}

fn reason_code(reason: u8) -> der::Result<Extension> {
    let code = [reason];
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

/// More than the extensions of a list and its signature have, in octets.
const END_OCTETS: usize = 4_096;

/// Returns true if a list as [`build`] makes it names a delta list. Its end is read, because a list
/// has megabytes.
pub fn names_delta(list: &[u8]) -> bool {
    let end = &list[list.len().saturating_sub(END_OCTETS)..];
    let id = oid::FRESHEST_CRL.as_bytes();
    // An OBJECT IDENTIFIER, and then the OCTET STRING with the value.
    let header = [&[0x06, 0x03][..], id, &[0x04]].concat();
    end.windows(header.len()).any(|it| it == header)
}

/// Returns the revoked serial numbers of a list, and those with the reason removeFromCRL; `None`
/// where the bytes are no list as [`build`] makes them.
pub fn entries_and_released(list: &[u8]) -> Option<(Vec<Entry>, Vec<Entry>)> {
    let ([], list) = CertificateRevocationList::from_der(list).ok()? else {
        return None;
    };
    let mut entries = Vec::new();
    let mut released = Vec::new();
    for it in list.iter_revoked_certificates() {
        let code = it.reason_code().map_or(UNSPECIFIED, |(_, code)| code.0);
        let reason = match code {
            REMOVE_FROM_CRL => RevocationReason::CertificateHold,
            code => RevocationReason::from_code(code.into())?,
        };
        let entry = Entry {
            serial: SerialNumber::from_der_contents(it.raw_serial()).ok()?,
            revoked_at: UnixSeconds::new(it.revocation_date.timestamp()),
            reason,
        };
        match code {
            REMOVE_FROM_CRL => released.push(entry),
            _ => entries.push(entry),
        }
    }
    Some((entries, released))
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

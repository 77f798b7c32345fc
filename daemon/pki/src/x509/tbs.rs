//! Builds the to-be-signed bytes of a certificate, once; they are never changed afterwards.
//!
//! Invalid input is refused and never adjusted: a certificate that would outlive its issuer is not
//! shortened, and a path length is not reduced. The output must still pass [`lint`](super::lint).

use super::certificate::CERTIFICATE_BYTES_MAX;
use super::extensions;
use super::issuer::{Bounds, IssuerFields};
use super::key::{KeyType, PublicKey, SignatureAlgorithm};
use super::name::Subject;
use super::name_constraints::KeptConstraints;
use super::profile::{End, Kind, Profile};
use super::san::SubjectAlternativeName;
use super::serial::SerialNumber;
use super::wire;
use crate::der_bytes::Der;
use crate::error_code::Code;
use crate::unix_seconds::UnixSeconds;
use der::asn1::AnyRef;
use der::{DateTime, Decode, Encode, Tag};
use std::collections::BTreeSet;
use std::time::Duration;
use x509_cert::certificate::Version;
use x509_cert::time::{Time, Validity};

/// The longest signature (RSA-4096) with its algorithm and all headers.
const SIGNATURE_BYTES_MAX: usize = 600;

/// The content of a certificate to build.
#[derive(Clone, Copy, Debug)]
pub struct CertificateContent<'a> {
    pub profile: &'a Profile,
    pub subject: &'a Subject,
    /// The key to certify.
    pub public_key: &'a PublicKey,
    /// The requested names; the profile decides whether the certificate carries them.
    pub subject_alternative_names: &'a [SubjectAlternativeName],
    /// The constraints of the certificate that this one follows.
    pub name_constraints: Option<&'a KeptConstraints>,
    pub serial: &'a SerialNumber,
    /// The time of issuance, in Unix seconds.
    pub now: UnixSeconds,
}

/// DER `TBSCertificate`, not yet linted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToBeSigned {
    pub(super) bytes: Der,
    pub(super) serial: SerialNumber,
    pub(super) signature_algorithm: SignatureAlgorithm,
    pub(super) validity: (UnixSeconds, UnixSeconds),
}

/// The reason why a certificate is not built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildRefusal {
    /// The profile does not allow this key type.
    #[error(
        "the profile does not allow a {asked} key; it allows {}",
        names(allowed)
    )]
    KeyType {
        /// The type of the key in the CSR.
        asked: KeyType,
        /// The types that the profile allows.
        allowed: BTreeSet<KeyType>,
    },
    /// The certificate would outlive its issuer.
    #[error(
        "the certificate would outlive its issuer (by {} s); shorten the profile's validity or set \
         an earlier not_after, or roll the issuer over",
        not_after.seconds_since(*issuer_not_after)
    )]
    OutlivesIssuer {
        /// The end of the certificate, in Unix seconds.
        not_after: UnixSeconds,
        /// The end of the issuer, in Unix seconds.
        issuer_not_after: UnixSeconds,
    },
    /// The profile's fixed end is over.
    #[error(
        "the profile's certificates end at {not_after}, which is over; set another not_after in \
         its [profile.certificate] and reload"
    )]
    Ended {
        /// The fixed end, in Unix seconds.
        not_after: UnixSeconds,
    },
    /// The issuer's certificate is not valid yet: a clock is wrong.
    #[error("the issuer is not valid before {issuer_not_before}; check the clock")]
    IssuerNotYetValid {
        /// The beginning of the issuer, in Unix seconds.
        issuer_not_before: UnixSeconds,
    },
    /// The issuer's path length forbids it (RFC 5280 4.2.1.9).
    #[error(
        "an issuer with path length {issuer} can certify no authority with path length \
         {}; it must be smaller", subordinate.map_or("none".to_owned(), |length| length.to_string())
    )]
    PathLength {
        /// The issuer's path length.
        issuer: u8,
        /// The requested path length.
        subordinate: Option<u8>,
    },
    /// Subject and issuer have the same name: verifiers would see a self-signed certificate or a
    /// loop.
    #[error("the subject has the issuer's own name")]
    IssuersName,
    /// A name constraint of the issuer's certificate, or of one above it (RFC 5280 4.2.1.10).
    #[error(
        "verifiers would refuse the certificate: {0}; ask for a name within the constraints, or \
         move the profile to an authority without them"
    )]
    NameConstraints(String),
    /// A self-signed certificate needs cA, and the subject and key of its issuer.
    #[error(
        "a self-signed certificate must certify the issuer's own name and key, as an authority"
    )]
    NotSelfSigned,
    /// A cross-certificate has the name of its issuer and another key.
    #[error(
        "a cross-certificate must certify another key of the issuer's own name, as an authority"
    )]
    NotCross,
    /// A date is before 1970 or after 9999.
    #[error("the validity leaves the years 1970 to 9999")]
    Time,
    /// No reader of certificates would take it.
    #[error(
        "the certificate would have more than {} KiB; ask for fewer or shorter names, or remove \
         extensions and names from the profile",
        CERTIFICATE_BYTES_MAX / 1024
    )]
    TooLarge,
    /// DER cannot hold a URL or name.
    #[error("the certificate cannot be encoded: {0}")]
    Encoding(String),
}

impl BuildRefusal {
    /// Returns the stable code for problem documents.
    pub fn code(&self) -> Code {
        match self {
            BuildRefusal::KeyType { .. } => Code::KeyTypeForbidden,
            BuildRefusal::OutlivesIssuer { .. } => Code::OutlivesIssuer,
            BuildRefusal::IssuerNotYetValid { .. } => Code::IssuerNotYetValid,
            BuildRefusal::PathLength { .. } => Code::PathLength,
            BuildRefusal::IssuersName => Code::IssuersName,
            BuildRefusal::NameConstraints(_) => Code::NameConstraints,
            BuildRefusal::NotSelfSigned | BuildRefusal::NotCross => Code::NotSelfSigned,
            BuildRefusal::Time | BuildRefusal::Ended { .. } => Code::ValidityOutOfRange,
            BuildRefusal::TooLarge | BuildRefusal::Encoding(_) => Code::NotEncodable,
        }
    }
}

impl ToBeSigned {
    /// `(notBefore, notAfter)` in Unix seconds.
    pub fn validity(&self) -> (UnixSeconds, UnixSeconds) {
        self.validity
    }

    /// Returns the DER bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Builds the to-be-signed bytes of a certificate under its issuer.
pub fn build(
    issuer: &IssuerFields,
    request: &CertificateContent<'_>,
) -> Result<ToBeSigned, BuildRefusal> {
    check_key_type(request)?;
    check_names(issuer, request)?;
    check_name_constraints(issuer, request)?;
    check_end(request)?;
    let validity = match issuer.bounds() {
        Some(bounds) => {
            check_path_length(issuer, bounds, request)?;
            validity_within(bounds, request)?
        }
        None => requested_validity(request),
    };
    let bytes = encode(issuer, request, validity)?;
    if bytes.len() + SIGNATURE_BYTES_MAX > CERTIFICATE_BYTES_MAX {
        return Err(BuildRefusal::TooLarge);
    }
    Ok(ToBeSigned {
        bytes,
        serial: request.serial.clone(),
        signature_algorithm: issuer.signature_algorithm(),
        validity,
    })
}

fn check_end(request: &CertificateContent<'_>) -> Result<(), BuildRefusal> {
    match request.profile.end {
        End::At(not_after) if not_after <= request.now => Err(BuildRefusal::Ended { not_after }),
        _ => Ok(()),
    }
}

fn check_key_type(request: &CertificateContent<'_>) -> Result<(), BuildRefusal> {
    let key_type = request.public_key.key_type();
    if request.profile.key_types.contains(&key_type) {
        Ok(())
    } else {
        let allowed = request.profile.key_types.clone();
        Err(BuildRefusal::KeyType {
            asked: key_type,
            allowed,
        })
    }
}

fn names(key_types: &BTreeSet<KeyType>) -> String {
    let names: Vec<_> = key_types.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn check_names(
    issuer: &IssuerFields,
    request: &CertificateContent<'_>,
) -> Result<(), BuildRefusal> {
    let same_name = request.subject.to_der() == *issuer.name_der();
    let same_key = request.public_key == issuer.public_key();
    if issuer.cross_key_identifier().is_some() {
        let is_cross = same_name && !same_key && request.profile.is_authority();
        return is_cross.then_some(()).ok_or(BuildRefusal::NotCross);
    }
    if !issuer.is_self_signed() {
        return if same_name {
            Err(BuildRefusal::IssuersName)
        } else {
            Ok(())
        };
    }
    if same_name && same_key && request.profile.is_authority() {
        Ok(())
    } else {
        Err(BuildRefusal::NotSelfSigned)
    }
}

fn check_name_constraints(
    issuer: &IssuerFields,
    request: &CertificateContent<'_>,
) -> Result<(), BuildRefusal> {
    // RFC 5280 6.1.3 (b): constraints are not applied to a self-issued certificate of an authority.
    if issuer.cross_key_identifier().is_some() {
        return Ok(());
    }
    let names = extensions::names_let_through(request);
    let is_leaf = !request.profile.is_authority();
    let objection = issuer.objection_to(&request.subject.to_der(), names, is_leaf);
    objection.map_or(Ok(()), |why| Err(BuildRefusal::NameConstraints(why)))
}

/// An issuer with a path length certifies only authorities with a shorter one, so every certificate
/// of the path carries the limit.
fn check_path_length(
    by: &IssuerFields,
    bounds: Bounds,
    request: &CertificateContent<'_>,
) -> Result<(), BuildRefusal> {
    // A self-issued certificate is not counted (RFC 5280 6.1.4 (l)).
    let is_cross = by.cross_key_identifier().is_some();
    let (Some(issuer), Kind::Authority { path_length }) =
        (bounds.path_length, request.profile.kind)
    else {
        return Ok(());
    };
    match path_length {
        Some(subordinate) if subordinate < issuer || is_cross && subordinate == issuer => Ok(()),
        subordinate => Err(BuildRefusal::PathLength {
            issuer,
            subordinate,
        }),
    }
}

/// `(notBefore, notAfter)` in Unix seconds.
fn requested_validity(request: &CertificateContent<'_>) -> (UnixSeconds, UnixSeconds) {
    let profile = request.profile;
    (
        profile.not_before(request.now),
        profile.not_after(request.now),
    )
}

/// Only `notBefore` is moved to the issuer's own: backdating helps slow clocks and promises
/// nothing. `notAfter` is never moved.
fn validity_within(
    bounds: Bounds,
    request: &CertificateContent<'_>,
) -> Result<(UnixSeconds, UnixSeconds), BuildRefusal> {
    let (not_before, not_after) = requested_validity(request);
    if bounds.not_before > request.now {
        return Err(BuildRefusal::IssuerNotYetValid {
            issuer_not_before: bounds.not_before,
        });
    }
    // A certificate without an end is meant to outlive its issuer: no path to it is valid then, so
    // nothing need be said about it for ever (RFC 5280 4.1.2.5).
    if not_after > bounds.not_after && request.profile.end != End::Never {
        return Err(BuildRefusal::OutlivesIssuer {
            not_after,
            issuer_not_after: bounds.not_after,
        });
    }
    Ok((not_before.max(bounds.not_before), not_after))
}

fn encode(
    issuer: &IssuerFields,
    request: &CertificateContent<'_>,
    (not_before, not_after): (UnixSeconds, UnixSeconds),
) -> Result<Der, BuildRefusal> {
    let subject_der = request.subject.to_der();
    let serial = request.serial.der_contents();
    let tbs = wire::TbsCertificate {
        version: Version::V3,
        serial_number: AnyRef::new(Tag::Integer, &serial)?,
        signature: AnyRef::from_der(issuer.signature_algorithm().identifier_der())?,
        issuer: AnyRef::from_der(issuer.name_der())?,
        validity: Validity::new(time(not_before)?, time(not_after)?),
        subject: AnyRef::from_der(&subject_der)?,
        subject_public_key_info: AnyRef::from_der(request.public_key.spki_der())?,
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(extensions::all(issuer, request)?),
    };
    Ok(tbs.to_der()?.into())
}

/// Encodes UTCTime through 2049 and GeneralizedTime from 2050 (RFC 5280 4.1.2.5).
pub(super) fn time(unix_seconds: UnixSeconds) -> Result<Time, BuildRefusal> {
    let since_epoch = u64::try_from(unix_seconds.get()).map_err(|_| BuildRefusal::Time)?;
    DateTime::from_unix_duration(Duration::from_secs(since_epoch))
        .map(Time::from)
        .map_err(|_| BuildRefusal::Time)
}

impl From<der::Error> for BuildRefusal {
    fn from(error: der::Error) -> BuildRefusal {
        BuildRefusal::Encoding(error.to_string())
    }
}

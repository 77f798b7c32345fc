//! Reads what bytes are that a key is asked to sign: a certificate, a revocation list or a request.
//!
//! The worker of a token decides by it whether the key signs them, and does not rely on the daemon
//! for that. So it walks the DER by itself, shares no code with the builders, and takes one
//! encoding of one structure only. It is on the path of each signature and copies nothing.

use super::canonical::{
    self, BIT_STRING, GENERALIZED_TIME, INTEGER, OBJECT_IDENTIFIER, SEQUENCE, UTC_TIME, Value,
};
use crate::unix_seconds::UnixSeconds;
use crate::x509::key::SignatureAlgorithm;
use der::Decode;
use x509_cert::time::Time;

const OCTET_STRING: u8 = 0x04;
const BOOLEAN: u8 = 0x01;
/// `[0]`: the version of a certificate, the extensions of a list, the attributes of a request.
const FIRST: u8 = 0xa0;
/// `[3]`: the extensions of a certificate.
const EXTENSIONS: u8 = 0xa3;
/// `[0] INTEGER 2`: version 3 (RFC 5280 4.1.2.1).
const VERSION_3: &[u8] = b"\xa0\x03\x02\x01\x02";
/// INTEGER 1: version 2 of a list (RFC 5280 5.1.2.1).
const VERSION_2: &[u8] = b"\x02\x01\x01";
/// INTEGER 0: the version of a request (RFC 2986 4.1).
const VERSION_1: &[u8] = b"\x02\x01\x00";

const BASIC_CONSTRAINTS: &[u8] = b"\x55\x1d\x13";
const KEY_USAGE: &[u8] = b"\x55\x1d\x0f";
const EXTENDED_KEY_USAGE: &[u8] = b"\x55\x1d\x25";
/// id-kp-OCSPSigning (RFC 6960 4.2.2.2).
const OCSP_SIGNING: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x03\x09";
/// keyCertSign and cRLSign in the first octet of KeyUsage (RFC 5280 4.2.1.3).
const SIGNS: u8 = 0x04 | 0x02;

/// The structure that to-be-signed bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signable<'a> {
    /// `TBSCertificate` (RFC 5280 4.1).
    Certificate(CertificateFacts<'a>),
    /// `TBSCertList` (RFC 5280 5.1).
    List(ListFacts<'a>),
    /// `CertificationRequestInfo` (RFC 2986 4.1).
    Request {
        /// DER SubjectPublicKeyInfo.
        spki: &'a [u8],
    },
}

/// The contents of a certificate to be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateFacts<'a> {
    /// DER `Name`.
    pub issuer: &'a [u8],
    /// DER `Name`.
    pub subject: &'a [u8],
    /// DER SubjectPublicKeyInfo.
    pub spki: &'a [u8],
    pub not_before: UnixSeconds,
    pub not_after: UnixSeconds,
    /// The holder could sign certificates or lists: cA, keyCertSign or cRLSign.
    pub is_authority: bool,
    /// The holder could sign OCSP answers for the issuer.
    pub answers_for_issuer: bool,
}

/// The contents of a revocation list to be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListFacts<'a> {
    /// DER `Name`.
    pub issuer: &'a [u8],
    pub this_update: UnixSeconds,
    pub next_update: UnixSeconds,
}

/// Why bytes are not signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSignable {
    #[error("they are not one value in the only encoding that is signed")]
    NotCanonical,
    #[error("they are no certificate, revocation list or request")]
    Unknown,
    #[error("they name another signature algorithm than the key's")]
    Algorithm,
    #[error("a time in them cannot be read")]
    Time,
    #[error("an extension in them cannot be read")]
    Extension,
}

impl<'a> Signable<'a> {
    /// Reads to-be-signed bytes that a key is to sign in `algorithm`.
    pub fn read(bytes: &'a [u8], algorithm: SignatureAlgorithm) -> Result<Self, NotSignable> {
        let whole = canonical::read(bytes).map_err(|_| NotSignable::NotCanonical)?;
        if whole.tag != SEQUENCE {
            return Err(NotSignable::Unknown);
        }
        let parts = canonical::children(whole).map_err(|_| NotSignable::NotCanonical)?;
        match parts[..] {
            [version, ..] if version.whole == VERSION_3 => certificate(&parts, algorithm),
            [version, ..] if version.whole == VERSION_2 => list(&parts, algorithm),
            [version, ..] if version.whole == VERSION_1 => request(&parts),
            _ => Err(NotSignable::Unknown),
        }
    }
}

fn certificate<'a>(
    parts: &[Value<'a>],
    algorithm: SignatureAlgorithm,
) -> Result<Signable<'a>, NotSignable> {
    let [
        _,
        serial,
        signed,
        issuer,
        validity,
        subject,
        spki,
        extensions,
    ] = parts
    else {
        return Err(NotSignable::Unknown);
    };
    let tags = [serial, signed, issuer, validity, subject, spki, extensions].map(|it| it.tag);
    let wanted = [
        INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE, EXTENSIONS,
    ];
    if tags != wanted {
        return Err(NotSignable::Unknown);
    }
    check_algorithm(signed, algorithm)?;
    let times = canonical::children(*validity).map_err(|_| NotSignable::Time)?;
    let [not_before, not_after] = times[..] else {
        return Err(NotSignable::Time);
    };
    let powers = Powers::read(extensions)?;
    Ok(Signable::Certificate(CertificateFacts {
        issuer: issuer.whole,
        subject: subject.whole,
        spki: spki.whole,
        not_before: seconds(not_before)?,
        not_after: seconds(not_after)?,
        is_authority: powers.is_authority,
        answers_for_issuer: powers.answers_for_issuer,
    }))
}

fn list<'a>(
    parts: &[Value<'a>],
    algorithm: SignatureAlgorithm,
) -> Result<Signable<'a>, NotSignable> {
    let (signed, issuer, this_update, next_update) = match parts {
        [_, signed, issuer, this, next, extensions] if extensions.tag == FIRST => {
            (signed, issuer, this, next)
        }
        [_, signed, issuer, this, next, entries, extensions]
            if entries.tag == SEQUENCE && extensions.tag == FIRST =>
        {
            (signed, issuer, this, next)
        }
        _ => return Err(NotSignable::Unknown),
    };
    if [signed.tag, issuer.tag] != [SEQUENCE, SEQUENCE] {
        return Err(NotSignable::Unknown);
    }
    check_algorithm(signed, algorithm)?;
    Ok(Signable::List(ListFacts {
        issuer: issuer.whole,
        this_update: seconds(*this_update)?,
        next_update: seconds(*next_update)?,
    }))
}

fn request<'a>(parts: &[Value<'a>]) -> Result<Signable<'a>, NotSignable> {
    let [_, subject, spki, attributes] = parts else {
        return Err(NotSignable::Unknown);
    };
    if [subject.tag, spki.tag, attributes.tag] != [SEQUENCE, SEQUENCE, FIRST] {
        return Err(NotSignable::Unknown);
    }
    Ok(Signable::Request { spki: spki.whole })
}

fn check_algorithm(named: &Value<'_>, wanted: SignatureAlgorithm) -> Result<(), NotSignable> {
    if named.whole == wanted.identifier_der() {
        Ok(())
    } else {
        Err(NotSignable::Algorithm)
    }
}

fn seconds(time: Value<'_>) -> Result<UnixSeconds, NotSignable> {
    if ![UTC_TIME, GENERALIZED_TIME].contains(&time.tag) {
        return Err(NotSignable::Time);
    }
    let time = Time::from_der(time.whole).map_err(|_| NotSignable::Time)?;
    let seconds = i64::try_from(time.to_unix_duration().as_secs());
    seconds.map(UnixSeconds::new).map_err(|_| NotSignable::Time)
}

/// The powers that the extensions of a certificate give to its holder.
#[derive(Default)]
struct Powers {
    is_authority: bool,
    answers_for_issuer: bool,
    constraints: u8,
    usages: u8,
    purposes: u8,
}

impl Powers {
    fn read(extensions: &Value<'_>) -> Result<Self, NotSignable> {
        let [list] = children(*extensions)?[..] else {
            return Err(NotSignable::Extension);
        };
        let mut powers = Powers::default();
        for extension in children(list)? {
            let parts = children(extension)?;
            let (id, value) = match parts[..] {
                [id, value] => (id, value),
                [id, critical, value] if critical.tag == BOOLEAN => (id, value),
                _ => return Err(NotSignable::Extension),
            };
            if [id.tag, value.tag] != [OBJECT_IDENTIFIER, OCTET_STRING] {
                return Err(NotSignable::Extension);
            }
            powers.take(id.contents, value.contents)?;
        }
        // Two of one kind: two readers might take different ones (RFC 5280 4.2).
        if [powers.constraints, powers.usages, powers.purposes].contains(&2) {
            return Err(NotSignable::Extension);
        }
        Ok(powers)
    }

    fn take(&mut self, id: &[u8], value: &[u8]) -> Result<(), NotSignable> {
        match id {
            BASIC_CONSTRAINTS => {
                self.constraints = 2.min(self.constraints + 1);
                // cA is TRUE or left out (X.690 11.5), so a first BOOLEAN is TRUE.
                let first = children(inner(value, SEQUENCE)?)?.first().map(|it| it.tag);
                self.is_authority |= first == Some(BOOLEAN);
            }
            KEY_USAGE => {
                self.usages = 2.min(self.usages + 1);
                let [_, first, ..] = inner(value, BIT_STRING)?.contents else {
                    return Err(NotSignable::Extension);
                };
                self.is_authority |= first & SIGNS != 0;
            }
            EXTENDED_KEY_USAGE => {
                self.purposes = 2.min(self.purposes + 1);
                let purposes = children(inner(value, SEQUENCE)?)?;
                self.answers_for_issuer |= purposes.iter().any(|it| it.contents == OCSP_SIGNING);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Returns the value of an extension, which must have this tag.
fn inner(octets: &[u8], tag: u8) -> Result<Value<'_>, NotSignable> {
    let value = canonical::read(octets).map_err(|_| NotSignable::Extension)?;
    if value.tag == tag {
        Ok(value)
    } else {
        Err(NotSignable::Extension)
    }
}

fn children(value: Value<'_>) -> Result<Vec<Value<'_>>, NotSignable> {
    canonical::children(value).map_err(|_| NotSignable::Extension)
}

//! Splits a certificate into its fields (RFC 5280 4.1), and names the one that cannot be read.
//!
//! Names, key and algorithms stay octets, so they keep their encoding. Certificates from elsewhere
//! are read, so what relying parties accept is accepted.

use super::extension::Extension;
use super::wire::{Element, elements};
use crate::unix_seconds::UnixSeconds;
use der::asn1::BitStringRef;
use der::{Decode, ErrorKind};
use time::{Date, Month, PrimitiveDateTime, Time};

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const ISSUER_UNIQUE_ID: u8 = 0x81;
const SUBJECT_UNIQUE_ID: u8 = 0x82;
const EXTENSIONS: u8 = 0xa3;

/// The fields of a certificate. Nothing is verified.
pub(super) struct CertificateFields<'a> {
    /// The signature covers these octets.
    pub(super) signed: &'a [u8],
    pub(super) outer_algorithm: &'a [u8],
    /// `None` if it does not fill its octets.
    pub(super) signature: Option<&'a [u8]>,
    pub(super) signed_fields: SignedFields<'a>,
}

/// The fields of a `TBSCertificate`, each with its header unless said otherwise.
pub(super) struct SignedFields<'a> {
    /// 1 to 3.
    pub(super) version: u8,
    /// The contents of the INTEGER.
    pub(super) serial: &'a [u8],
    pub(super) algorithm: &'a [u8],
    pub(super) issuer: &'a [u8],
    pub(super) not_before: UnixSeconds,
    pub(super) not_after: UnixSeconds,
    pub(super) subject: &'a [u8],
    pub(super) spki: &'a [u8],
    pub(super) extensions: Option<Vec<Extension<'a>>>,
}

impl<'a> CertificateFields<'a> {
    /// Reads the DER of one certificate. Fails with what cannot be read, for an operator.
    pub(super) fn read(der: &'a [u8]) -> Result<CertificateFields<'a>, String> {
        let [certificate @ Element { tag: SEQUENCE, .. }] = whole(der, "end")?[..] else {
            return Err(unreadable("end"));
        };
        let [signed, algorithm, signature] = whole(certificate.value, "signed part")?[..] else {
            return Err(unknown_field());
        };
        let signature =
            BitStringRef::from_der(signature.whole).map_err(|_| unreadable("signature"))?;
        Ok(CertificateFields {
            signed: signed.whole,
            outer_algorithm: algorithm.whole,
            signature: signature.as_bytes(),
            signed_fields: SignedFields::read(signed.whole)?,
        })
    }
}

impl<'a> SignedFields<'a> {
    /// Reads the DER of a `TBSCertificate`. Fails with what cannot be read, for an operator.
    pub(super) fn read(der: &'a [u8]) -> Result<SignedFields<'a>, String> {
        let [signed @ Element { tag: SEQUENCE, .. }] = whole(der, "signed part")?[..] else {
            return Err(unreadable("signed part"));
        };
        let fields = whole(signed.value, "signed part")?;
        let (version, fields) = match fields.split_first() {
            Some((version, rest)) if version.tag == VERSION => (version_of(*version)?, rest),
            _ => (1, &fields[..]),
        };
        let mut fields = fields.iter();
        let mut next = |tag: u8, name: &'static str| {
            let field = fields.next().filter(|it| it.tag == tag);
            field.ok_or_else(|| unreadable(name))
        };
        let serial = next(INTEGER, "serial number")?.value;
        let algorithm = next(SEQUENCE, "signature algorithm")?.whole;
        let issuer = next(SEQUENCE, "issuer")?.whole;
        let (not_before, not_after) = validity_of(next(SEQUENCE, "validity")?)?;
        let subject = next(SEQUENCE, "subject")?.whole;
        let spki = next(SEQUENCE, "public key")?.whole;
        Ok(SignedFields {
            version,
            serial,
            algorithm,
            issuer,
            not_before,
            not_after,
            subject,
            spki,
            extensions: extensions_of(fields.as_slice())?,
        })
    }
}

/// Splits octets into elements. Lengths that only BER has are named as such.
fn whole<'a>(octets: &'a [u8], field: &'static str) -> Result<Vec<Element<'a>>, String> {
    elements(octets).map_err(|error| match error.kind() {
        ErrorKind::IndefiniteLength | ErrorKind::Overlength | ErrorKind::Noncanonical { .. } => {
            "it is encoded in another way than RFC 5280 prescribes, so relying parties differ in \
             whether they read it; only its issuer can mend that, with another certificate"
                .to_owned()
        }
        _ => unreadable(field),
    })
}

/// Says that a field cannot be read.
pub(super) fn unreadable(field: &str) -> String {
    let verb = if field.ends_with("constraints") {
        "are"
    } else {
        "is"
    };
    format!(
        "its {field} {verb} not encoded as RFC 5280 prescribes; `openssl x509 -in FILE -noout \
         -text` may show it, and only its issuer can mend that, with another certificate"
    )
}

fn unknown_field() -> String {
    "it has a field that RFC 5280 does not have, so relying parties refuse it; only its issuer can \
     mend that, with another certificate"
        .to_owned()
}

/// `v1` is the default and has to be left out; some write it all the same.
fn version_of(field: Element<'_>) -> Result<u8, String> {
    match elements(field.value).as_deref() {
        Ok([version]) if version.tag == INTEGER => match version.value {
            [number @ 0..=2] => Ok(number + 1),
            _ => Err(unreadable("version")),
        },
        _ => Err(unreadable("version")),
    }
}

/// Unique identifiers (RFC 5280 4.1.2.8) mean nothing here. Each field may be there once, in order.
fn extensions_of<'a>(fields: &[Element<'a>]) -> Result<Option<Vec<Extension<'a>>>, String> {
    let tags: Vec<u8> = fields.iter().map(|it| it.tag).collect();
    let is_known = |tag: &u8| matches!(*tag, ISSUER_UNIQUE_ID | SUBJECT_UNIQUE_ID | EXTENSIONS);
    if !tags.iter().all(is_known) || !tags.is_sorted_by(|one, next| one < next) {
        return Err(unknown_field());
    }
    let Some(extensions) = fields.iter().find(|it| it.tag == EXTENSIONS) else {
        return Ok(None);
    };
    Extension::read_list(extensions.value)
        .map(Some)
        .map_err(|_| unreadable("list of extensions"))
}

fn validity_of(validity: &Element<'_>) -> Result<(UnixSeconds, UnixSeconds), String> {
    let times = elements(validity.value);
    let [not_before, not_after] = times.as_deref().unwrap_or_default() else {
        return Err(unreadable("validity"));
    };
    moment(*not_before)
        .zip(moment(*not_after))
        .ok_or_else(|| unreadable("validity"))
}

/// Reads UTCTime or GeneralizedTime in the one form that RFC 5280 4.1.2.5 has. Dates before 1970
/// are taken: they are in old roots.
fn moment(time: Element<'_>) -> Option<UnixSeconds> {
    let digits = time.value.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (year, rest) = match (time.tag, digits.len()) {
        (UTC_TIME, 12) => {
            let (year, rest) = digits.split_at(2);
            // RFC 5280 4.1.2.5.1
            let century = if number(year) < 50 { 2000 } else { 1900 };
            (century + number(year), rest)
        }
        (GENERALIZED_TIME, 14) => {
            let (year, rest) = digits.split_at(4);
            (number(year), rest)
        }
        _ => return None,
    };
    let (pairs, _) = rest.as_chunks::<2>();
    let parts: Vec<u8> = pairs
        .iter()
        .filter_map(|it| u8::try_from(number(it)).ok())
        .collect();
    let [month, day, hour, minute, second] = parts[..] else {
        return None;
    };
    let month = Month::try_from(month).ok()?;
    let date = Date::from_calendar_date(year.into(), month, day).ok()?;
    let time = Time::from_hms(hour, minute, second).ok()?;
    let moment = PrimitiveDateTime::new(date, time).assume_utc();
    Some(UnixSeconds::new(moment.unix_timestamp()))
}

fn number(digits: &[u8]) -> u16 {
    digits
        .iter()
        .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))
}

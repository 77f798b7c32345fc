//! Checks the fields that every certificate has (RFC 5280 4.1).

use super::canonical::{
    self, GENERALIZED_TIME, INTEGER, OBJECT_IDENTIFIER, SEQUENCE, SET, UTC_TIME, Value,
};
use super::issuer::ComparedIssuer;
use super::{Expectation, ExpectedIssuer, Findings};
use crate::unix_seconds::UnixSeconds;
use crate::x509::name::{AttributeKind, Subject};
use crate::x509::profile::{End, Kind};
use x509_parser::certificate::TbsCertificate;
use x509_parser::time::ASN1Time;

/// `[0] EXPLICIT` and `[3] EXPLICIT`, constructed.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

/// Octets of a serial number: at least 64 unpredictable bits, at most the 20 octets of RFC 5280.
const SERIAL_OCTETS_MIN: usize = 8;
const SERIAL_OCTETS_MAX: usize = 20;

/// 2050-01-01T00:00:00Z: from this second on, times are GeneralizedTime (RFC 5280 4.1.2.5).
const YEAR_2050: UnixSeconds = UnixSeconds::new(2_524_608_000);

/// The last second of the year 9999, which says that there is no end (RFC 5280 4.1.2.5).
const LAST_SECOND: &[u8] = b"99991231235959Z";

/// The parts of a `TBSCertificate`: exactly these, and no unique identifiers.
pub(super) struct Parts<'a> {
    version: Value<'a>,
    pub(super) serial: Value<'a>,
    pub(super) signature: Value<'a>,
    issuer: Value<'a>,
    validity: Value<'a>,
    pub(super) subject: Value<'a>,
    pub(super) spki: Value<'a>,
    pub(super) extensions: Value<'a>,
}

impl Parts<'_> {
    pub(super) fn read(bytes: &[u8]) -> Result<Parts<'_>, String> {
        let whole = canonical::read(bytes)?;
        let parts = canonical::children(whole)?;
        let tags: Vec<u8> = parts.iter().map(|part| part.tag).collect();
        let expected_tags = [
            VERSION, INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE, EXTENSIONS,
        ];
        match (
            whole.tag == SEQUENCE && tags == expected_tags,
            parts.as_slice(),
        ) {
            (
                true,
                [
                    version,
                    serial,
                    signature,
                    issuer,
                    validity,
                    subject,
                    spki,
                    extensions,
                ],
            ) => Ok(Parts {
                version: *version,
                serial: *serial,
                signature: *signature,
                issuer: *issuer,
                validity: *validity,
                subject: *subject,
                spki: *spki,
                extensions: *extensions,
            }),
            _ => Err(format!("the fields have the tags {tags:02x?}")),
        }
    }
}

pub(super) fn check(
    parts: &Parts<'_>,
    parsed: &TbsCertificate<'_>,
    issuer: &ComparedIssuer<'_>,
    expected: &Expectation<'_>,
    findings: &mut Findings,
) {
    // Version 3 is encoded as 2.
    findings.require(parts.version.contents == [INTEGER, 1, 2], "version", || {
        "the version is not 3".to_owned()
    });
    check_serial(parts, expected, findings);
    check_signature(parts, issuer, findings);
    // RFC 5280 6.1.3 (a)(4) compares names by their meaning; many verifiers compare bytes.
    findings.require(parts.issuer.whole == issuer.name, "issuer", || {
        "the issuer is not the subject of the issuer's certificate, byte for byte".to_owned()
    });
    check_validity(parts, parsed, issuer, expected, findings);
    check_time_forms(parts, parsed, findings);
    check_common_name(parsed, expected, findings);
    check_subject(parts, expected, findings);
    findings.require(
        parts.spki.whole == expected.public_key.spki_der().as_ref(),
        "spki",
        || "the public key is not the one that was asked for".to_owned(),
    );
    check_path_length(issuer, expected, findings);
}

fn check_serial(parts: &Parts<'_>, expected: &Expectation<'_>, findings: &mut Findings) {
    // RFC 5280 4.1.2.2: positive, and at most 20 octets.
    let contents = parts.serial.contents;
    let positive = contents.first().is_some_and(|first| *first < 0x80) && contents != [0];
    findings.require(positive, "serial_sign", || {
        "the serial is not positive".to_owned()
    });
    let octets = SERIAL_OCTETS_MIN..=SERIAL_OCTETS_MAX;
    findings.require(octets.contains(&contents.len()), "serial_length", || {
        format!("the serial has {} octets", contents.len())
    });
    // The octet that keeps an INTEGER positive (X.690 8.3) is not part of the recorded number.
    let magnitude = contents.strip_prefix(&[0]).unwrap_or(contents);
    findings.require(magnitude == expected.serial.as_bytes(), "serial", || {
        format!("the serial is not {}", expected.serial)
    });
}

fn check_signature(parts: &Parts<'_>, issuer: &ComparedIssuer<'_>, findings: &mut Findings) {
    // The parameters count: NULL for RSA (RFC 4055 5), absent for all others (RFC 5758 3.2,
    // RFC 8410 3). Verifiers refuse what is the other way round.
    findings.require(
        issuer
            .signature_algorithm
            .as_ref()
            .is_ok_and(|asked| *asked == parts.signature.whole),
        "signature_algorithm",
        || "the signature algorithm is not that of the issuer's key".to_owned(),
    );
}

fn check_validity(
    parts: &Parts<'_>,
    parsed: &TbsCertificate<'_>,
    issuer: &ComparedIssuer<'_>,
    expected: &Expectation<'_>,
    findings: &mut Findings,
) {
    let (issuer_begins, issuer_ends) = match issuer.above {
        Some(above) => (above.not_before, above.not_after),
        None => (UnixSeconds::MIN, UnixSeconds::MAX),
    };
    let not_before = moment(parsed.validity.not_before);
    let not_after = moment(parsed.validity.not_after);
    // A leaf begins before now for verifiers whose clocks are slow, but not before its issuer: the
    // chain would not be valid then.
    let backdated = expected
        .now
        .saturating_sub_unsigned(expected.profile.backdate_seconds);
    let begin = match expected.profile.end {
        End::WholeDays => midnight(backdated, 0),
        End::AfterValidity | End::At(_) | End::Never => backdated,
    };
    findings.require(not_before == begin.max(issuer_begins), "not_before", || {
        format!("notBefore is {not_before}")
    });
    let after = expected
        .now
        .saturating_add_unsigned(expected.profile.validity_seconds);
    let has_no_end = ends_with(parts.validity, LAST_SECOND);
    let ends_as_asked = match expected.profile.end {
        End::AfterValidity => not_after == after,
        End::WholeDays => not_after.saturating_add(1) == midnight(after, 1),
        End::At(end) => not_after == end && end > expected.now,
        End::Never => has_no_end,
    };
    findings.require(ends_as_asked, "not_after", || {
        format!("notAfter is {not_after}")
    });
    findings.require(not_before <= expected.now, "not_yet_valid", || {
        format!("notBefore is {not_before}, after now")
    });
    // A certificate without an end outlives every issuer; paths to it end with the issuer.
    let may_outlive = has_no_end && expected.profile.end == End::Never;
    let inside = issuer_begins <= not_before && (not_after <= issuer_ends || may_outlive);
    findings.require(inside, "validity_outside_issuer", || {
        format!("{not_before} to {not_after} is not within {issuer_begins} to {issuer_ends}")
    });
}

/// Returns the beginning of the day of `moment` in UTC, or of the day that is `days` later.
fn midnight(moment: UnixSeconds, days: i64) -> UnixSeconds {
    let day = moment.get().div_euclid(24 * 60 * 60) + days;
    UnixSeconds::new(day * 24 * 60 * 60)
}

/// Returns whether the last time of a validity has these digits.
fn ends_with(validity: Value<'_>, digits: &[u8]) -> bool {
    let times = canonical::children(validity).unwrap_or_default();
    times.last().is_some_and(|it| it.contents == digits)
}

fn check_time_forms(parts: &Parts<'_>, parsed: &TbsCertificate<'_>, findings: &mut Findings) {
    let times = [&parsed.validity.not_before, &parsed.validity.not_after];
    let values = canonical::children(parts.validity).unwrap_or_default();
    for (value, time) in values.into_iter().zip(times) {
        check_time_form(value, moment(*time), findings);
    }
}

/// Returns a time as the rest of the program has it.
pub(super) fn moment(time: ASN1Time) -> UnixSeconds {
    UnixSeconds::new(time.timestamp())
}

/// Checks the encoding of a time (RFC 5280 4.1.2.5 and 5.1.2.4).
pub(super) fn check_time_form(
    value: Value<'_>,
    unix_seconds: UnixSeconds,
    findings: &mut Findings,
) {
    let asked = if unix_seconds < YEAR_2050 {
        UTC_TIME
    } else {
        GENERALIZED_TIME
    };
    findings.require(value.tag == asked, "time_form", || {
        "a time is UTCTime after 2049, or GeneralizedTime before".to_owned()
    });
}

fn check_common_name(
    parsed: &TbsCertificate<'_>,
    expected: &Expectation<'_>,
    findings: &mut Findings,
) {
    if let Subject::Kept(_) = expected.subject {
        return;
    }
    // DPS takes the registration id from the common name, and programs differ in which of two they
    // read: there must be one.
    let names: Vec<Option<&str>> = parsed
        .subject
        .iter_common_name()
        .map(|attribute| attribute.as_str().ok())
        .collect();
    findings.require(names == [Some(expected.common_name)], "common_name", || {
        format!(
            "the common names are {names:?}, not {:?}",
            expected.common_name
        )
    });
}

/// Checks for one attribute in each RelativeDistinguishedName, in order, with the right string
/// type; or that the subject is the kept one, octet by octet.
fn check_subject(parts: &Parts<'_>, expected: &Expectation<'_>, findings: &mut Findings) {
    let as_asked = match expected.subject {
        Subject::Built(name) => {
            let asked = name
                .iter()
                .map(|(kind, value)| Attribute::asked(kind, value));
            attributes(parts.subject) == Ok(asked.collect())
        }
        Subject::Kept(name) => parts.subject.whole == name.der(),
    };
    findings.require(as_asked, "subject", || {
        format!("the subject is not that of {:?}", expected.subject.label())
    });
    // A certificate with its issuer's name is self-issued and does not count for path lengths
    // (RFC 5280 6.1), so only a root may have it, and a certificate of its key by another root.
    let same_name = parts.subject.whole == parts.issuer.whole;
    let is_of_root = !matches!(expected.issuer, ExpectedIssuer::Certificate(_));
    findings.require(same_name == is_of_root, "self_issued", || {
        "issuer and subject are the same name if and only if it certifies a root".to_owned()
    });
}

#[derive(PartialEq)]
struct Attribute<'a> {
    identifier: [u8; 3],
    string_tag: u8,
    value: &'a [u8],
}

impl Attribute<'_> {
    fn asked(kind: AttributeKind, value: &str) -> Attribute<'_> {
        let (last_arc, string_tag) = match kind {
            AttributeKind::CommonName => (3, 0x0c),
            AttributeKind::SerialNumber => (5, 0x13),
            AttributeKind::Country => (6, 0x13),
            AttributeKind::Locality => (7, 0x0c),
            AttributeKind::State => (8, 0x0c),
            AttributeKind::Organization => (10, 0x0c),
            AttributeKind::OrganizationalUnit => (11, 0x0c),
        };
        Attribute {
            identifier: [0x55, 0x04, last_arc],
            string_tag,
            value: value.as_bytes(),
        }
    }
}

fn attributes(subject: Value<'_>) -> Result<Vec<Attribute<'_>>, String> {
    canonical::children(subject)?
        .into_iter()
        .map(|relative| {
            let attribute = canonical::read(relative.contents)?;
            let pair = canonical::children(attribute)?;
            match (relative.tag, attribute.tag, pair.as_slice()) {
                (SET, SEQUENCE, [kind, value]) if kind.tag == OBJECT_IDENTIFIER => Ok(Attribute {
                    identifier: kind.contents.try_into().map_err(|_| "not of X.520")?,
                    string_tag: value.tag,
                    value: value.contents,
                }),
                _ => Err("an attribute is not a type and a value".to_owned()),
            }
        })
        .collect()
}

fn check_path_length(
    issuer: &ComparedIssuer<'_>,
    expected: &Expectation<'_>,
    findings: &mut Findings,
) {
    let bound = issuer.above.and_then(|above| above.path_length);
    let fits = match (bound, expected.profile.kind) {
        (Some(bound), Kind::Authority { path_length }) => {
            let is_cross = matches!(expected.issuer, ExpectedIssuer::Cross { .. });
            let bound = bound.saturating_add(is_cross.into());
            path_length.is_some_and(|length| u32::from(length) < bound)
        }
        _ => true,
    };
    findings.require(fits, "path_length", || {
        "the issuer's path length leaves no room for such an authority".to_owned()
    });
}

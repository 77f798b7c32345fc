//! Checks the to-be-signed bytes of a revocation list (RFC 5280 5) before they are recorded and
//! signed.
//!
//! The lint shares no code with the builder: it reads the bytes with x509-parser and a DER walk of
//! its own, and the issuer from the bytes of its certificate.

use super::canonical::{self, INTEGER, OBJECT_IDENTIFIER, SEQUENCE, Value};
use super::encoded::{BOOLEAN, OCTET_STRING, element};
use super::fields::{check_time_form, moment};
use super::issuer::{ComparedIssuer, IssuerReading};
use super::{Finding, Findings, LintFailures, finding};
use crate::crl_number::CrlNumber;
use crate::der_bytes::Der;
use crate::unix_seconds::UnixSeconds;
use crate::x509::certificate::Certificate;
use crate::x509::crl::{Entry, Scope, ToBeSigned};
use std::collections::BTreeSet;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::{RevokedCertificate, TbsCertList};

const EXTENSIONS: u8 = 0xa0;
/// The tags of an entry's extensions: one reason, not critical.
const ENTRY_EXTENSIONS: &str = "30(30(0604))";
/// The tags of id-ce-authorityKeyIdentifier and of id-ce-cRLNumber, neither critical.
const NOT_CRITICAL: &str = "30(0604)";
/// CRLReason removeFromCRL (RFC 5280 5.3.1).
const REMOVE_FROM_CRL: u8 = 8;

/// id-ce-deltaCRLIndicator, id-ce-issuingDistributionPoint and id-ce-freshestCRL, contents.
const DELTA_CRL_INDICATOR: &[u8] = b"\x55\x1d\x1b";
const ISSUING_DISTRIBUTION_POINT: &[u8] = b"\x55\x1d\x1c";
const FRESHEST_CRL: &[u8] = b"\x55\x1d\x2e";

/// The requested content, taken from the code that decided it and never from the builder.
#[derive(Clone, Copy, Debug)]
pub struct Expectation<'a> {
    /// The certificate of the generation whose key will sign.
    pub issuer: &'a Certificate,
    pub number: CrlNumber,
    /// The time of this update, in Unix seconds.
    pub this_update: UnixSeconds,
    /// The latest time of the next update, in Unix seconds.
    pub next_update: UnixSeconds,
    /// The revoked serial numbers.
    pub entries: &'a [Entry],
    /// The serial numbers that a delta list removes.
    pub released: &'a [Entry],
    pub scope: &'a Scope,
}

/// To-be-signed bytes of a list that passed the lint. Nothing else may reach a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LintedCrl {
    tbs: ToBeSigned,
}

impl LintedCrl {
    /// The DER bytes to sign.
    pub fn bytes(&self) -> &Der {
        &self.tbs.bytes
    }
}

/// Checks the bytes against the requested content, and returns all differences.
pub fn lint(tbs: ToBeSigned, expected: &Expectation<'_>) -> Result<LintedCrl, LintFailures> {
    let mut findings = Findings::default();
    if let Err(finding) = check(&tbs.bytes, expected, &mut findings) {
        findings.0.push(finding);
    }
    if findings.0.is_empty() {
        Ok(LintedCrl { tbs })
    } else {
        Err(LintFailures(findings.0))
    }
}

/// The parts of a `TBSCertList`.
struct Parts<'a> {
    version: Value<'a>,
    signature: Value<'a>,
    issuer: Value<'a>,
    this_update: Value<'a>,
    next_update: Value<'a>,
    entries: Vec<Value<'a>>,
    extensions: Value<'a>,
}

impl<'a> Parts<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let whole = canonical::read(bytes)?;
        let parts = canonical::children(whole)?;
        let (entries, parts) = match parts.as_slice() {
            [before @ .., entries, extensions] if before.len() == 5 => {
                let entries = canonical::children(*entries)?;
                // RFC 5280 5.1.2.6: without entries, the list of entries is absent.
                if entries.is_empty() {
                    return Err("an empty list of entries is there".to_owned());
                }
                (entries, [before, &[*extensions]].concat())
            }
            others => (Vec::new(), others.to_vec()),
        };
        match (whole.tag, parts.as_slice()) {
            (
                SEQUENCE,
                [
                    version,
                    signature,
                    issuer,
                    this_update,
                    next_update,
                    extensions,
                ],
            ) if version.tag == INTEGER
                && signature.tag == SEQUENCE
                && issuer.tag == SEQUENCE
                && extensions.tag == EXTENSIONS =>
            {
                Ok(Self {
                    version: *version,
                    signature: *signature,
                    issuer: *issuer,
                    this_update: *this_update,
                    next_update: *next_update,
                    entries,
                    extensions: *extensions,
                })
            }
            _ => Err("the fields are not those of a version 2 list".to_owned()),
        }
    }
}

/// Fails with a finding after which the rest cannot be read.
fn check(bytes: &[u8], expected: &Expectation<'_>, findings: &mut Findings) -> Result<(), Finding> {
    let parts = Parts::read(bytes).map_err(finding("not_canonical"))?;
    let parsed = match TbsCertList::from_der(bytes) {
        Ok(([], list)) => Ok(list),
        Ok((rest, _)) => Err(format!("{} bytes after the end", rest.len())),
        Err(error) => Err(error.to_string()),
    };
    let parsed = parsed.map_err(finding("unreadable"))?;
    let reading = IssuerReading::new(expected.issuer);
    let issuer = reading.issuer().map_err(finding("issuer_unreadable"))?;
    check_fields(&parts, &issuer, expected, findings);
    check_times(&parts, &parsed, expected, findings);
    check_extensions(&parts, &parsed, &issuer, expected, findings)
        .map_err(finding("extensions_unreadable"))?;
    check_entries(&parts, &parsed, expected, findings).map_err(finding("entries_unreadable"))
}

fn check_fields(
    parts: &Parts<'_>,
    issuer: &ComparedIssuer<'_>,
    expected: &Expectation<'_>,
    findings: &mut Findings,
) {
    // Version 2 is encoded as 1.
    findings.require(parts.version.contents == [1], "version", || {
        "the version is not 2".to_owned()
    });
    findings.require(
        issuer.signature_algorithm == Ok(parts.signature.whole),
        "signature_algorithm",
        || "the signature algorithm is not that of the issuer's key".to_owned(),
    );
    findings.require(parts.issuer.whole == issuer.name, "issuer", || {
        "the issuer is not the subject of the issuer's certificate, byte for byte".to_owned()
    });
    findings.require(expected.issuer.may_sign_crls(), "crl_sign", || {
        "the issuer's certificate has no cRLSign".to_owned()
    });
}

fn check_times(
    parts: &Parts<'_>,
    parsed: &TbsCertList<'_>,
    expected: &Expectation<'_>,
    findings: &mut Findings,
) {
    let this_update = moment(parsed.this_update);
    let next_update = parsed.next_update.map(moment);
    findings.require(
        this_update == expected.this_update
            && next_update == Some(expected.next_update)
            && expected.this_update < expected.next_update,
        "updates",
        || format!("the list is for {this_update} to {next_update:?}"),
    );
    check_time_form(parts.this_update, expected.this_update, findings);
    check_time_form(parts.next_update, expected.next_update, findings);
}

fn check_extensions(
    parts: &Parts<'_>,
    parsed: &TbsCertList<'_>,
    issuer: &ComparedIssuer<'_>,
    expected: &Expectation<'_>,
    findings: &mut Findings,
) -> Result<(), String> {
    let whole = canonical::children(parts.extensions)?;
    let [list] = whole.as_slice() else {
        return Err("the extensions are not one list".to_owned());
    };
    let extensions = canonical::children(*list)?;
    let usual = extensions.iter().take(2).map(|it| canonical::shape(*it));
    let usual = usual.collect::<Result<Vec<_>, _>>()?;
    findings.require(usual == [NOT_CRITICAL; 2], "extensions", || {
        format!("the first two extensions have the shapes {usual:?}")
    });
    let further: Vec<&[u8]> = extensions.iter().skip(2).map(|it| it.whole).collect();
    findings.require(further == asked_further(expected.scope), "scope", || {
        format!("the extensions after the number are {further:02x?}")
    });
    let key_identifier = issuer.above.as_ref().map(|above| &above.key_identifier[..]);
    let mut found = parsed.extensions().iter().map(|it| it.parsed_extension());
    let names_the_key = match found.next() {
        Some(ParsedExtension::AuthorityKeyIdentifier(found)) => {
            found.authority_cert_issuer.is_none()
                && found.authority_cert_serial.is_none()
                && found.key_identifier.as_ref().map(|it| it.0) == key_identifier
        }
        _ => false,
    };
    findings.require(
        names_the_key && key_identifier.is_some(),
        "authority_key_identifier",
        || "the authority key identifier is not the issuer's own".to_owned(),
    );
    let numbered = match found.next() {
        Some(ParsedExtension::CRLNumber(number)) => {
            number.to_string() == expected.number.to_string()
        }
        _ => false,
    };
    findings.require(numbered, "crl_number", || {
        format!("the number is not {}", expected.number)
    });
    Ok(())
}

/// Encodes the extensions after the number that this scope must have.
fn asked_further(scope: &Scope) -> Vec<Vec<u8>> {
    let extension = |id: &[u8], critical: bool, value: &[u8]| {
        let mut contents = element(OBJECT_IDENTIFIER, id);
        if critical {
            contents.extend(element(BOOLEAN, &[0xff]));
        }
        contents.extend(element(OCTET_STRING, value));
        element(SEQUENCE, &contents)
    };
    // DistributionPointName is a CHOICE, so its tag is explicit: fullName is [0] in [0].
    let name = |url: &str| element(0xa0, &element(0xa0, &element(0x86, url.as_bytes())));
    let mut further = Vec::new();
    if let Some(base) = &scope.base {
        let octets = base.as_octets();
        let zeros = octets.iter().take_while(|it| **it == 0).count();
        let mut contents = octets[zeros..].to_vec();
        if contents.first().is_none_or(|first| *first > 0x7f) {
            contents.insert(0, 0);
        }
        further.push(extension(
            DELTA_CRL_INDICATOR,
            true,
            &element(INTEGER, &contents),
        ));
    }
    if let Some(point) = &scope.point {
        let mut contents = name(&point.url);
        if point.only_user_certificates {
            contents.extend(element(0x81, &[0xff]));
        }
        let value = element(SEQUENCE, &contents);
        further.push(extension(ISSUING_DISTRIBUTION_POINT, true, &value));
    }
    if let Some(url) = &scope.delta_url {
        let value = element(SEQUENCE, &element(SEQUENCE, &name(url)));
        further.push(extension(FRESHEST_CRL, false, &value));
    }
    further
}

fn check_entries(
    parts: &Parts<'_>,
    parsed: &TbsCertList<'_>,
    expected: &Expectation<'_>,
    findings: &mut Findings,
) -> Result<(), String> {
    let counts = [parts.entries.len(), parsed.revoked_certificates.len()];
    let count = expected.entries.len() + expected.released.len();
    findings.require(counts == [count; 2], "entries", || {
        format!("{counts:?} entries instead of {count}")
    });
    // A complete list removes nothing (RFC 5280 5.3.1).
    findings.require(
        expected.released.is_empty() || expected.scope.base.is_some(),
        "removed",
        || "a complete list removes entries".to_owned(),
    );
    let revoked = expected.entries.iter().map(|it| (it, it.reason.code()));
    let released = expected.released.iter().map(|it| (it, REMOVE_FROM_CRL));
    let mut serials = BTreeSet::new();
    for ((value, found), (asked, reason)) in parts
        .entries
        .iter()
        .zip(&parsed.revoked_certificates)
        .zip(revoked.chain(released))
    {
        let once = serials.insert(asked.serial.as_bytes());
        findings.require(once, "entry_twice", || {
            format!("serial {} is there twice", asked.serial)
        });
        let as_asked = is_entry(*value, found, (asked, reason), findings)?;
        findings.require(as_asked, "entry", || {
            format!("the entry of serial {} is another", asked.serial)
        });
    }
    Ok(())
}

fn is_entry(
    value: Value<'_>,
    found: &RevokedCertificate<'_>,
    (asked, reason): (&Entry, u8),
    findings: &mut Findings,
) -> Result<bool, String> {
    let fields = canonical::children(value)?;
    let (Some(serial), Some(date)) = (fields.first(), fields.get(1)) else {
        return Ok(false);
    };
    check_time_form(*date, asked.revoked_at, findings);
    let positive = serial.contents.first().is_some_and(|first| *first < 0x80);
    let magnitude = serial
        .contents
        .strip_prefix(&[0])
        .unwrap_or(serial.contents);
    let extensions = match fields.get(2) {
        None => None,
        Some(extensions) => Some(canonical::shape(*extensions)?),
    };
    // The code is read twice: x509-parser must agree.
    let coded = [0x0a, 0x01, reason];
    let reasons = match reason {
        0 => extensions.is_none() && found.reason_code().is_none(),
        code => {
            extensions.as_deref() == Some(ENTRY_EXTENSIONS)
                && found
                    .reason_code()
                    .is_some_and(|(critical, it)| !critical && it.0 == code)
                && value.whole.ends_with(&coded)
        }
    };
    Ok(serial.tag == INTEGER
        && positive
        && magnitude == asked.serial.as_bytes()
        && moment(found.revocation_date) == asked.revoked_at
        && reasons
        && fields.len() <= 3)
}

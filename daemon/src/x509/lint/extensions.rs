//! The lint of the extensions (RFC 5280 4.2): exactly those that were asked for, with these values.

use super::canonical;
use super::fields::Parts;
use super::issuer::Issuer;
use super::values::{Asked, asked_names};
use super::{Expectation, Finding, Findings, finding};
use x509_parser::certificate::TbsCertificate;

const SUBJECT_KEY_IDENTIFIER: &str = "2.5.29.14";
const KEY_USAGE: &str = "2.5.29.15";
const SUBJECT_ALT_NAME: &str = "2.5.29.17";
const BASIC_CONSTRAINTS: &str = "2.5.29.19";
const CRL_DISTRIBUTION_POINTS: &str = "2.5.29.31";
const AUTHORITY_KEY_IDENTIFIER: &str = "2.5.29.35";
const EXTENDED_KEY_USAGE: &str = "2.5.29.37";
const AUTHORITY_INFORMATION_ACCESS: &str = "1.3.6.1.5.5.7.1.1";

pub(super) fn check(
    parts: &Parts<'_>,
    parsed: &TbsCertificate<'_>,
    issuer: &Issuer<'_>,
    expected: &Expectation<'_>,
    findings: &mut Findings,
) -> Result<(), Finding> {
    check_presence(parsed, issuer, expected, findings);
    check_frame(parts, parsed)?;
    for extension in parsed.extensions() {
        let value = canonical::read(extension.value).map_err(finding("extension_not_canonical"))?;
        let asked = Asked {
            parts,
            issuer,
            expected,
            value,
        };
        let (holds, id) = asked.judge(extension.parsed_extension());
        let shape = asked.shape(extension.parsed_extension());
        findings.require(holds && canonical::shape(value) == Ok(shape), id, || {
            format!("{} is {}", extension.oid, hex::encode(extension.value))
        });
    }
    Ok(())
}

/// Each extension is an identifier, perhaps a criticality, and a value; and the parser saw all.
fn check_frame(parts: &Parts<'_>, parsed: &TbsCertificate<'_>) -> Result<(), Finding> {
    let frame = canonical::read(parts.extensions.contents)
        .and_then(canonical::shape)
        .map_err(finding("extension_not_canonical"))?;
    let asked: String = parsed
        .extensions()
        .iter()
        .map(|extension| match extension.critical {
            true => "30(060104)",
            false => "30(0604)",
        })
        .collect();
    match frame == format!("30({asked})") {
        true => Ok(()),
        false => Err(Finding {
            id: "extension_frame",
            text: format!("the extensions have the shape {frame}"),
        }),
    }
}

/// Every extension that must be there is, once, as critical as RFC 5280 has it; no other is.
fn check_presence(
    parsed: &TbsCertificate<'_>,
    issuer: &Issuer<'_>,
    expected: &Expectation<'_>,
    findings: &mut Findings,
) {
    let mut found: Vec<(String, bool)> = parsed
        .extensions()
        .iter()
        .map(|extension| (extension.oid.to_id_string(), extension.critical))
        .collect();
    found.sort();
    let mut asked: Vec<(String, bool)> = asked_extensions(issuer, expected)
        .into_iter()
        .map(|(id, critical)| (id.to_owned(), critical))
        .collect();
    asked.sort();
    findings.require(found == asked, "extensions", || {
        format!("the extensions (and whether critical) are {found:?}, not {asked:?}")
    });
}

fn asked_extensions(issuer: &Issuer<'_>, expected: &Expectation<'_>) -> Vec<(&'static str, bool)> {
    let distribution = expected.distribution.cloned().unwrap_or_default();
    let access = distribution.ocsp_url.is_some() || distribution.ca_issuers_url.is_some();
    [
        (true, SUBJECT_KEY_IDENTIFIER, false),
        (issuer.above.is_some(), AUTHORITY_KEY_IDENTIFIER, false),
        (true, BASIC_CONSTRAINTS, true),
        (true, KEY_USAGE, true),
        (
            !expected.profile.extended_key_usage.is_empty(),
            EXTENDED_KEY_USAGE,
            false,
        ),
        (!asked_names(expected).is_empty(), SUBJECT_ALT_NAME, false),
        (
            distribution.crl_url.is_some(),
            CRL_DISTRIBUTION_POINTS,
            false,
        ),
        (access, AUTHORITY_INFORMATION_ACCESS, false),
    ]
    .into_iter()
    .filter_map(|(asked, id, critical)| asked.then_some((id, critical)))
    .collect()
}

//! Checks that the extensions (RFC 5280 4.2) are exactly the requested ones, with the right values.

use super::canonical;
use super::encoded::extension_value;
use super::fields::Parts;
use super::issuer::ComparedIssuer;
use super::values::{Asked, asked_names};
use super::{Expectation, Finding, Findings, finding};
use crate::x509::oid;
use crate::x509::profile::CustomExtension;
use x509_parser::certificate::TbsCertificate;

const SUBJECT_KEY_IDENTIFIER: &[u8] = b"\x55\x1d\x0e";
const KEY_USAGE: &[u8] = b"\x55\x1d\x0f";
const SUBJECT_ALT_NAME: &[u8] = b"\x55\x1d\x11";
const CERTIFICATE_POLICIES: &[u8] = b"\x55\x1d\x20";
const BASIC_CONSTRAINTS: &[u8] = b"\x55\x1d\x13";
const NAME_CONSTRAINTS: &[u8] = b"\x55\x1d\x1e";
const POLICY_CONSTRAINTS: &[u8] = b"\x55\x1d\x24";
const INHIBIT_ANY_POLICY: &[u8] = b"\x55\x1d\x36";
const CRL_DISTRIBUTION_POINTS: &[u8] = b"\x55\x1d\x1f";
const AUTHORITY_KEY_IDENTIFIER: &[u8] = b"\x55\x1d\x23";
const EXTENDED_KEY_USAGE: &[u8] = b"\x55\x1d\x25";
const AUTHORITY_INFORMATION_ACCESS: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x01\x01";

pub(super) fn check(
    parts: &Parts<'_>,
    parsed: &TbsCertificate<'_>,
    issuer: &ComparedIssuer<'_>,
    expected: &Expectation<'_>,
    findings: &mut Findings,
) -> Result<(), Finding> {
    check_presence(parsed, issuer, expected, findings);
    check_frame(parts, parsed)?;
    for extension in parsed.extensions() {
        let further = &expected.profile.extensions;
        let has_id = |it: &&CustomExtension| it.id.as_bytes() == extension.oid.as_bytes();
        if let Some(asked) = further.iter().find(has_id) {
            let holds = extension.value == extension_value(&asked.value);
            findings.require(holds, "further_extension", || {
                format!("{} is {}", extension.oid, hex::encode(extension.value))
            });
            continue;
        }
        let value = canonical::read(extension.value).map_err(finding("extension_not_canonical"))?;
        let asked = Asked {
            parts,
            issuer,
            expected,
            value,
        };
        let (holds, id) = asked.judge(extension.parsed_extension());
        let shape = asked.shape(extension.parsed_extension());
        findings.require(
            holds && canonical::shape(value).is_ok_and(|found| found == shape),
            id,
            || format!("{} is {}", extension.oid, hex::encode(extension.value)),
        );
    }
    Ok(())
}

/// Checks that each extension has an identifier, an optional criticality and a value, and that the
/// parser saw every extension.
fn check_frame(parts: &Parts<'_>, parsed: &TbsCertificate<'_>) -> Result<(), Finding> {
    let frame = canonical::read(parts.extensions.contents)
        .and_then(canonical::shape)
        .map_err(finding("extension_not_canonical"))?;
    let asked: String = parsed
        .extensions()
        .iter()
        .map(|extension| {
            if extension.critical {
                "30(060104)"
            } else {
                "30(0604)"
            }
        })
        .collect();
    if frame == format!("30({asked})") {
        Ok(())
    } else {
        Err(Finding {
            id: "extension_frame",
            text: format!("the extensions have the shape {frame}"),
        })
    }
}

/// Checks that each required extension is present once, with the criticality of RFC 5280, and no
/// other.
fn check_presence(
    parsed: &TbsCertificate<'_>,
    issuer: &ComparedIssuer<'_>,
    expected: &Expectation<'_>,
    findings: &mut Findings,
) {
    let mut found: Vec<(&[u8], bool)> = parsed
        .extensions()
        .iter()
        .map(|extension| (extension.oid.as_bytes(), extension.critical))
        .collect();
    found.sort_unstable();
    let mut asked = asked_extensions(issuer, expected);
    asked.sort_unstable();
    findings.require(found == asked, "extensions", || {
        format!("the extensions (and whether critical) are {found:02x?}, not {asked:02x?}")
    });
}

/// RFC 3161 2.3: the extension of such a certificate is critical.
fn stamps_time(expected: &Expectation<'_>) -> bool {
    let purposes = &expected.profile.extended_key_usage;
    purposes.iter().any(|it| it.oid() == oid::TIME_STAMPING)
}

fn asked_extensions<'a>(
    issuer: &ComparedIssuer<'_>,
    expected: &Expectation<'a>,
) -> Vec<(&'a [u8], bool)> {
    let lists = expected
        .distribution
        .is_some_and(|urls| urls.crl_url.is_some() || urls.crl_partitions.is_some());
    let access = expected
        .distribution
        .is_some_and(|urls| urls.ocsp_url.is_some() || urls.ca_issuers_url.is_some());
    let further = &expected.profile.extensions;
    let limits = expected.profile.policy_limits;
    let always = [
        (true, SUBJECT_KEY_IDENTIFIER, false),
        (issuer.above.is_some(), AUTHORITY_KEY_IDENTIFIER, false),
        (true, BASIC_CONSTRAINTS, true),
        (true, KEY_USAGE, true),
        (
            !expected.profile.extended_key_usage.is_empty(),
            EXTENDED_KEY_USAGE,
            stamps_time(expected),
        ),
        (
            !expected.profile.certificate_policies.is_empty(),
            CERTIFICATE_POLICIES,
            false,
        ),
        (limits.constraints.is_some(), POLICY_CONSTRAINTS, true),
        (
            limits.inhibit_any_policy.is_some(),
            INHIBIT_ANY_POLICY,
            true,
        ),
        (!asked_names(expected).is_empty(), SUBJECT_ALT_NAME, false),
        (
            expected.name_constraints.is_some(),
            NAME_CONSTRAINTS,
            expected.name_constraints.is_some_and(|it| it.critical),
        ),
        (lists, CRL_DISTRIBUTION_POINTS, false),
        (access, AUTHORITY_INFORMATION_ACCESS, false),
    ];
    always
        .into_iter()
        .filter_map(|(asked, id, critical)| asked.then_some((id, critical)))
        .chain(further.iter().map(|it| (it.id.as_bytes(), it.critical)))
        .collect()
}

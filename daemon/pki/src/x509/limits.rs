//! What an authority's certificate demands of everything below it, beyond what we build and check.

use super::certificate::{Certificate, CertificateRefusal};
use super::profile::ExtendedKeyUsage;
use super::{oid, wire};
use der::Decode;
use der::asn1::ObjectIdentifier;
use std::collections::BTreeSet;
use x509_cert::ext::pkix;

/// What verifiers measure all below by, whether or not it is marked critical, as it must be.
const CONSTRAINTS: &[(ObjectIdentifier, &str)] = &[
    (oid::NAME_CONSTRAINTS, "nameConstraints"),
    (oid::POLICY_CONSTRAINTS, "policyConstraints"),
];

/// Other extensions that may be critical: what we issue obeys them, or they demand nothing of it.
const OBEYED: &[ObjectIdentifier] = &[
    oid::BASIC_CONSTRAINTS,
    oid::KEY_USAGE,
    oid::EXTENDED_KEY_USAGE,
    oid::SUBJECT_ALT_NAME,
    oid::CERTIFICATE_POLICIES,
    oid::CRL_DISTRIBUTION_POINTS,
];

/// Why certificates below `authority` would be refused by verifiers, in words; `None` if they would not.
///
/// What we issue is not measured by name and policy constraints (RFC 5280 4.2.1.10, 4.2.1.11).
/// Verifiers take the extended key usage of an authority as a limit of all below it.
pub fn limit(
    authority: &Certificate,
    purposes: &BTreeSet<ExtendedKeyUsage>,
) -> Result<Option<String>, CertificateRefusal> {
    let tbs = wire::TbsCertificate::from_der(authority.tbs_bytes())?;
    let extensions = tbs.extensions.unwrap_or_default();
    for extension in &extensions {
        let id = extension.extn_id;
        let constraint = CONSTRAINTS.iter().find(|(known, _)| *known == id);
        if constraint.is_some() || (extension.critical && !OBEYED.contains(&id)) {
            let name = constraint.map_or("critical", |(_, name)| name);
            return Ok(Some(format!(
                "its extension {id} ({name}) is none that Hallmark obeys in what it issues; have it \
                 issued without"
            )));
        }
    }
    let usage: Option<pkix::ExtendedKeyUsage> =
        wire::extension(&extensions, oid::EXTENDED_KEY_USAGE)?;
    let Some(pkix::ExtendedKeyUsage(allowed)) = usage else {
        return Ok(None);
    };
    if allowed.contains(&oid::ANY_EXTENDED_KEY_USAGE) {
        return Ok(None);
    }
    let missing = purposes.iter().find(|it| !allowed.contains(&it.oid()));
    Ok(missing.map(|it| {
        format!(
            "its extended key usage limits all below it, and lacks {} ({it:?}), which a profile \
             has; have it issued with that, or without an extended key usage",
            it.oid()
        )
    }))
}

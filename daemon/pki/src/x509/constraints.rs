//! Finds extensions of an authority's certificate that would make verifiers refuse its leaves.

use super::certificate::{Certificate, CertificateRefusal};
use super::profile::ExtendedKeyUsage;
use super::{oid, wire};
use der::Decode;
use der::asn1::ObjectIdentifier;
use std::collections::BTreeSet;
use x509_cert::ext::pkix;

/// Constraints that apply to the whole subtree (RFC 5280 4.2.1.10, 4.2.1.11). They count even where
/// they are not marked critical, as they must be.
const CONSTRAINTS: &[(ObjectIdentifier, &str)] = &[
    (oid::NAME_CONSTRAINTS, "nameConstraints"),
    (oid::POLICY_CONSTRAINTS, "policyConstraints"),
];

/// Critical extensions that our certificates obey, or that demand nothing of them.
const OBEYED: &[ObjectIdentifier] = &[
    oid::BASIC_CONSTRAINTS,
    oid::KEY_USAGE,
    oid::EXTENDED_KEY_USAGE,
    oid::SUBJECT_ALT_NAME,
    oid::CERTIFICATE_POLICIES,
    oid::CRL_DISTRIBUTION_POINTS,
];

/// Returns why verifiers would refuse certificates with `purposes` below `authority`, if they
/// would.
///
/// Certificates are issued without regard to name and policy constraints, so a certificate that has
/// one is an objection. Verifiers take the extended key usage of an authority as a limit for every
/// certificate below it.
pub fn objection(
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

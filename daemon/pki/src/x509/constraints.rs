//! Finds extensions of an authority's certificate that would make verifiers refuse its leaves.

use super::certificate::{Certificate, CertificateRefusal};
use super::profile::Profile;
use super::{oid, wire};
use der::Decode;
use der::asn1::ObjectIdentifier;
use x509_cert::ext::{Extension, pkix};

/// Critical extensions that our certificates obey, or that demand nothing of them.
const OBEYED: &[ObjectIdentifier] = &[
    oid::NAME_CONSTRAINTS,
    oid::BASIC_CONSTRAINTS,
    oid::KEY_USAGE,
    oid::EXTENDED_KEY_USAGE,
    oid::SUBJECT_ALT_NAME,
    oid::CERTIFICATE_POLICIES,
    oid::CRL_DISTRIBUTION_POINTS,
];

/// Returns why verifiers would refuse every certificate of one of `profiles` below `authority`, if
/// they would. Whether they refuse a single one for its names is decided before it is signed.
///
/// Certificates are issued without regard to policy constraints, so a certificate that has one is
/// an objection, also where it is not marked critical, as it must be (RFC 5280 4.2.1.11). Verifiers
/// take the extended key usage of an authority as a limit for every certificate below it.
pub fn objection(
    authority: &Certificate,
    profiles: &[&Profile],
) -> Result<Option<String>, CertificateRefusal> {
    let tbs = wire::TbsCertificate::from_der(authority.tbs_bytes())?;
    let extensions = tbs.extensions.unwrap_or_default();
    let unobeyed = extensions.iter().find(|it| {
        it.extn_id == oid::POLICY_CONSTRAINTS || (it.critical && !OBEYED.contains(&it.extn_id))
    });
    if let Some(Extension { extn_id: id, .. }) = unobeyed {
        let is_policy = *id == oid::POLICY_CONSTRAINTS;
        let name = if is_policy {
            "policyConstraints"
        } else {
            "critical"
        };
        return Ok(Some(format!(
            "its extension {id} ({name}) is none that Hallmark obeys in what it issues; have it \
             issued without"
        )));
    }
    let usage: Option<pkix::ExtendedKeyUsage> =
        wire::extension(&extensions, oid::EXTENDED_KEY_USAGE)?;
    let by_names = || objection_by_names(authority, profiles);
    Ok(objection_by_usage(usage, profiles).or_else(by_names))
}

fn objection_by_usage(
    usage: Option<pkix::ExtendedKeyUsage>,
    profiles: &[&Profile],
) -> Option<String> {
    let pkix::ExtendedKeyUsage(allowed) = usage?;
    if allowed.contains(&oid::ANY_EXTENDED_KEY_USAGE) {
        return None;
    }
    let mut purposes = profiles.iter().flat_map(|it| &it.extended_key_usage);
    let missing = purposes.find(|it| !allowed.contains(&it.oid()))?;
    Some(format!(
        "its extended key usage limits all below it, and lacks {} ({missing}), which a profile \
         has; have it issued with that, or without an extended key usage",
        missing.oid()
    ))
}

fn objection_by_names(authority: &Certificate, profiles: &[&Profile]) -> Option<String> {
    let constraints = match authority.name_constraints()? {
        Ok(constraints) => constraints,
        Err(reason) => return Some(format!("{reason}; have it issued with others, or without")),
    };
    profiles.iter().find_map(|profile| {
        let why = constraints.objection_to_all(profile.subject.fixed()?)?;
        Some(format!(
            "the subject of every leaf of a profile is refused: {why}; correct the `subject` of the \
             profile, or have the certificate issued with other constraints"
        ))
    })
}

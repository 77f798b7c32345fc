//! Finds extensions of an authority's certificate that would make verifiers refuse its leaves.

use super::ber::SEQUENCE;
use super::certificate::{Certificate, CertificateRefusal};
use super::certificate_fields::unreadable;
use super::extension::Extension;
use super::oid;
use super::profile::Profile;
use super::wire::{Element, elements};
use der::asn1::ObjectIdentifier;

/// Critical extensions that our certificates obey, or that demand nothing of them.
const OBEYED: &[ObjectIdentifier] = &[
    oid::NAME_CONSTRAINTS,
    oid::BASIC_CONSTRAINTS,
    oid::KEY_USAGE,
    oid::EXTENDED_KEY_USAGE,
    oid::SUBJECT_ALT_NAME,
    oid::CERTIFICATE_POLICIES,
    oid::POLICY_CONSTRAINTS,
    oid::INHIBIT_ANY_POLICY,
    oid::CRL_DISTRIBUTION_POINTS,
];

/// Returns why verifiers would refuse every certificate of one of `profiles` below `authority`, if
/// they would. Whether they refuse a single one for its names is decided before it is signed.
///
/// Verifiers take the extended key usage of an authority as a limit for every certificate below it.
/// Whether the policies along a whole chain fit is decided by [`super::policy_path`].
pub fn objection(
    authority: &Certificate,
    profiles: &[&Profile],
) -> Result<Option<String>, CertificateRefusal> {
    let extensions = authority.all_extensions();
    let is_obeyed = |it: &Extension<'_>| OBEYED.iter().any(|known| it.is(*known));
    let unobeyed = extensions.iter().find(|it| it.critical && !is_obeyed(it));
    if let Some(extension) = unobeyed {
        return Ok(Some(format!(
            "its extension {} (critical) is none that Hallmark obeys in what it issues; have it \
             issued without",
            extension.name()
        )));
    }
    let usage = purposes(&extensions)
        .map_err(|()| CertificateRefusal::Malformed(unreadable("extended key usage")))?;
    let by_names = || objection_by_names(authority, profiles);
    Ok(objection_by_usage(usage, profiles).or_else(by_names))
}

/// Returns the contents of the identifiers in the extended key usage (RFC 5280 4.2.1.12), if there
/// is one. Two of them are an error (RFC 5280 4.2).
fn purposes<'a>(extensions: &[Extension<'a>]) -> Result<Option<Vec<&'a [u8]>>, ()> {
    let mut usages = extensions
        .iter()
        .filter(|it| it.is(oid::EXTENDED_KEY_USAGE));
    let usage = match (usages.next(), usages.next()) {
        (None, _) => return Ok(None),
        (Some(usage), None) => elements(usage.value).map_err(drop)?,
        (Some(_), Some(_)) => return Err(()),
    };
    match usage[..] {
        [
            Element {
                tag: SEQUENCE,
                value,
                ..
            },
        ] => {
            let purposes = elements(value).map_err(drop)?;
            Ok(Some(purposes.into_iter().map(|it| it.value).collect()))
        }
        _ => Err(()),
    }
}

fn objection_by_usage(allowed: Option<Vec<&[u8]>>, profiles: &[&Profile]) -> Option<String> {
    let allowed = allowed?;
    let allows = |id: ObjectIdentifier| allowed.contains(&id.as_bytes());
    if allows(oid::ANY_EXTENDED_KEY_USAGE) {
        return None;
    }
    let mut purposes = profiles.iter().flat_map(|it| &it.extended_key_usage);
    let missing = purposes.find(|it| !allows(it.oid()))?;
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
        let (attributes, only_name_follows) = profile.subject.beginning();
        let why = constraints.objection_to_all(&attributes, only_name_follows)?;
        Some(format!(
            "the subject of every leaf of a profile is refused: {why}; correct the `subject` of \
             the profile, or have the certificate issued with other constraints"
        ))
    })
}

//! Encodes the extensions of certificates and revocation lists (RFC 5280 4.2), in a fixed order.
//!
//! Only the builders use this module; the lint reads the result with a parser of its own.

use super::crl::IssuingPoint;
use super::issuer::{Distribution, IssuerFields};
use super::name_constraints::KeptConstraints;
use super::oid;
use super::profile::{
    CertificatePolicy, CustomExtension, ExtendedKeyUsage, KeyUsage, Kind, Profile,
};
use super::san::SubjectAlternativeName;
use super::serial::SerialNumber;
use super::tbs::CertificateContent;
use der::Encode;
use der::asn1::{Any, Ia5String, Ia5StringRef, ObjectIdentifier, OctetString};
use der::flagset::FlagSet;
use std::borrow::Cow;
use x509_cert::ext::pkix::certpolicy::{PolicyInformation, PolicyQualifierInfo};
use x509_cert::ext::pkix::crl::dp::{DistributionPoint, IssuingDistributionPoint};
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName, GeneralNames};
use x509_cert::ext::pkix::{self, KeyUsages};
use x509_cert::ext::{Extension, Extensions};

/// Returns all extensions of the certificate to build.
pub(super) fn all(
    issuer: &IssuerFields,
    request: &CertificateContent<'_>,
) -> der::Result<Extensions> {
    let profile = request.profile;
    let mut extensions = vec![
        subject_key_identifier(issuer, request)?,
        basic_constraints(profile)?,
        key_usage(profile)?,
    ];
    // RFC 5280 4.2.1.1: a self-signed certificate may leave it out, because it would repeat the
    // subject key identifier.
    if !issuer.is_self_signed() {
        extensions.insert(1, authority_key_identifier(issuer)?);
    }
    if !profile.extended_key_usage.is_empty() {
        extensions.push(extended_key_usage(profile)?);
    }
    if !profile.certificate_policies.is_empty() {
        extensions.push(certificate_policies(&profile.certificate_policies)?);
    }
    extensions.extend(policy_limits(profile)?);
    let names = names_let_through(request);
    if !names.is_empty() {
        extensions.push(subject_alternative_name(names)?);
    }
    extensions.extend(request.name_constraints.map(name_constraints).transpose()?);
    extensions.extend(crl_distribution_points(
        issuer.distribution(),
        request.serial,
    )?);
    extensions.extend(authority_information_access(issuer.distribution())?);
    for custom in &profile.extensions {
        extensions.push(further(custom)?);
    }
    Ok(extensions)
}

pub(super) fn extension(
    id: ObjectIdentifier,
    critical: bool,
    value: &impl Encode,
) -> der::Result<Extension> {
    Ok(Extension {
        extn_id: id,
        critical,
        extn_value: OctetString::new(value.to_der()?)?,
    })
}

/// RFC 5280 4.2.1.2: an authority's certificate MUST have it, a leaf SHOULD, and it MUST NOT be
/// critical.
fn subject_key_identifier(
    issuer: &IssuerFields,
    request: &CertificateContent<'_>,
) -> der::Result<Extension> {
    let cross = issuer.cross_key_identifier();
    let own = request.public_key.key_identifier();
    let octets = OctetString::new(cross.unwrap_or(&own))?;
    extension(oid::SUBJECT_KEY_IDENTIFIER, false, &octets)
}

/// Returns the key identifier alone: issuer and serial would tie leaves to one certificate of the
/// key.
pub(super) fn authority_key_identifier(issuer: &IssuerFields) -> der::Result<Extension> {
    let identifier = pkix::AuthorityKeyIdentifier {
        key_identifier: Some(OctetString::new(issuer.key_identifier())?),
        ..pkix::AuthorityKeyIdentifier::default()
    };
    extension(oid::AUTHORITY_KEY_IDENTIFIER, false, &identifier)
}

pub(super) fn basic_constraints(profile: &Profile) -> der::Result<Extension> {
    let (ca, path_len_constraint) = match profile.kind {
        Kind::Leaf => (false, None),
        Kind::Authority { path_length } => (true, path_length),
    };
    let constraints = pkix::BasicConstraints {
        ca,
        path_len_constraint,
    };
    // RFC 5280 4.2.1.9: it MUST be critical in an authority's certificate. A leaf has it, too, and
    // there it is empty: DER leaves out FALSE, which is the default.
    extension(oid::BASIC_CONSTRAINTS, true, &constraints)
}

pub(super) fn key_usage(profile: &Profile) -> der::Result<Extension> {
    let bits = profile
        .key_usage
        .iter()
        .fold(FlagSet::default(), |bits, usage| {
            bits | key_usage_bit(*usage)
        });
    // RFC 5280 4.2.1.3: an authority's certificate MUST have it, and it SHOULD be critical.
    extension(oid::KEY_USAGE, true, &pkix::KeyUsage(bits))
}

fn key_usage_bit(usage: KeyUsage) -> KeyUsages {
    match usage {
        KeyUsage::DigitalSignature => KeyUsages::DigitalSignature,
        KeyUsage::KeyEncipherment => KeyUsages::KeyEncipherment,
        KeyUsage::KeyAgreement => KeyUsages::KeyAgreement,
        KeyUsage::KeyCertSign => KeyUsages::KeyCertSign,
        KeyUsage::CrlSign => KeyUsages::CRLSign,
    }
}

fn name_constraints(kept: &KeptConstraints) -> der::Result<Extension> {
    Ok(Extension {
        extn_id: oid::NAME_CONSTRAINTS,
        critical: kept.critical,
        extn_value: OctetString::new(&kept.value[..])?,
    })
}

fn extended_key_usage(profile: &Profile) -> der::Result<Extension> {
    let purposes = profile.extended_key_usage.iter().map(|it| it.oid());
    let usage = pkix::ExtendedKeyUsage(purposes.collect());
    // RFC 5280 4.2.1.12 permits both. Not critical: verifiers that know it obey it all the same.
    // Verifiers of time stamps accept it critical alone (RFC 3161 2.3).
    let critical = profile.extended_key_usage == [ExtendedKeyUsage::TimeStamping];
    extension(oid::EXTENDED_KEY_USAGE, critical, &usage)
}

pub(super) fn names_let_through<'a>(
    request: &CertificateContent<'a>,
) -> &'a [SubjectAlternativeName] {
    if request.profile.subject_alternative_names.is_none() {
        &[]
    } else {
        request.subject_alternative_names
    }
}

/// RFC 5280 4.2.1.4: not critical, so that verifiers without policies accept the certificate.
fn certificate_policies(policies: &[CertificatePolicy]) -> der::Result<Extension> {
    let policies: der::Result<Vec<_>> = policies.iter().map(policy).collect();
    let policies = pkix::certpolicy::CertificatePolicies(policies?);
    extension(oid::CERTIFICATE_POLICIES, false, &policies)
}

/// RFC 5280 4.2.1.11 and 4.2.1.14: both MUST be critical.
fn policy_limits(profile: &Profile) -> der::Result<Vec<Extension>> {
    let limits = profile.policy_limits;
    let mut extensions = Vec::new();
    if let Some(constraints) = limits.constraints {
        let constraints = pkix::PolicyConstraints {
            require_explicit_policy: constraints.require_explicit_policy.map(u32::from),
            inhibit_policy_mapping: constraints.inhibit_policy_mapping.map(u32::from),
        };
        extensions.push(extension(oid::POLICY_CONSTRAINTS, true, &constraints)?);
    }
    if let Some(after) = limits.inhibit_any_policy {
        let inhibit = pkix::InhibitAnyPolicy(after.into());
        extensions.push(extension(oid::INHIBIT_ANY_POLICY, true, &inhibit)?);
    }
    Ok(extensions)
}

fn policy(policy: &CertificatePolicy) -> der::Result<PolicyInformation> {
    let statement = |cps: &String| {
        let qualifier = Any::encode_from(&Ia5StringRef::new(cps)?)?;
        let qualifier = PolicyQualifierInfo {
            policy_qualifier_id: oid::CPS,
            qualifier: Some(qualifier),
        };
        Ok::<_, der::Error>(vec![qualifier])
    };
    Ok(PolicyInformation {
        policy_identifier: policy.id,
        policy_qualifiers: policy.cps.as_ref().map(statement).transpose()?,
    })
}

fn further(custom: &CustomExtension) -> der::Result<Extension> {
    Ok(Extension {
        extn_id: custom.id,
        critical: custom.critical,
        extn_value: OctetString::new(&custom.encoded[..])?,
    })
}

fn subject_alternative_name(names: &[SubjectAlternativeName]) -> der::Result<Extension> {
    let names: der::Result<GeneralNames> = names
        .iter()
        .map(SubjectAlternativeName::to_general_name)
        .collect();
    // Not critical: the subject is never empty (RFC 5280 4.2.1.6).
    extension(oid::SUBJECT_ALT_NAME, false, &pkix::SubjectAltName(names?))
}

fn crl_distribution_points(
    distribution: &Distribution,
    serial: &SerialNumber,
) -> der::Result<Option<Extension>> {
    let partition = distribution.crl_partitions.as_ref();
    let url = partition.map(|it| Cow::Owned(it.url_of(serial)));
    let full = distribution.crl_url.as_deref().map(Cow::Borrowed);
    let Some(url) = url.or(full) else {
        return Ok(None);
    };
    // RFC 5280 4.2.1.13: without `reasons` the list is for all of them, and without `cRLIssuer` it
    // is signed by the issuer of the certificate.
    let point = DistributionPoint {
        distribution_point: Some(DistributionPointName::FullName(vec![uri(&url)?])),
        reasons: None,
        crl_issuer: None,
    };
    let points = pkix::CrlDistributionPoints(vec![point]);
    extension(oid::CRL_DISTRIBUTION_POINTS, false, &points).map(Some)
}

/// RFC 5280 5.2.5. It MUST be critical.
pub(super) fn issuing_distribution_point(point: &IssuingPoint) -> der::Result<Extension> {
    let name = DistributionPointName::FullName(vec![uri(&point.url)?]);
    let value = IssuingDistributionPoint {
        distribution_point: Some(name),
        only_contains_user_certs: point.only_user_certificates,
        only_contains_ca_certs: false,
        only_some_reasons: None,
        indirect_crl: false,
        only_contains_attribute_certs: false,
    };
    extension(oid::ISSUING_DISTRIBUTION_POINT, true, &value)
}

/// RFC 5280 5.2.6. It MUST NOT be critical.
pub(super) fn freshest_crl(url: &str) -> der::Result<Extension> {
    let point = DistributionPoint {
        distribution_point: Some(DistributionPointName::FullName(vec![uri(url)?])),
        reasons: None,
        crl_issuer: None,
    };
    extension(oid::FRESHEST_CRL, false, &pkix::FreshestCrl(vec![point]))
}

fn authority_information_access(distribution: &Distribution) -> der::Result<Option<Extension>> {
    let methods = [
        (oid::OCSP, &distribution.ocsp_url),
        (oid::CA_ISSUERS, &distribution.ca_issuers_url),
    ];
    let mut descriptions = Vec::new();
    for (access_method, url) in methods {
        if let Some(url) = url {
            let access_location = uri(url)?;
            descriptions.push(pkix::AccessDescription {
                access_method,
                access_location,
            });
        }
    }
    if descriptions.is_empty() {
        return Ok(None);
    }
    // RFC 5280 4.2.2.1: it MUST NOT be critical.
    let access = pkix::AuthorityInfoAccessSyntax(descriptions);
    extension(oid::AUTHORITY_INFORMATION_ACCESS, false, &access).map(Some)
}

fn uri(url: &str) -> der::Result<GeneralName> {
    Ok(GeneralName::UniformResourceIdentifier(Ia5String::new(url)?))
}

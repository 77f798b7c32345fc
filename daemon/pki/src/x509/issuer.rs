//! Describes an issuer: the fields that its certificates copy, and the limits that it sets for
//! them.

use super::certificate::Certificate;
use super::constrained_names::ConstrainedNames;
use super::crl_partition::CrlPartitions;
use super::key::{KeyRefusal, PublicKey, SignatureAlgorithm};
use super::name::Subject;
use super::name_constraints::NameConstraints;
use super::san::SubjectAlternativeName;
use crate::der_bytes::Der;
use crate::unix_seconds::UnixSeconds;
use serde::{Deserialize, Serialize};

/// The URLs of what an authority publishes. An absent URL leaves its extension out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Distribution {
    /// The URL of the revocation list: cRLDistributionPoints (RFC 5280 4.2.1.13).
    pub crl_url: Option<String>,
    /// The partitions of the list, of which a certificate names its own, instead of `crl_url`.
    pub crl_partitions: Option<CrlPartitions>,
    /// The URL of the authority's certificate: id-ad-caIssuers (RFC 5280 4.2.2.1).
    pub ca_issuers_url: Option<String>,
    /// The URL of the OCSP responder: id-ad-ocsp (RFC 6960 3.1).
    pub ocsp_url: Option<String>,
}

/// The issuer of a certificate.
#[derive(Clone, Debug)]
pub struct IssuerFields {
    name_der: Der,
    key_identifier: Vec<u8>,
    public_key: PublicKey,
    /// `None` for a root that signs its own certificate: nothing is above it.
    bounds: Option<Bounds>,
    distribution: Distribution,
    /// The key identifier of the key that it certifies under its own name, and of nothing else.
    cross_key_identifier: Option<Vec<u8>>,
    /// The name constraints of its own certificate and of all above.
    constraints: Vec<Result<NameConstraints, String>>,
}

/// Limits that an issuer's own certificate sets for certificates below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// The issuer's first second of validity, in Unix seconds.
    pub(super) not_before: UnixSeconds,
    /// The issuer's last second of validity, in Unix seconds.
    pub(super) not_after: UnixSeconds,
    pub(super) path_length: Option<u8>,
}

/// The reason why a certificate cannot be an issuer's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssuerRefusal {
    /// The certificate has no cA, or no keyCertSign.
    #[error("the certificate of {0:?} is no authority: it needs cA TRUE and keyCertSign")]
    NotAnAuthority(String),
    /// The certificate has no subject key identifier; a CA's MUST have one (RFC 5280 4.2.1.2).
    #[error("the certificate of {0:?} has no subject key identifier")]
    NoKeyIdentifier(String),
    /// The key is of no supported type.
    #[error(transparent)]
    Key(#[from] KeyRefusal),
}

impl IssuerFields {
    /// Reads the issuer from its certificate.
    pub fn from_certificate(certificate: &Certificate) -> Result<IssuerFields, IssuerRefusal> {
        if !certificate.may_sign_certificates() {
            return Err(IssuerRefusal::NotAnAuthority(certificate.subject()));
        }
        let key_identifier = certificate
            .subject_key_identifier()
            .ok_or_else(|| IssuerRefusal::NoKeyIdentifier(certificate.subject()))?;
        Ok(IssuerFields {
            name_der: certificate.subject_der().clone(),
            key_identifier: key_identifier.to_vec(),
            public_key: certificate.public_key()?,
            bounds: Some(Bounds {
                not_before: certificate.not_before(),
                not_after: certificate.not_after(),
                path_length: certificate.path_length(),
            }),
            distribution: Distribution::default(),
            cross_key_identifier: None,
            constraints: constraints([certificate]),
        })
    }

    /// Describes a root that signs its own certificate.
    pub fn self_signed(name: &Subject, public_key: &PublicKey) -> IssuerFields {
        IssuerFields {
            name_der: name.to_der(),
            key_identifier: public_key.key_identifier().to_vec(),
            public_key: public_key.clone(),
            bounds: None,
            distribution: Distribution::default(),
            cross_key_identifier: None,
            constraints: Vec::new(),
        }
    }

    /// Returns the issuer with the URLs that its certificates will carry.
    pub fn with_distribution(self, distribution: Distribution) -> IssuerFields {
        IssuerFields {
            distribution,
            ..self
        }
    }

    /// Returns the issuer of the cross-certificate of `subject` (RFC 4210 4.4): of another key of
    /// its own name. The certificate has the key identifier that `subject` has in its own
    /// certificate, because that is what certificates below it point to.
    pub fn cross_certifying(self, subject: &IssuerFields) -> IssuerFields {
        IssuerFields {
            cross_key_identifier: Some(subject.key_identifier.clone()),
            ..self
        }
    }

    /// Returns the issuer with the name constraints of the certificates above its own.
    pub fn with_constraints_of<'a>(
        mut self,
        above: impl IntoIterator<Item = &'a Certificate>,
    ) -> IssuerFields {
        self.constraints.extend(constraints(above));
        self
    }

    /// Returns why verifiers refuse a certificate with these names below it, if they do (RFC 5280
    /// 6.1.3 (b), (c)).
    pub fn objection_to(
        &self,
        subject_der: &[u8],
        alternative: &[SubjectAlternativeName],
        is_leaf: bool,
    ) -> Option<String> {
        if self.constraints.is_empty() {
            return None;
        }
        let names = match ConstrainedNames::of_request(subject_der, alternative, is_leaf) {
            Ok(names) => names,
            Err(reason) => return Some(reason),
        };
        self.constraints.iter().find_map(|it| match it {
            Ok(constraints) => constraints.objection(&names),
            Err(reason) => Some(reason.clone()),
        })
    }

    /// Returns the DER issuer name of its certificates: its own subject, byte for byte.
    pub fn name_der(&self) -> &Der {
        &self.name_der
    }

    /// Returns the authority key identifier of its certificates.
    pub fn key_identifier(&self) -> &[u8] {
        &self.key_identifier
    }

    /// Returns the key that verifies its signatures.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Returns the signature algorithm.
    pub fn signature_algorithm(&self) -> SignatureAlgorithm {
        self.public_key.key_type().signature_algorithm()
    }

    /// Returns true if it signs its own certificate.
    pub fn is_self_signed(&self) -> bool {
        self.bounds.is_none()
    }

    /// Returns the URLs that its certificates carry.
    pub fn distribution(&self) -> &Distribution {
        &self.distribution
    }

    pub(super) fn cross_key_identifier(&self) -> Option<&[u8]> {
        self.cross_key_identifier.as_deref()
    }

    pub(super) fn bounds(&self) -> Option<Bounds> {
        self.bounds
    }
}

fn constraints<'a>(
    certificates: impl IntoIterator<Item = &'a Certificate>,
) -> Vec<Result<NameConstraints, String>> {
    let constraints = certificates.into_iter().filter_map(|certificate| {
        let unusable = |reason| format!("the certificate of {:?}: {reason}", certificate.subject());
        let constraints = certificate.name_constraints()?;
        Some(constraints.cloned().map_err(unusable))
    });
    constraints.collect()
}

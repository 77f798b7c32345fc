//! Issuers: what of an authority goes into the certificates it signs, and what bounds them.

use super::certificate::Certificate;
use super::key::{KeyRefusal, PublicKey, SignatureAlgorithm};
use super::name::DistinguishedName;
use serde::{Deserialize, Serialize};

/// Where relying parties find what an authority publishes. Absent URLs leave no trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Distribution {
    /// The revocation list: cRLDistributionPoints (RFC 5280 4.2.1.13).
    pub crl_url: Option<String>,
    /// The authority's own certificate: id-ad-caIssuers (RFC 5280 4.2.2.1).
    pub ca_issuers_url: Option<String>,
    /// The OCSP responder: id-ad-ocsp (RFC 6960 3.1).
    pub ocsp_url: Option<String>,
}

/// An authority as the certificates below it see it.
#[derive(Clone, Debug)]
pub struct Issuer {
    name_der: Vec<u8>,
    key_identifier: Vec<u8>,
    public_key: PublicKey,
    /// `None` for a root that is about to sign itself: nothing is above it.
    bounds: Option<Bounds>,
    distribution: Distribution,
}

/// What an issuer's own certificate imposes on those below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Unix seconds.
    pub(super) not_before: i64,
    /// Unix seconds.
    pub(super) not_after: i64,
    pub(super) path_length: Option<u8>,
}

/// Why a certificate is no issuer's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssuerRefusal {
    /// Not a CA, or without keyCertSign.
    #[error("the certificate of {0:?} is no authority: it needs cA TRUE and keyCertSign")]
    NotAnAuthority(String),
    /// RFC 5280 4.2.1.2: an authority's certificate MUST have one.
    #[error("the certificate of {0:?} has no subject key identifier")]
    NoKeyIdentifier(String),
    /// Its key is none that our tokens hold.
    #[error(transparent)]
    Key(#[from] KeyRefusal),
}

impl Issuer {
    /// The authority whose certificate this is.
    pub fn from_certificate(certificate: &Certificate) -> Result<Issuer, IssuerRefusal> {
        if !certificate.may_sign_certificates() {
            return Err(IssuerRefusal::NotAnAuthority(certificate.subject()));
        }
        let key_identifier = certificate
            .subject_key_identifier()
            .ok_or_else(|| IssuerRefusal::NoKeyIdentifier(certificate.subject()))?;
        Ok(Issuer {
            name_der: certificate.subject_der().to_vec(),
            key_identifier: key_identifier.to_vec(),
            public_key: certificate.public_key()?,
            bounds: Some(Bounds {
                not_before: certificate.not_before(),
                not_after: certificate.not_after(),
                path_length: certificate.path_length(),
            }),
            distribution: Distribution::default(),
        })
    }

    /// A root that signs its own certificate.
    pub fn self_signed(name: &DistinguishedName, public_key: &PublicKey) -> Issuer {
        Issuer {
            name_der: name.to_der(),
            key_identifier: public_key.key_identifier().to_vec(),
            public_key: public_key.clone(),
            bounds: None,
            distribution: Distribution::default(),
        }
    }

    /// The same issuer, with URLs to put into what it signs.
    pub fn with_distribution(self, distribution: Distribution) -> Issuer {
        Issuer {
            distribution,
            ..self
        }
    }

    /// The DER name that its certificates carry as issuer: its own subject, byte for byte.
    pub fn name_der(&self) -> &[u8] {
        &self.name_der
    }

    /// What its certificates carry as authority key identifier.
    pub fn key_identifier(&self) -> &[u8] {
        &self.key_identifier
    }

    /// The key that verifies its signatures.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// How it signs.
    pub fn signature_algorithm(&self) -> SignatureAlgorithm {
        self.public_key.key_type().signature_algorithm()
    }

    /// Whether it is about to sign its own certificate.
    pub fn is_self_signed(&self) -> bool {
        self.bounds.is_none()
    }

    /// The URLs that its certificates carry.
    pub fn distribution(&self) -> &Distribution {
        &self.distribution
    }

    pub(super) fn bounds(&self) -> Option<Bounds> {
        self.bounds
    }
}

//! Reads the ceremony file: TOML that describes authorities, issuers before those they sign.

use crate::ca::adoption::{Adoption, REASON_CHARS_MAX};
use crate::ca::hierarchy::Generation;
use crate::ca::{Code, Error};
use crate::crl_number::CrlNumber;
use crate::toml_error::where_and_why;
use crate::x509::key::KeyType;
use crate::x509::name::DistinguishedName;
use crate::x509::name_constraints::KeptConstraints;
use crate::x509::profile::{
    CertificatePolicy, Kind, POLICIES_MAX, PolicyConstraints, PolicyLimits, Preset, human_seconds,
};
use serde::Deserialize;
use std::collections::BTreeSet;

/// The largest ceremony file, in bytes.
pub const FILE_BYTES_MAX: usize = 64 * 1024;
/// The most authorities that one file describes.
pub const AUTHORITIES_MAX: usize = 64;

/// A ceremony file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ceremony {
    /// The name of the ceremony in the transcript.
    pub name: String,
    /// The authorities, issuers before those they sign.
    pub authority: Vec<AuthoritySpecification>,
}

/// One authority of a ceremony file.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Raw")]
pub struct AuthoritySpecification {
    /// Its name, as the configuration's `[[authority]]` has it.
    pub name: String,
    /// The authority that signs it; none for a self-signed root.
    pub issuer: Option<String>,
    pub origin: Origin,
}

/// The origin of an authority.
#[derive(Clone, Debug)]
pub enum Origin {
    /// Key and certificate are made here.
    New(NewAuthority),
    /// Key and certificate exist, and are taken over.
    Adopted(Adoption),
    /// Its key is made here, its certificate elsewhere.
    External(ExternalAuthority),
}

/// An authority whose issuer is elsewhere.
#[derive(Clone, Debug)]
pub struct ExternalAuthority {
    /// The kind of key.
    pub key_type: KeyType,
    /// The subject, with its common name.
    pub subject: DistinguishedName,
    /// `pathLenConstraint` that the request asks for.
    pub path_length: Option<u8>,
}

/// An authority that is made here.
#[derive(Clone, Debug)]
pub struct NewAuthority {
    /// The kind of key.
    pub key_type: KeyType,
    /// The subject, with its common name.
    pub subject: DistinguishedName,
    /// How long its certificate is valid, in seconds.
    pub validity: u64,
    /// `pathLenConstraint`: how many authorities may follow below (RFC 5280, 4.2.1.9).
    pub path_length: Option<u8>,
    /// The names that certificates below may have (RFC 5280, 4.2.1.10).
    pub name_constraints: Option<KeptConstraints>,
    /// The policies of certificates below (RFC 5280, 4.2.1.4).
    pub policies: Vec<CertificatePolicy>,
    /// Its limits for the policies below (RFC 5280, 4.2.1.11 and 4.2.1.14).
    pub policy_limits: PolicyLimits,
}

/// A table `[[authority]]` as it is written: one of three sets of keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    #[serde(default)]
    issuer: Option<String>,
    #[serde(default)]
    external_issuer: bool,
    preset: Option<Preset>,
    key_type: Option<KeyType>,
    subject: Option<DistinguishedName>,
    #[serde(deserialize_with = "human_seconds::optional", default)]
    validity: Option<u64>,
    path_length: Option<u8>,
    name_constraints: Option<KeptConstraints>,
    certificate_policies: Option<Vec<CertificatePolicy>>,
    policy_constraints: Option<PolicyConstraints>,
    inhibit_any_policy: Option<u8>,
    /// A PKCS#11 URI (RFC 7512).
    key: Option<String>,
    certificate: Option<String>,
    accept: Option<String>,
    crl_number: Option<CrlNumber>,
}

impl TryFrom<Raw> for AuthoritySpecification {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let name = raw.name.clone();
        let issuer = raw.issuer.clone();
        let origin = raw.origin();
        Ok(Self {
            origin: origin.map_err(|reason| format!("authority {name:?}: {reason}"))?,
            name,
            issuer,
        })
    }
}

impl Raw {
    fn origin(mut self) -> Result<Origin, String> {
        if self.external_issuer {
            self.fill_path_length()?;
            return Ok(Origin::External(self.external()?));
        }
        match (self.key.clone(), self.certificate.clone()) {
            (Some(key), Some(certificate)) => {
                Ok(Origin::Adopted(self.adoption(&key, certificate)?))
            }
            (None, None) if self.accept.is_none() && self.crl_number.is_none() => {
                self.fill_path_length()?;
                self.fill_validity();
                Ok(Origin::New(self.new_authority()?))
            }
            _ => Err("to adopt one, give both `key` and `certificate`".into()),
        }
    }

    /// Takes the path length of the preset where none is given. Fails if the preset is not for this
    /// place in the hierarchy.
    fn fill_path_length(&mut self) -> Result<(), String> {
        let Some(preset) = self.preset else {
            return Ok(());
        };
        let is_below = self.issuer.is_some() || self.external_issuer;
        match (preset, is_below) {
            (Preset::Root, false) | (Preset::Intermediate, true) => {}
            (Preset::Root, true) => {
                return Err(
                    "a root signs itself, and this authority has an issuer; use preset = \
                     \"intermediate\""
                        .into(),
                );
            }
            (Preset::Intermediate, false) => {
                return Err(
                    "an intermediate has an issuer; give it `issuer`, or `external_issuer = true`, \
                     or use preset = \"root\""
                        .into(),
                );
            }
            (Preset::AdrIntermediate, _) => {
                return Err(
                    "the registry makes the key of an adr-intermediate itself; sign its request \
                     with `hallmark authority sign --profile adr-intermediate`"
                        .into(),
                );
            }
            _ => {
                return Err(format!(
                    "preset {preset} is for a [[profile]]; an authority has preset = \"root\" or \
                     \"intermediate\""
                ));
            }
        }
        if let Kind::Authority { path_length } = preset.profile().kind {
            self.path_length = self.path_length.or(path_length);
        }
        Ok(())
    }

    fn fill_validity(&mut self) {
        let of_preset = self.preset.map(|it| it.profile().validity_seconds);
        self.validity = self.validity.or(of_preset);
    }

    fn external(self) -> Result<ExternalAuthority, String> {
        let adopted = self.key.is_some() || self.certificate.is_some() || self.accept.is_some();
        if self.issuer.is_some() || adopted || self.crl_number.is_some() {
            return Err(
                "`external_issuer` goes with key_type, subject and path_length alone".into(),
            );
        }
        if self.validity.is_some() {
            return Err("leave `validity` out: its issuer decides".into());
        }
        if self.is_limited() {
            return Err(
                "leave constraints and `certificate_policies` out: its issuer decides".into(),
            );
        }
        Ok(ExternalAuthority {
            key_type: self.key_type.unwrap_or_else(default_key_type),
            subject: self.subject.ok_or("it has no `subject`")?,
            path_length: self.path_length,
        })
    }

    fn new_authority(self) -> Result<NewAuthority, String> {
        let policies = self.certificate_policies.unwrap_or_default();
        let ids: BTreeSet<String> = policies.iter().map(|it| it.id().to_string()).collect();
        if policies.len() > POLICIES_MAX || ids.len() < policies.len() {
            return Err(format!(
                "`certificate_policies` has at most {POLICIES_MAX} policies, each once"
            ));
        }
        if self
            .policy_constraints
            .is_some_and(PolicyConstraints::is_empty)
        {
            return Err(
                "`policy_constraints` says nothing: give it require_explicit_policy or \
                 inhibit_policy_mapping"
                    .into(),
            );
        }
        Ok(NewAuthority {
            name_constraints: self.name_constraints,
            policies,
            policy_limits: PolicyLimits {
                constraints: self.policy_constraints,
                inhibit_any_policy: self.inhibit_any_policy,
            },
            key_type: self.key_type.unwrap_or_else(default_key_type),
            subject: self.subject.ok_or("it has no `subject`")?,
            validity: self
                .validity
                .ok_or("it has no `validity`; add it, or a `preset`")?,
            path_length: self.path_length,
        })
    }

    /// It has limits that only an authority that is made here gets.
    fn is_limited(&self) -> bool {
        self.name_constraints.is_some()
            || self.certificate_policies.is_some()
            || self.policy_constraints.is_some()
            || self.inhibit_any_policy.is_some()
    }

    fn adoption(self, key: &str, certificate: String) -> Result<Adoption, String> {
        if self.preset.is_some() {
            return Err("leave `preset` out: its certificate is given".into());
        }
        let shape = self.key_type.is_some() || self.subject.is_some();
        if shape || self.validity.is_some() || self.path_length.is_some() || self.is_limited() {
            return Err(
                "its certificate is given, which says key_type, subject, validity and path_length"
                    .into(),
            );
        }
        let reason = self.accept.as_ref().map(|reason| reason.chars().count());
        if reason.is_some_and(|length| !(1..=REASON_CHARS_MAX).contains(&length)) {
            return Err(format!("`accept` has 1 to {REASON_CHARS_MAX} characters"));
        }
        let crl_number = self.crl_number.unwrap_or(CrlNumber::START);
        if !crl_number.leaves_room() {
            return Err(format!(
                "`crl_number` {crl_number} is so high that no later list could have a number \
                 within the 20 octets of RFC 5280"
            ));
        }
        Ok(Adoption {
            key: key.parse().map_err(|error| format!("`key`: {error}"))?,
            certificate,
            accept: self.accept,
            crl_number,
        })
    }
}

fn default_key_type() -> KeyType {
    KeyType::P256
}

impl Ceremony {
    /// Reads a ceremony file within its limits.
    pub fn parse(file: &str) -> Result<Self, Error> {
        if file.len() > FILE_BYTES_MAX {
            let message = format!("a ceremony file has at most {FILE_BYTES_MAX} bytes");
            return Err(Error::invalid(Code::CeremonyInvalid, message));
        }
        let ceremony: Self = toml::from_str(file)
            .map_err(|error| Error::invalid(Code::CeremonyInvalid, where_and_why(file, &error)))?;
        if ceremony.authority.len() > AUTHORITIES_MAX {
            let message = format!("a ceremony makes at most {AUTHORITIES_MAX} authorities");
            return Err(Error::invalid(Code::CeremonyInvalid, message));
        }
        Ok(ceremony)
    }
}

impl AuthoritySpecification {
    /// Fails if an existing authority is not the one that the file describes.
    pub(super) fn agrees_with(
        &self,
        existing: &Generation,
        issuer: Option<&str>,
    ) -> Result<(), Error> {
        let differs = match &self.origin {
            Origin::New(new) => new.differs_from(existing),
            Origin::Adopted(adoption) => adoption.differs_from(existing),
            Origin::External(external) => external.differs_from(existing),
        };
        let differs = match differs {
            _ if issuer != self.issuer.as_deref() => "another issuer",
            Some(differs) => differs,
            None => return Ok(()),
        };
        let message = format!(
            "authority {} exists with {differs} than the file says; a ceremony never replaces one, \
             choose another name or roll it",
            self.name
        );
        Err(Error::conflict(Code::AuthorityExists, message))
    }
}

impl ExternalAuthority {
    /// Compares the subject as text: the issuer may have written it in other string types.
    fn differs_from(&self, existing: &Generation) -> Option<&'static str> {
        if existing.is_root() || existing.parent.is_some() {
            Some("another issuer")
        } else if existing.certificate.subject() != self.subject.to_string() {
            Some("another subject")
        } else if existing.public_key.key_type() != self.key_type {
            Some("another key type")
        } else {
            None
        }
    }
}

impl NewAuthority {
    fn differs_from(&self, existing: &Generation) -> Option<&'static str> {
        if *existing.certificate.subject_der() != self.subject.to_der() {
            Some("another subject")
        } else if existing.public_key.key_type() != self.key_type {
            Some("another key type")
        } else if existing.certificate.path_length() != self.path_length {
            Some("another path length")
        } else if existing.certificate.kept_constraints() != self.name_constraints {
            Some("other name constraints")
        } else if existing.certificate.policies() != self.policies {
            Some("other policies")
        } else if existing.certificate.policy_limits() != Some(self.policy_limits) {
            Some("other policy constraints")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;

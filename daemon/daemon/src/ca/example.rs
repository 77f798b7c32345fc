//! Shows profiles and presets, and an example of a certificate of each, without issuing one.
//!
//! An example is built and linted by the code that builds certificates, for a key that is dropped
//! at once. Nothing is recorded and no token is asked; the bytes are never signed.

use super::generated_key::GeneratedKey;
use super::profile::{IssuanceProfile, Role};
use super::{Code, Error, Issuer};
use crate::unix_seconds::UnixSeconds;
use crate::x509::certificate::{Certificate, assemble};
use crate::x509::issuer::{Distribution, IssuerFields};
use crate::x509::key::{KeyType, PublicKey};
use crate::x509::lint::{self, Expectation, ExpectedIssuer, IssuerReading, LintedTbs};
use crate::x509::name::{DistinguishedName, Subject};
use crate::x509::printed;
use crate::x509::profile::{Preset, Profile, VALIDITY_SECONDS_MAX};
use crate::x509::requested_names::RequestedNames;
use crate::x509::san::SubjectAlternativeName;
use crate::x509::serial::{RANDOM_OCTETS, SerialNumber};
use crate::x509::tbs::{self, CertificateContent};
use crate::x509::template::Values;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use schemars::JsonSchema;
use serde::Serialize;

/// The common name of an example.
const NAME: &str = "example-1";
/// The authority of an example by a preset.
const AUTHORITY: &str = "example-line";

/// A profile, or a preset without what only a profile has.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ShownProfile {
    pub name: String,
    pub source: ProfileSource,
    pub authority: Option<String>,
    pub role: Option<Role>,
    /// The complete table, with what its preset gives.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub certificate: Profile,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub example: Option<Example>,
}

/// Where a profile comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProfileSource {
    Configured,
    Preset,
}

/// A certificate that was not issued.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Example {
    /// That it is none, in words.
    pub note: &'static str,
    /// As OpenSSL prints it.
    pub text: String,
    /// The to-be-signed bytes, in hexadecimal digits.
    pub tbs: String,
}

impl ShownProfile {
    fn of_preset(preset: Preset) -> ShownProfile {
        ShownProfile {
            name: preset.name().to_owned(),
            source: ProfileSource::Preset,
            authority: None,
            role: None,
            certificate: preset.profile(),
            example: None,
        }
    }
}

impl From<&IssuanceProfile> for ShownProfile {
    fn from(profile: &IssuanceProfile) -> ShownProfile {
        ShownProfile {
            name: profile.name.clone(),
            source: ProfileSource::Configured,
            authority: Some(profile.authority.clone()),
            role: Some(profile.role),
            certificate: profile.certificate.clone(),
            example: None,
        }
    }
}

impl Issuer {
    /// Returns the configured profiles, then the presets.
    pub fn shown_profiles(&self) -> Vec<ShownProfile> {
        let configured = self.profiles().values().map(ShownProfile::from);
        let presets = Preset::ALL.into_iter().map(ShownProfile::of_preset);
        configured.chain(presets).collect()
    }

    /// Returns the profile of this name; without one, or where `preset` is set, the preset.
    pub fn shown_profile(
        &self,
        name: &str,
        preset: bool,
        example: bool,
    ) -> Result<ShownProfile, Error> {
        let configured = self.profiles().get(name).filter(|_| !preset);
        let known = configured.map(ShownProfile::from);
        let known = known.or_else(|| Preset::from_name(name).map(ShownProfile::of_preset));
        let mut shown = known.ok_or_else(|| {
            let message = format!(
                "there is no profile and no preset {name:?}; `hallmark profile list` shows both"
            );
            Error::missing(Code::ProfileUnknown, message)
        })?;
        if example {
            shown.example = Some(self.example(&shown)?);
        }
        Ok(shown)
    }

    fn example(&self, shown: &ShownProfile) -> Result<Example, Error> {
        let profile = &shown.certificate;
        let now = self.now();
        let key = throwaway_key(profile)?;
        let line = shown.authority.as_deref();
        let serving = line.and_then(|it| self.hierarchy().serving(it).cloned());
        let tbs = match serving {
            Some(generation) => {
                let issuer = ExampleIssuer {
                    fields: &generation.issuer,
                    reading: Some(&generation.reading),
                    distribution: Some(&generation.distribution),
                };
                issuer.build(profile, line.unwrap_or(AUTHORITY), &key, now)
            }
            None => by_example_authority(profile, line.unwrap_or(AUTHORITY), &key, now),
        }?;
        let text =
            printed::text(tbs.bytes()).map_err(|reason| Error::stop(Code::NotEncodable, reason))?;
        Ok(Example {
            note: "an example: it was not issued, is not on record and has no signature; its key, \
                   names and serial number are made up",
            text,
            tbs: hex::encode(tbs.bytes()),
        })
    }
}

/// The issuer of an example.
struct ExampleIssuer<'a> {
    fields: &'a IssuerFields,
    /// `None` for a root, which is its own issuer.
    reading: Option<&'a IssuerReading>,
    distribution: Option<&'a Distribution>,
}

impl ExampleIssuer<'_> {
    fn build(
        &self,
        profile: &Profile,
        line: &str,
        public_key: &PublicKey,
        now: UnixSeconds,
    ) -> Result<LintedTbs, Error> {
        let requested = RequestedNames::example(profile);
        let values = Values {
            id: NAME,
            line,
            station: Some("example-station"),
            now,
            csr: Some(&requested),
        };
        let subject = profile.subject.fill(&values);
        let subject = subject.map_err(|it| Error::invalid(it.code(), it.to_string()))?;
        let names = requested.certified_by(profile, &values);
        let names = names.map_err(|it| Error::invalid(it.code(), it.to_string()))?;
        self.build_named(profile, &subject.into(), &names, public_key, now)
    }

    fn build_named(
        &self,
        profile: &Profile,
        subject: &Subject,
        names: &[SubjectAlternativeName],
        public_key: &PublicKey,
        now: UnixSeconds,
    ) -> Result<LintedTbs, Error> {
        let serial = SerialNumber::from_random(now, [0x5a; RANDOM_OCTETS]);
        let content = CertificateContent {
            profile,
            subject,
            public_key,
            subject_alternative_names: names,
            name_constraints: None,
            serial: &serial,
            now,
        };
        let built = tbs::build(self.fields, &content)
            .map_err(|refusal| Error::invalid(refusal.code(), refusal.to_string()))?;
        let expected = Expectation {
            issuer: self
                .reading
                .map_or(ExpectedIssuer::SelfSigned, ExpectedIssuer::Certificate),
            distribution: self.distribution,
            profile,
            common_name: subject.label(),
            subject,
            public_key,
            subject_alternative_names: names,
            name_constraints: None,
            serial: &serial,
            now,
        };
        lint::lint(built, &expected)
            .map_err(|findings| Error::stop(Code::LintFailed, findings.to_string()))
    }
}

/// Builds an example below an authority that exists for the example alone. A root is built as its
/// own issuer.
fn by_example_authority(
    profile: &Profile,
    line: &str,
    public_key: &PublicKey,
    now: UnixSeconds,
) -> Result<LintedTbs, Error> {
    let is_root = *profile == Preset::Root.profile();
    if is_root {
        let subject = example_name(NAME)?;
        let fields = IssuerFields::self_signed(&subject, public_key);
        let issuer = ExampleIssuer {
            fields: &fields,
            reading: None,
            distribution: None,
        };
        return issuer.build_named(profile, &subject, &[], public_key, now);
    }
    let certificate = example_authority(now)?;
    let fields = IssuerFields::from_certificate(&certificate)
        .map_err(|error| Error::stop(Code::HierarchyUnreadable, error.to_string()))?;
    let reading = IssuerReading::new(&certificate);
    let issuer = ExampleIssuer {
        fields: &fields,
        reading: Some(&reading),
        distribution: None,
    };
    issuer.build(profile, line, public_key, now)
}

fn example_name(common_name: &str) -> Result<Subject, Error> {
    let name = DistinguishedName::from_common_name(common_name);
    name.map(Subject::from)
        .map_err(|error| Error::invalid(Code::NameInvalid, error.to_string()))
}

/// A self-signed authority whose key is dropped here.
fn example_authority(now: UnixSeconds) -> Result<Certificate, Error> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| no_key())?;
    let public_key = spki(&pair)?;
    let subject = example_name("Example Authority")?;
    let fields = IssuerFields::self_signed(&subject, &public_key);
    let issuer = ExampleIssuer {
        fields: &fields,
        reading: None,
        distribution: None,
    };
    let profile = Profile::authority(None, VALIDITY_SECONDS_MAX);
    let tbs = issuer.build_named(&profile, &subject, &[], &public_key, now)?;
    let signature = pair.sign(&SystemRandom::new(), tbs.bytes());
    let signature = signature.map_err(|_| no_key())?;
    assemble(tbs.bytes(), tbs.signature_algorithm(), signature.as_ref())
        .map_err(|error| Error::stop(Code::HierarchyUnreadable, error.to_string()))
}

/// Makes a key of the first type that the profile allows.
fn throwaway_key(profile: &Profile) -> Result<PublicKey, Error> {
    let key_type = profile.key_types.first().copied();
    let key = GeneratedKey::generate(key_type.unwrap_or(KeyType::P256))?;
    Ok(key.public_key().clone())
}

fn spki<K>(pair: &K) -> Result<PublicKey, Error>
where
    K: KeyPair,
    K::PublicKey: AsDer<PublicKeyX509Der<'static>>,
{
    let der: Result<PublicKeyX509Der<'static>, Unspecified> = pair.public_key().as_der();
    let der = der.map_err(|_| no_key())?;
    PublicKey::from_spki_der(der.as_ref())
        .map_err(|error| Error::stop(Code::NotEncodable, error.to_string()))
}

fn no_key() -> Error {
    Error::stop(Code::RandomSource, "no key can be made for an example")
}

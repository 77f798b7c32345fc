//! Profiles of subordinate certificates: the shape of what is signed for authorities elsewhere.
//!
//! They are tables of their own, `[[subordinate_profile]]`, so that no request for a leaf can name
//! one.

use super::REGISTRY_SECONDS_MIN;
use crate::ca::{Code, Error};
use crate::x509::key::KeyType;
use crate::x509::name_constraints::KeptConstraints;
use crate::x509::profile::{End, KeyUsage, Kind, Preset, Profile, SubjectTemplate, human_seconds};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Presets that need no table.
const PRESETS: [Preset; 2] = [Preset::Intermediate, Preset::AdrIntermediate];

/// A `[[subordinate_profile]]` of the configuration.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubordinateProfile {
    /// How a request names it.
    pub name: String,
    /// The only authority that signs by it; any one if none is named.
    pub authority: Option<String>,
    /// The holder is an Azure Device Registry, whose conditions are checked, too.
    #[serde(default)]
    pub azure_device_registry: bool,
    /// The names that certificates below may have (RFC 5280, section 4.2.1.10).
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub name_constraints: Option<KeptConstraints>,
    /// How long before its end a certificate that was not renewed is an alarm, in seconds; 0 for
    /// never. See [`crate::ca::expiry`].
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(default, deserialize_with = "human_seconds::optional")]
    pub expiry_alarm: Option<u64>,
    /// The complete shape of the certificate.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub certificate: Profile,
}

impl SubordinateProfile {
    /// Refuses a shape that no authority elsewhere can use, with the reason.
    pub fn check(&self) -> Result<(), String> {
        let profile = &self.certificate;
        profile.check().map_err(|it| it.to_string())?;
        let Kind::Authority { path_length } = profile.kind else {
            return Err(
                "kind = \"leaf\" is for a [[profile]]; use kind = \"authority\", or a preset that \
                 has it"
                    .into(),
            );
        };
        if profile.subject != SubjectTemplate::default() {
            return Err("the subject is that of the request; remove subject".into());
        }
        if profile.end == End::Never {
            return Err("an authority needs an end; use validity, or another not_after".into());
        }
        if self
            .expiry_alarm
            .is_some_and(|it| it >= profile.validity_seconds)
        {
            return Err(
                "expiry_alarm is not shorter than validity, so a new certificate would be an \
                 alarm; shorten it"
                    .into(),
            );
        }
        let is_short = profile.validity_seconds < REGISTRY_SECONDS_MIN;
        if self.azure_device_registry && is_short {
            return Err(
                "an Azure Device Registry wants 365 days to be left when it activates the \
                 certificate; give a validity of 366d or more"
                    .into(),
            );
        }
        let fits_registry = path_length == Some(0)
            && profile.key_types.iter().copied().all(KeyType::is_ecdsa)
            && profile.key_usage.contains(&KeyUsage::DigitalSignature)
            && profile.key_usage.contains(&KeyUsage::CrlSign);
        if self.azure_device_registry && !fits_registry {
            return Err(
                "an Azure Device Registry takes path_length = 0, key_types p256 and p384 alone, \
                 and the key_usage digital_signature, key_cert_sign and crl_sign; use preset = \
                 \"adr-intermediate\""
                    .into(),
            );
        }
        Ok(())
    }

    fn of_preset(preset: Preset) -> Self {
        Self {
            name: preset.name().to_owned(),
            authority: None,
            azure_device_registry: preset == Preset::AdrIntermediate,
            name_constraints: None,
            expiry_alarm: None,
            certificate: preset.profile(),
        }
    }
}

/// Returns the profile of this name by which `authority` signs, or the preset.
pub(super) fn find(
    configured: &BTreeMap<String, SubordinateProfile>,
    name: &str,
    authority: &str,
) -> Result<SubordinateProfile, Error> {
    let preset = || PRESETS.into_iter().find(|it| it.name() == name);
    let found = configured.get(name).cloned();
    let Some(found) = found.or_else(|| preset().map(SubordinateProfile::of_preset)) else {
        let presets = PRESETS.iter().map(|it| it.name());
        let known: Vec<_> = configured
            .keys()
            .map(String::as_str)
            .chain(presets)
            .collect();
        let message = format!(
            "there is no [[subordinate_profile]] {name:?}; known are {}",
            known.join(", ")
        );
        return Err(Error::missing(Code::ProfileUnknown, message));
    };
    match &found.authority {
        Some(own) if own != authority => {
            let message = format!(
                "by [[subordinate_profile]] {name:?} authority {own} signs, and not {authority}; \
                 name that one, or take another profile"
            );
            Err(Error::missing(Code::ProfileUnknown, message))
        }
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(lines: &str) -> Result<SubordinateProfile, String> {
        let text = format!("name = \"gateway\"\n{lines}");
        let profile: SubordinateProfile = toml::from_str(&text).map_err(|it| it.to_string())?;
        profile.check()?;
        Ok(profile)
    }

    #[test]
    fn a_profile_has_the_shape_of_an_authority() {
        let good = "[certificate]\npreset = \"intermediate\"\nvalidity = \"5y\"";
        assert_eq!(
            profile(good).unwrap().certificate.kind,
            Kind::Authority {
                path_length: Some(0)
            }
        );
        for (lines, words) in [
            ("[certificate]\npreset = \"device\"", "[[profile]]"),
            (
                &format!("{good}\nsubject = {{ organization = \"Works\" }}"),
                "that of the request",
            ),
            (
                "[certificate]\npreset = \"intermediate\"\nnot_after = \"99991231235959Z\"",
                "needs an end",
            ),
            (
                &format!("azure_device_registry = true\n{good}"),
                "Azure Device Registry takes",
            ),
        ] {
            let refusal = profile(lines).unwrap_err();
            assert!(refusal.contains(words), "{lines}: {refusal}");
        }
    }

    #[test]
    fn every_preset_that_needs_no_table_is_one() {
        for preset in PRESETS {
            assert_eq!(SubordinateProfile::of_preset(preset).check(), Ok(()));
        }
        let unknown = find(&BTreeMap::new(), "root", "plant").unwrap_err();
        assert_eq!(unknown.code, Code::ProfileUnknown);
        let limited = profile("authority = \"plant\"\n[certificate]\npreset = \"intermediate\"");
        let configured = BTreeMap::from([("gateway".to_owned(), limited.unwrap())]);
        assert!(find(&configured, "gateway", "plant").is_ok());
        assert!(find(&configured, "gateway", "root").is_err());
    }
}

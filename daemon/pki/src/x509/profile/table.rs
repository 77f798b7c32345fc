//! Reads the table of a profile, and fills what it leaves out from its preset.

use super::durations::human_seconds;
use super::{
    BACKDATE_SECONDS_DEFAULT, CertificatePolicy, CustomExtension, End, ExtendedKeyUsage, KeyUsage,
    Kind, NO_END, PolicyConstraints, PolicyLimits, Preset, Profile, ProfileRefusal,
    SubjectAlternativeNames, SubjectTemplate, VALIDITY_SECONDS_MAX,
};
use crate::unix_seconds::UnixSeconds;
use crate::x509::key::KeyType;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// `notAfter` of a certificate without an end, as RFC 5280 4.1.2.5 writes it.
const NO_END_TEXT: &str = "99991231235959Z";

/// A profile as the configuration gives it, unchecked.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) preset: Option<Preset>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<TableKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path_length: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) validity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) whole_days: Option<bool>,
    #[serde(default, deserialize_with = "moment_text")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) backdate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key_types: Option<BTreeSet<KeyType>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key_usage: Option<BTreeSet<KeyUsage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) extended_key_usage: Option<Vec<ExtendedKeyUsage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) certificate_policies: Option<Vec<CertificatePolicy>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policy_constraints: Option<PolicyConstraints>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) inhibit_any_policy: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subject_alternative_names: Option<SubjectAlternativeNames>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<SubjectTemplate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) extension: Option<Vec<CustomExtension>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TableKind {
    Leaf,
    Authority,
}

impl Table {
    /// Takes from `preset` what is not given. An end replaces the preset's, in whatever form;
    /// attributes of the subject and extensions are added to the preset's.
    fn over(self, preset: Table) -> Table {
        let has_end = self.validity.is_some() || self.not_after.is_some();
        let end = |of_preset: Option<String>| of_preset.filter(|_| !has_end);
        Table {
            preset: None,
            kind: self.kind.or(preset.kind),
            path_length: self.path_length.or(preset.path_length),
            validity: self.validity.or(end(preset.validity)),
            whole_days: self.whole_days.or(preset.whole_days.filter(|_| !has_end)),
            not_after: self.not_after.or(end(preset.not_after)),
            backdate: self.backdate.or(preset.backdate),
            key_types: self.key_types.or(preset.key_types),
            key_usage: self.key_usage.or(preset.key_usage),
            extended_key_usage: self.extended_key_usage.or(preset.extended_key_usage),
            certificate_policies: self.certificate_policies.or(preset.certificate_policies),
            policy_constraints: self.policy_constraints.or(preset.policy_constraints),
            inhibit_any_policy: self.inhibit_any_policy.or(preset.inhibit_any_policy),
            subject_alternative_names: self
                .subject_alternative_names
                .or(preset.subject_alternative_names),
            subject: both(self.subject, preset.subject, SubjectTemplate::over),
            extension: both(self.extension, preset.extension, CustomExtension::over),
        }
    }

    /// The seconds of validity and the end.
    fn end(&self) -> Result<(u64, End), ProfileRefusal> {
        let whole_days = self.whole_days.unwrap_or_default();
        match (&self.validity, &self.not_after) {
            (Some(validity), None) => {
                let seconds =
                    human_seconds::parse(validity).map_err(|it| member("validity", it))?;
                let end = if whole_days {
                    End::WholeDays
                } else {
                    End::AfterValidity
                };
                Ok((seconds, end))
            }
            (None, Some(_)) if whole_days => Err(refusal(
                "whole_days goes with validity, and here the end is fixed (not_after); give \
                 validity, or remove whole_days",
            )),
            (None, Some(not_after)) => Ok((VALIDITY_SECONDS_MAX, fixed_end(not_after)?)),
            (Some(_), Some(_)) => Err(refusal(
                "validity and not_after both say when the certificate ends; remove one",
            )),
            (None, None) => Err(missing("validity or not_after")),
        }
    }

    fn kind(&self) -> Result<Kind, ProfileRefusal> {
        match (self.kind, self.path_length) {
            (Some(TableKind::Leaf), None) => Ok(Kind::Leaf),
            (Some(TableKind::Leaf), Some(_)) => {
                Err(refusal("path_length is for an authority only"))
            }
            (Some(TableKind::Authority), path_length) => Ok(Kind::Authority { path_length }),
            (None, _) => Err(missing("kind")),
        }
    }
}

fn both<T>(own: Option<T>, of_preset: Option<T>, over: fn(T, T) -> T) -> Option<T> {
    match (own, of_preset) {
        (Some(own), Some(of_preset)) => Some(over(own, of_preset)),
        (own, of_preset) => own.or(of_preset),
    }
}

fn refusal(reason: &'static str) -> ProfileRefusal {
    ProfileRefusal(reason.into())
}

fn member(name: &str, why: String) -> ProfileRefusal {
    format!("{name}: {why}").into()
}

fn missing(member: &str) -> ProfileRefusal {
    format!("{member} is missing; add it, or a preset that has it").into()
}

/// Reads a text. TOML has moments without quotes, too, which its reader passes on as a map.
fn moment_text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    struct Quoted;

    impl<'de> Visitor<'de> for Quoted {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<String, A::Error> {
            let message = "write the moment in quotes, as \"2027-12-31T23:59:59Z\"";
            Err(de::Error::custom(message))
        }
    }

    from.deserialize_any(Quoted).map(Some)
}

fn fixed_end(text: &str) -> Result<End, ProfileRefusal> {
    if text == NO_END_TEXT {
        return Ok(End::Never);
    }
    let wrong = || {
        member(
            "not_after",
            format!(
                "{text:?} is no moment; write it as \"2027-12-31T23:59:59Z\", or \"{NO_END_TEXT}\" \
                 for a certificate without an end"
            ),
        )
    };
    let date = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| wrong())?;
    let end = UnixSeconds::new(date.unix_timestamp());
    // The last second of 9999 is the certificate without an end.
    let is_moment = date.nanosecond() == 0 && (0..NO_END.get()).contains(&end.get());
    if is_moment {
        Ok(End::At(end))
    } else {
        Err(wrong())
    }
}

impl TryFrom<Table> for Profile {
    type Error = ProfileRefusal;

    fn try_from(table: Table) -> Result<Profile, ProfileRefusal> {
        let table = match table.preset {
            Some(preset) => table.over(preset.table()),
            None => table,
        };
        let (validity_seconds, end) = table.end()?;
        let backdate = table.backdate.as_deref();
        let backdate = backdate
            .map(human_seconds::parse)
            .transpose()
            .map_err(|it| member("backdate", it))?;
        let profile = Profile {
            kind: table.kind()?,
            validity_seconds,
            end,
            backdate_seconds: backdate.unwrap_or(BACKDATE_SECONDS_DEFAULT),
            key_types: table.key_types.ok_or_else(|| missing("key_types"))?,
            key_usage: table.key_usage.ok_or_else(|| missing("key_usage"))?,
            extended_key_usage: table.extended_key_usage.unwrap_or_default(),
            certificate_policies: table.certificate_policies.unwrap_or_default(),
            policy_limits: PolicyLimits {
                constraints: table.policy_constraints,
                inhibit_any_policy: table.inhibit_any_policy,
            },
            subject: table.subject.unwrap_or_default(),
            subject_alternative_names: table.subject_alternative_names.unwrap_or_default(),
            extensions: table.extension.unwrap_or_default(),
        };
        profile.check()?;
        Ok(profile)
    }
}

impl From<Profile> for Table {
    fn from(profile: Profile) -> Table {
        let (kind, path_length) = match profile.kind {
            Kind::Leaf => (TableKind::Leaf, None),
            Kind::Authority { path_length } => (TableKind::Authority, path_length),
        };
        let validity = human_seconds::written(profile.validity_seconds);
        let (validity, not_after) = match profile.end {
            End::AfterValidity | End::WholeDays => (Some(validity), None),
            End::At(moment) => (None, Some(moment.to_string())),
            End::Never => (None, Some(NO_END_TEXT.to_owned())),
        };
        Table {
            preset: None,
            kind: Some(kind),
            path_length,
            validity,
            whole_days: (profile.end == End::WholeDays).then_some(true),
            not_after,
            backdate: Some(human_seconds::written(profile.backdate_seconds)),
            key_types: Some(profile.key_types),
            key_usage: Some(profile.key_usage),
            extended_key_usage: some(profile.extended_key_usage),
            certificate_policies: some(profile.certificate_policies),
            policy_constraints: profile.policy_limits.constraints,
            inhibit_any_policy: profile.policy_limits.inhibit_any_policy,
            subject_alternative_names: Some(profile.subject_alternative_names),
            subject: (profile.subject != SubjectTemplate::default()).then_some(profile.subject),
            extension: some(profile.extensions),
        }
    }
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

//! Issuance profiles: which authority issues what, and what the holder is to this daemon.

use super::{Code, Error};
pub use crate::enrollment::role::Role;
use crate::store::Purpose;
use crate::x509::profile::{ExtendedKeyUsage, Profile, human_seconds};
use crate::x509::template::Place;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A `[[profile]]` of the configuration.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuanceProfile {
    /// How a request names it.
    pub name: String,
    /// The authority that signs.
    pub authority: String,
    /// The part that holders have here, and so their permissions.
    pub role: Role,
    /// Holders may have certificates with one key, such as devices that cannot make one.
    #[serde(default)]
    pub shared_keys: bool,
    /// The daemon makes a holder's key pair, if it is asked to.
    #[serde(default)]
    pub generate_keys: bool,
    /// How long before its end the holder may renew by itself, in seconds; 0 for never. See
    /// [`super::renewal`].
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(default, deserialize_with = "human_seconds::optional")]
    pub self_renewal: Option<u64>,
    /// How long before its end a certificate that was not renewed is an alarm, in seconds; 0 for
    /// never. See [`super::expiry`].
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(default, deserialize_with = "human_seconds::optional")]
    pub expiry_alarm: Option<u64>,
    /// How long after its end a device's leaf may renew itself, once, in seconds; never without
    /// it. See [`super::issuer::late_renewal`].
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(default, deserialize_with = "human_seconds::optional")]
    pub late_renewal: Option<u64>,
    /// The complete shape of the certificate.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub certificate: Profile,
}

impl IssuanceProfile {
    /// Refuses a shape that a caller must not obtain, with the reason. Ceremonies and rollovers
    /// have shapes of their own, so no `[[profile]]` has a use for an authority's.
    pub fn check(&self) -> Result<(), String> {
        self.certificate.check().map_err(|it| it.to_string())?;
        self.certificate.check_templates(&self.authority)?;
        if self.certificate.signs_for_others() {
            return Err(
                "kind = \"authority\" would give a caller a CA certificate; use kind = \
                 \"leaf\", and make authorities by `hallmark ceremony run`"
                    .into(),
            );
        }
        let purposes = &self.certificate.extended_key_usage;
        if purposes.contains(&ExtendedKeyUsage::OcspSigning) && self.role != Role::Server {
            return Err(format!(
                "ocsp_signing speaks for the authority, and a {} must not; remove it, or use role \
                 = \"server\"",
                self.role
            ));
        }
        if self.role != Role::Device && self.certificate.places().any(|it| it == Place::Station) {
            return Err(format!(
                "{{station}} is the station that requests the certificate of a device, and none \
                 requests that of a {}; remove it",
                self.role
            ));
        }
        self.check_times()
    }

    fn check_times(&self) -> Result<(), String> {
        if self.certificate.longest_seconds().is_none() {
            return self.check_renewal();
        }
        // With whole_days a certificate may last no longer than this.
        let validity = self.certificate.validity_seconds;
        if self.self_renewal.is_some_and(|it| it > validity) {
            return Err("self_renewal is longer than validity; shorten it".into());
        }
        if self.expiry_alarm.is_some_and(|it| it >= validity) {
            return Err(
                "expiry_alarm is not shorter than validity, so a new certificate would be an \
                 alarm; shorten it"
                    .into(),
            );
        }
        self.check_renewal()
    }

    fn check_renewal(&self) -> Result<(), String> {
        if self.late_renewal.is_some() && self.role != Role::Device {
            return Err(format!(
                "late_renewal is for role device: the certificate of a {} that has ended renews \
                 nothing; remove it",
                self.role
            ));
        }
        if self.late_renewal.is_some() && self.certificate.longest_seconds().is_none() {
            return Err(
                "late_renewal needs validity: with a fixed end the next certificate would \
                        end when the ended one did; remove late_renewal, or set validity in place \
                        of not_after"
                    .into(),
            );
        }
        match self.role {
            Role::Device | Role::Operator if self.self_renewal.is_some() => Err(format!(
                "self_renewal is not for role {}: a device renews at any time, and an operator may \
                 ask for any certificate; remove it",
                self.role
            )),
            _ => Ok(()),
        }
    }
}

/// Refuses to sign an authority's shape for any purpose but an authority, and no other shape for
/// one. The configuration was checked before; this holds whatever the request came through.
pub(super) fn refuse_shape(purpose: Purpose, shape: &Profile) -> Result<(), Error> {
    let is_for_authority = matches!(
        purpose,
        Purpose::Authority | Purpose::Subordinate | Purpose::Cross
    );
    if shape.signs_for_others() == is_for_authority {
        return Ok(());
    }
    Err(Error::stop(
        Code::ProfileShape,
        "the profile has the shape of an authority and the request is for a leaf, or the reverse; \
         correct the [[profile]] and reload",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x509::profile::{KeyUsage, Kind};

    fn profile(role: &str, shape: &str) -> Result<IssuanceProfile, String> {
        let text = format!(
            "name = \"x\"\nauthority = \"line-1\"\nrole = \"{role}\"\n[certificate]\n\
             validity = \"1d\"\nkey_types = [\"p256\"]\n{shape}\n"
        );
        let profile: IssuanceProfile = toml::from_str(&text).map_err(|it| it.to_string())?;
        profile.check()?;
        Ok(profile)
    }

    #[test]
    fn no_role_has_a_profile_with_the_shape_of_an_authority() {
        let shape = "kind = \"authority\"\nkey_usage = [\"key_cert_sign\", \"crl_sign\"]";
        let bounded = format!("{shape}\npath_length = 0");
        let lists = "kind = \"leaf\"\nkey_usage = [\"digital_signature\", \"crl_sign\"]\n\
                     extended_key_usage = [\"client_auth\"]";
        for role in [
            "device", "station", "operator", "auditor", "approver", "server",
        ] {
            for shape in [shape, &bounded] {
                let refusal = profile(role, shape).unwrap_err();
                assert!(refusal.contains("a CA certificate"), "{role}: {refusal}");
            }
            let refusal = profile(role, lists).unwrap_err();
            assert!(refusal.contains("cannot have"), "{role}: {refusal}");
        }
        for kind in ["Authority", "AUTHORITY", "ca", "root"] {
            let other = shape.replace("authority", kind);
            assert!(profile("device", &other).is_err(), "{kind}");
        }
    }

    #[test]
    fn only_a_server_may_be_a_delegated_responder() {
        let shape = "kind = \"leaf\"\nkey_usage = [\"digital_signature\"]\n\
                     extended_key_usage = [\"ocsp_signing\"]";
        assert!(profile("server", shape).is_ok());
        for role in ["device", "station", "operator", "auditor", "approver"] {
            let refusal = profile(role, shape).unwrap_err();
            assert!(refusal.contains("ocsp_signing"), "{role}: {refusal}");
        }
    }

    #[test]
    fn a_purpose_is_signed_in_its_own_shape_only() {
        let authority = Profile::authority(Some(0), 86_400);
        let leaf = Profile::verification();
        let mut signs_lists = leaf.clone();
        signs_lists.key_usage.insert(KeyUsage::CrlSign);
        let mut has_ca = leaf.clone();
        has_ca.kind = Kind::Authority { path_length: None };
        for purpose in [Purpose::Leaf, Purpose::Possession] {
            assert!(refuse_shape(purpose, &leaf).is_ok());
            for shape in [&authority, &signs_lists, &has_ca] {
                let refusal = refuse_shape(purpose, shape).unwrap_err();
                assert_eq!(refusal.code, Code::ProfileShape);
            }
        }
        for purpose in [Purpose::Authority, Purpose::Subordinate, Purpose::Cross] {
            assert!(refuse_shape(purpose, &authority).is_ok());
            assert!(refuse_shape(purpose, &leaf).is_err());
        }
    }

    #[test]
    fn a_fixed_end_leaves_nothing_to_renew_late() {
        let shape = "kind = \"leaf\"\nkey_usage = [\"digital_signature\"]\n\
                     extended_key_usage = [\"client_auth\"]";
        let ends = |late: &str, end: &str| {
            let text = format!(
                "name = \"x\"\nauthority = \"line-1\"\nrole = \"device\"\n{late}\n\
                 [certificate]\n{end}\nkey_types = [\"p256\"]\n{shape}\n"
            );
            let profile: IssuanceProfile = toml::from_str(&text).map_err(|it| it.to_string())?;
            profile.check()
        };
        let (late, fixed) = (
            "late_renewal = \"90d\"",
            "not_after = \"2040-01-01T00:00:00Z\"",
        );
        assert_eq!(ends("", fixed), Ok(()));
        assert_eq!(ends(late, "validity = \"365d\""), Ok(()));
        for end in [fixed, "not_after = \"99991231235959Z\""] {
            let refusal = ends(late, end).unwrap_err();
            assert!(refusal.contains("late_renewal needs validity"), "{refusal}");
        }
    }

    #[test]
    fn times_of_renewal_fit_role_and_validity() {
        let shape = "kind = \"leaf\"\nkey_usage = [\"digital_signature\"]\n\
                     extended_key_usage = [\"client_auth\"]";
        let times = |role: &str, validity: &str, said: &str| {
            let text = format!(
                "name = \"x\"\nauthority = \"line-1\"\nrole = \"{role}\"\n{said}\n[certificate]\n\
                 validity = \"{validity}\"\nkey_types = [\"p256\"]\n{shape}\n"
            );
            let profile: IssuanceProfile = toml::from_str(&text).map_err(|it| it.to_string())?;
            profile.check()?;
            let times = [
                profile.self_renewal_seconds(),
                profile.expiry_alarm_seconds(),
            ];
            Ok::<_, String>(times)
        };
        let day = 86_400;
        for (role, validity, said, expected) in [
            ("station", "90d", "", [Some(30 * day), Some(15 * day)]),
            ("auditor", "90d", "", [None, Some(15 * day)]),
            ("device", "90d", "", [None, Some(15 * day)]),
            ("station", "1h", "", [Some(1_200), None]),
            (
                "station",
                "90d",
                "self_renewal = \"0s\"\nexpiry_alarm = \"0s\"",
                [None, None],
            ),
            (
                "server",
                "90d",
                "self_renewal = \"90d\"",
                [Some(90 * day), Some(15 * day)],
            ),
            (
                "device",
                "1h",
                "expiry_alarm = \"59m\"",
                [None, Some(3_540)],
            ),
        ] {
            assert_eq!(
                times(role, validity, said).unwrap(),
                expected,
                "{role} {said}"
            );
        }
        for (role, said, words) in [
            ("station", "self_renewal = \"91d\"", "longer than validity"),
            ("station", "expiry_alarm = \"90d\"", "would be an alarm"),
            ("device", "self_renewal = \"1d\"", "not for role device"),
            ("operator", "self_renewal = \"0s\"", "not for role operator"),
            ("station", "self_renewal = \"soon\"", "no duration"),
        ] {
            let refusal = times(role, "90d", said).unwrap_err();
            assert!(refusal.contains(words), "{role} {said}: {refusal}");
        }
    }
}

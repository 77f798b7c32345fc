//! Defines what the keys of a token may sign, whatever the daemon asks for.
//!
//! A worker reads these rules from the configuration file, which belongs to root: the daemon, which
//! faces the network, cannot write it. `[token.limits]` has the settings; how long a leaf may be
//! valid follows from the `[[profile]]`s, so an installation without the table is bounded, too.

use hallmark_pki::unix_seconds::UnixSeconds;
use hallmark_pki::x509::profile::{
    End, ExtendedKeyUsage, Profile, VALIDITY_SECONDS_MAX, human_seconds,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const DAY_SECONDS: u64 = 86_400;

/// The longest leaf that the daemon itself needs: the certificate of an OCSP responder.
const OWN_LEAF_SECONDS: u64 = 32 * DAY_SECONDS;

/// The table `[token.limits]`: the bounds of signatures, whatever the daemon asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SigningLimits {
    /// Longest validity of a leaf; without it, that of the longest `[[profile]]`.
    #[schemars(with = "Option<String>", extend("format" = "duration"))]
    #[serde(deserialize_with = "human_seconds::optional")]
    pub leaf_validity: Option<u64>,
    /// Whether certificates of authorities are signed: not at all, for keys that a token of this
    /// installation holds, or for any key.
    pub authority_certificates: AuthorityCertificates,
    /// How far after the worker's own clock what it signs may begin.
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(with = "human_seconds")]
    pub starts_within: u64,
    /// Leaves that one key signs within an hour.
    pub leaves_per_hour: u32,
    /// Certificates of authorities, and requests for them, that one key signs within an hour.
    pub authorities_per_hour: u32,
    /// Revocation lists that one key signs within an hour.
    pub lists_per_hour: u32,
    /// OCSP answers that one key signs within an hour.
    pub answers_per_hour: u32,
}

impl Default for SigningLimits {
    fn default() -> Self {
        Self {
            leaf_validity: None,
            authority_certificates: AuthorityCertificates::default(),
            starts_within: 2 * DAY_SECONDS,
            // 5,000 in a second, the rate of a software token, are 18 million.
            leaves_per_hour: 20_000_000,
            authorities_per_hour: 100,
            lists_per_hour: 20_000,
            answers_per_hour: 4_000_000,
        }
    }
}

/// The authorities that may be certified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AuthorityCertificates {
    /// None: outside ceremonies and rollovers of authorities.
    None,
    /// Those whose key a token of this installation holds.
    #[default]
    OwnKeys,
    /// Any: an offline root, or an authority with subordinates elsewhere.
    Any,
}

/// The rules of the worker of one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningRules {
    pub limits: SigningLimits,
    pub leaves: LeafEnds,
    /// A `[[profile]]` certifies OCSP responders of others.
    pub other_responders: bool,
}

/// When a leaf may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafEnds {
    /// The longest time between its two dates, in seconds.
    pub longest_seconds: u64,
    /// The last fixed end; a leaf until then may be longer.
    pub fixed: Option<UnixSeconds>,
    /// A profile has leaves without an end.
    pub endless: bool,
}

impl LeafEnds {
    /// Returns true if a leaf with these dates is within the limits.
    pub fn allow(&self, not_before: UnixSeconds, not_after: UnixSeconds) -> bool {
        let seconds = not_after.seconds_since(not_before);
        let is_short = u64::try_from(seconds).is_ok_and(|it| it <= self.longest_seconds);
        is_short || self.endless || self.fixed.is_some_and(|end| not_after <= end)
    }
}

/// Longest time between the two dates of an authority's certificate: with backdating.
pub const AUTHORITY_SECONDS_MAX: u64 = VALIDITY_SECONDS_MAX + 2 * DAY_SECONDS;

/// Longest time between two revocation lists: with backdating.
pub const LIST_SECONDS_MAX: u64 = 367 * DAY_SECONDS;

impl SigningRules {
    /// Returns the rules of a token with these limits in an installation with these profiles.
    pub fn new(limits: SigningLimits, profiles: &[Profile]) -> Self {
        let leaves = match limits.leaf_validity {
            Some(seconds) => LeafEnds {
                longest_seconds: with_backdate(seconds, profiles).max(OWN_LEAF_SECONDS),
                fixed: None,
                endless: false,
            },
            None => ends(profiles),
        };
        let other_responders = profiles.iter().any(|it| {
            it.extended_key_usage
                .contains(&ExtendedKeyUsage::OcspSigning)
        });
        Self {
            limits,
            leaves,
            other_responders,
        }
    }
}

/// A limit counts from the moment of the request, and a leaf begins before it. A whole day more:
/// validities in whole days begin at midnight.
fn with_backdate(seconds: u64, profiles: &[Profile]) -> u64 {
    let backdate = profiles.iter().map(|it| it.backdate_seconds).max();
    seconds
        .saturating_add(backdate.unwrap_or_default())
        .saturating_add(DAY_SECONDS)
}

fn ends(profiles: &[Profile]) -> LeafEnds {
    let mut ends = LeafEnds {
        longest_seconds: OWN_LEAF_SECONDS,
        fixed: None,
        endless: false,
    };
    for profile in profiles {
        match profile.end {
            End::At(end) => ends.fixed = ends.fixed.max(Some(end)),
            End::Never => ends.endless = true,
            End::AfterValidity | End::WholeDays => {}
        }
        let longest = profile.longest_seconds().unwrap_or_default();
        let longest = with_backdate(longest, std::slice::from_ref(profile));
        ends.longest_seconds = ends.longest_seconds.max(longest);
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(limits: &str, profiles: &[Profile]) -> SigningRules {
        SigningRules::new(toml::from_str(limits).expect("is a table"), profiles)
    }

    fn allows(rules: &SigningRules, days: i64) -> bool {
        let begin = UnixSeconds::new(1_800_000_000);
        rules
            .leaves
            .allow(begin, begin.saturating_add(days * 86_400))
    }

    #[test]
    fn a_leaf_is_as_long_as_the_longest_profile() {
        let year = Profile {
            validity_seconds: 365 * DAY_SECONDS,
            ..Profile::verification()
        };
        let by_profile = rules("", std::slice::from_ref(&year));
        assert!(allows(&by_profile, 365) && !allows(&by_profile, 380));
        let by_limit = rules("leaf_validity = \"60d\"", std::slice::from_ref(&year));
        assert!(allows(&by_limit, 60) && !allows(&by_limit, 62));
        let short = rules("leaf_validity = \"1d\"", &[year]);
        assert!(allows(&short, 31), "a responder's certificate");
        assert!(!allows(&rules("", &[]), 90) && !allows(&rules("", &[]), -1));
    }

    #[test]
    fn a_fixed_end_and_none_are_limits_of_their_own() {
        let of = |end| Profile {
            end,
            validity_seconds: VALIDITY_SECONDS_MAX,
            ..Profile::verification()
        };
        let end = UnixSeconds::new(1_800_000_000 + 1_000 * 86_400);
        let fixed = rules("", &[of(End::At(end))]);
        assert!(allows(&fixed, 1_000) && !allows(&fixed, 1_001));
        assert!(allows(&rules("", &[of(End::Never)]), 90_000));
    }

    #[test]
    fn an_unknown_limit_is_refused() {
        assert!(toml::from_str::<SigningLimits>("leaf_validty = \"1d\"").is_err());
        assert!(toml::from_str::<SigningLimits>("authority_certificates = \"all\"").is_err());
    }
}

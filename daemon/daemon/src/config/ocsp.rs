//! Reads `[ocsp]`: for which authorities the daemon answers, and how long an answer holds.

use super::ConfigurationError;
use crate::ca::ocsp::OcspPolicy;
use crate::x509::profile::human_seconds;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::num::NonZeroU16;

/// The shortest and the longest validity of an answer, in seconds.
const VALIDITY_SECONDS: std::ops::RangeInclusive<u64> = 60..=7 * 86_400;
/// The longest validity of a responder's certificate, in seconds: clients do not check whether it
/// is revoked.
const CERTIFICATE_SECONDS_MAX: u64 = 31 * 86_400;

/// The table as it is written. Without it no requests are answered.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ocsp {
    /// The authorities whose certificates are answered for.
    authorities: BTreeSet<String>,
    /// How long an answer holds.
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(with = "human_seconds", default = "validity_default")]
    validity: u64,
    /// The validity of a responder's certificate.
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(with = "human_seconds", default = "certificate_validity_default")]
    certificate_validity: u64,
    /// Most answers that tokens sign in a second.
    #[serde(default = "signatures_default")]
    signatures_per_second: NonZeroU16,
}

impl Default for Ocsp {
    fn default() -> Self {
        Self {
            authorities: BTreeSet::new(),
            validity: validity_default(),
            certificate_validity: certificate_validity_default(),
            signatures_per_second: signatures_default(),
        }
    }
}

impl Ocsp {
    pub(super) fn policy(self) -> Result<OcspPolicy, ConfigurationError> {
        let refusal = |message: &str| Err(ConfigurationError::Contradiction(message.to_owned()));
        if !VALIDITY_SECONDS.contains(&self.validity) {
            return refusal("[ocsp] validity must be 1m to 7d");
        }
        if self.certificate_validity > CERTIFICATE_SECONDS_MAX
            || self.certificate_validity / 2 < self.validity
        {
            return refusal(
                "[ocsp] certificate_validity must be at most 31d and at least twice `validity`: \
                 the certificate is renewed at half, and an answer ends before it",
            );
        }
        Ok(OcspPolicy {
            authorities: self.authorities,
            validity_seconds: i64::try_from(self.validity).unwrap_or(i64::MAX),
            certificate_seconds: self.certificate_validity,
            signatures_per_second: usize::from(self.signatures_per_second.get()),
        })
    }
}

fn validity_default() -> u64 {
    86_400
}

fn certificate_validity_default() -> u64 {
    7 * 86_400
}

fn signatures_default() -> NonZeroU16 {
    NonZeroU16::new(20).expect("is not zero")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Result<OcspPolicy, String> {
        let table: Ocsp = toml::from_str(text).map_err(|error| error.to_string())?;
        table.policy().map_err(|error| error.to_string())
    }

    #[test]
    fn an_answer_ends_before_the_certificate_that_signed_it() {
        let policy = |text: &str| policy(&format!("authorities = [\"line-1\"]\n{text}"));
        let default = policy("").unwrap();
        assert_eq!(default.validity_seconds, 86_400);
        assert!(policy("validity = \"2m\"\ncertificate_validity = \"4m\"").is_ok());
        for text in [
            "validity = \"59s\"",
            "validity = \"8d\"\ncertificate_validity = \"31d\"",
            "validity = \"4d\"",
            "certificate_validity = \"32d\"",
            "signatures_per_second = 0",
            "responder = \"line-1\"",
        ] {
            assert!(policy(text).is_err(), "{text}");
        }
    }
}

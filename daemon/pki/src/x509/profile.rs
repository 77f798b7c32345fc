//! Defines the complete shape of a certificate, before any request for it.
//!
//! A profile is checked when it is read, so the builder never meets a contradiction. Criticality is
//! fixed by RFC 5280 4.2.1: basicConstraints and keyUsage are always critical, extKeyUsage for time
//! stamps (RFC 3161 2.3), and the others never. Only an extension that a profile adds itself says
//! whether it is critical.

mod custom;
mod durations;
mod names;
mod policies;
mod policy_limits;
mod preset;
mod purpose;
mod subject;
mod table;
mod written;

pub(super) use custom::ExtensionValue;
pub use custom::{CustomExtension, EXTENSIONS_MAX};
pub use durations::human_seconds;
pub use names::SubjectAlternativeNames;
pub use policies::{CertificatePolicy, POLICIES_MAX};
pub use policy_limits::{PolicyConstraints, PolicyLimits};
pub use preset::Preset;
pub use purpose::{ExtendedKeyUsage, KeyUsage};
pub use subject::{SubjectRefusal, SubjectTemplate};

use super::key::KeyType;
use super::san::NameKind;
use super::template::Place;
use crate::unix_seconds::UnixSeconds;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeSet;
use table::Table;

/// Longest validity: 50 Julian years. A root that outlives its algorithms protects nothing.
pub const VALIDITY_SECONDS_MAX: u64 = 50 * 31_557_600;

/// Longest time that `notBefore` may lie before the issuance.
pub const BACKDATE_SECONDS_MAX: u64 = 86_400;

/// A device with a slow clock needs a `notBefore` in the past.
pub const BACKDATE_SECONDS_DEFAULT: u64 = 300;

/// 9999-12-31T23:59:59Z: a certificate without an end (RFC 5280 4.1.2.5).
pub const NO_END: UnixSeconds = UnixSeconds::new(253_402_300_799);

/// Most purposes of one certificate.
pub const PURPOSES_MAX: usize = 16;

/// A day in UTC, which has no leap seconds here (POSIX).
const DAY_SECONDS: u64 = 86_400;

/// The complete shape of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Table", into = "Table")]
pub struct Profile {
    pub kind: Kind,
    /// Seconds from the issuance until `notAfter`; the longest possible ones where `end` is fixed.
    pub validity_seconds: u64,
    pub end: End,
    /// Seconds from `notBefore` until the issuance.
    pub backdate_seconds: u64,
    /// The key types that may be certified.
    pub key_types: BTreeSet<KeyType>,
    /// `keyUsage` (RFC 5280 4.2.1.3).
    pub key_usage: BTreeSet<KeyUsage>,
    /// `extKeyUsage` (RFC 5280 4.2.1.12), in the order of encoding.
    pub extended_key_usage: Vec<ExtendedKeyUsage>,
    /// `certificatePolicies` (RFC 5280 4.2.1.4), in the order of encoding.
    pub certificate_policies: Vec<CertificatePolicy>,
    /// `policyConstraints` and `inhibitAnyPolicy` (RFC 5280 4.2.1.11 and 4.2.1.14), of authorities.
    pub policy_limits: PolicyLimits,
    /// The attributes of the subject besides its common name.
    pub subject: SubjectTemplate,
    /// The names that the certificate carries besides its subject.
    pub subject_alternative_names: SubjectAlternativeNames,
    /// Further extensions, in the order of encoding.
    pub extensions: Vec<CustomExtension>,
}

/// How `notAfter` follows from the issuance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `validity_seconds` after it.
    AfterValidity,
    /// The same, to the end of that day in UTC; `notBefore` is at the beginning of its day.
    WholeDays,
    /// A fixed moment.
    At(UnixSeconds),
    /// No well-defined expiration date (RFC 5280 4.1.2.5, IEEE 802.1AR).
    Never,
}

/// The basicConstraints of a certificate (RFC 5280 4.2.1.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Leaf,
    Authority {
        /// pathLenConstraint; `None` if unlimited.
        path_length: Option<u8>,
    },
}

/// The reason why a profile contradicts itself or RFC 5280.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProfileRefusal(Cow<'static, str>);

impl From<String> for ProfileRefusal {
    fn from(reason: String) -> ProfileRefusal {
        ProfileRefusal(reason.into())
    }
}

impl Profile {
    /// Returns a profile for authorities, which sign only certificates and revocation lists.
    pub fn authority(path_length: Option<u8>, validity_seconds: u64) -> Profile {
        Profile {
            kind: Kind::Authority { path_length },
            validity_seconds,
            key_usage: BTreeSet::from([KeyUsage::KeyCertSign, KeyUsage::CrlSign]),
            extended_key_usage: Vec::new(),
            ..Profile::verification()
        }
    }

    /// Returns the profile of the proof of possession for the provisioning service. The common name
    /// of that leaf is the verification code; it is valid for a day.
    pub fn verification() -> Profile {
        Profile {
            kind: Kind::Leaf,
            validity_seconds: DAY_SECONDS,
            end: End::AfterValidity,
            backdate_seconds: BACKDATE_SECONDS_DEFAULT,
            key_types: BTreeSet::from(KeyType::ALL),
            key_usage: BTreeSet::from([KeyUsage::DigitalSignature]),
            extended_key_usage: vec![ExtendedKeyUsage::ClientAuth],
            certificate_policies: Vec::new(),
            policy_limits: PolicyLimits::default(),
            subject: SubjectTemplate::default(),
            subject_alternative_names: SubjectAlternativeNames::default(),
            extensions: Vec::new(),
        }
    }

    /// Returns the end of a certificate that is issued at `now`.
    pub fn not_after(&self, now: UnixSeconds) -> UnixSeconds {
        let after = now.saturating_add_unsigned(self.validity_seconds);
        match self.end {
            End::AfterValidity => after,
            // The last second of the day: it belongs to the validity (RFC 5280 4.1.2.5).
            End::WholeDays => {
                after.saturating_add(DAY_SECONDS.cast_signed() - 1 - second_of_day(after))
            }
            End::At(not_after) => not_after,
            End::Never => NO_END,
        }
    }

    /// Returns the beginning of a certificate that is issued at `now`.
    pub(super) fn not_before(&self, now: UnixSeconds) -> UnixSeconds {
        let before = now.saturating_sub_unsigned(self.backdate_seconds);
        if self.end == End::WholeDays {
            before.saturating_sub(second_of_day(before))
        } else {
            before
        }
    }

    /// Returns the longest time from the issuance to the end, in seconds; `None` where the end is
    /// fixed.
    pub fn longest_seconds(&self) -> Option<u64> {
        match self.end {
            End::AfterValidity => Some(self.validity_seconds),
            End::WholeDays => Some(self.validity_seconds + DAY_SECONDS),
            End::At(_) | End::Never => None,
        }
    }

    /// Returns true if the profile certifies authorities.
    pub fn is_authority(&self) -> bool {
        matches!(self.kind, Kind::Authority { .. })
    }

    /// Returns true if a holder could sign certificates or revocation lists: cA, keyCertSign or
    /// cRLSign.
    pub fn signs_for_others(&self) -> bool {
        let signs = [KeyUsage::KeyCertSign, KeyUsage::CrlSign];
        self.is_authority() || signs.iter().any(|usage| self.key_usage.contains(usage))
    }

    /// Returns true if a certificate is of no use without a host name or an IP address: TLS clients
    /// compare the name that they called with the alternative names (RFC 9525 6).
    pub(super) fn needs_host_name(&self) -> bool {
        let has = |usage| self.extended_key_usage.contains(&usage);
        let has_names = !self.subject_alternative_names.is_none();
        has(ExtendedKeyUsage::ServerAuth) && (has_names || !has(ExtendedKeyUsage::ClientAuth))
    }

    /// Returns the places that are filled for each certificate.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        let names = self.subject_alternative_names.places();
        self.subject.places().chain(names)
    }

    /// Fails with the first text that cannot be filled whatever the request; `line` is the
    /// authority of the profile.
    pub fn check_templates(&self, line: &str) -> Result<(), String> {
        self.subject.check_templates(line)?;
        self.subject_alternative_names.check_templates(line)
    }

    /// Checks for contradictions. A deserialized profile has passed this check.
    pub fn check(&self) -> Result<(), ProfileRefusal> {
        self.check_times()?;
        self.check_keys()?;
        self.check_purposes()?;
        self.check_policies()?;
        self.check_extensions()?;
        match self.kind {
            Kind::Leaf => self.check_leaf(),
            Kind::Authority { .. } => self.check_authority(),
        }
    }

    fn check_times(&self) -> Result<(), ProfileRefusal> {
        refuse_if(self.validity_seconds == 0, "validity must be positive")?;
        refuse_if(
            self.validity_seconds > VALIDITY_SECONDS_MAX,
            "validity must be at most 50y",
        )?;
        refuse_if(
            self.end == End::WholeDays && self.validity_seconds < DAY_SECONDS,
            "whole_days needs a validity of at least 1d; lengthen it, or remove whole_days",
        )?;
        refuse_if(
            self.backdate_seconds > BACKDATE_SECONDS_MAX,
            "backdate must be at most 1d",
        )
    }

    fn check_keys(&self) -> Result<(), ProfileRefusal> {
        let all = |judge: fn(KeyType) -> bool| self.key_types.iter().copied().all(judge);
        let uses = |usage| self.key_usage.contains(&usage);
        refuse_if(
            self.key_types.is_empty(),
            "key_types must name at least one kind",
        )?;
        refuse_if(
            self.key_usage.is_empty(),
            "key_usage must name at least one use",
        )?;
        // RFC 8813 3 and RFC 8410 5 exclude these bits for such keys.
        refuse_if(
            uses(KeyUsage::KeyEncipherment) && !all(KeyType::is_rsa),
            "key_encipherment is for RSA keys only; remove it, or the other key_types",
        )?;
        refuse_if(
            uses(KeyUsage::KeyAgreement) && !all(KeyType::is_ecdsa),
            "key_agreement is for P-256, P-384 and P-521 keys only; remove it, or the other \
             key_types",
        )
    }

    fn check_purposes(&self) -> Result<(), ProfileRefusal> {
        let purposes: BTreeSet<_> = self.extended_key_usage.iter().collect();
        refuse_if(
            purposes.len() > PURPOSES_MAX,
            "extended_key_usage has more than 16 purposes; remove some",
        )?;
        refuse_if(
            purposes.len() != self.extended_key_usage.len(),
            "extended_key_usage names a purpose twice",
        )?;
        refuse_if(
            purposes.contains(&ExtendedKeyUsage::OcspSigning) && purposes.len() > 1,
            "ocsp_signing stands alone: a responder's key must not authenticate anything else",
        )?;
        // RFC 3161 2.3: the extension is critical and has this purpose alone.
        refuse_if(
            purposes.contains(&ExtendedKeyUsage::TimeStamping) && purposes.len() > 1,
            "time_stamping stands alone: verifiers of time stamps accept no other purpose beside \
             it",
        )
    }

    fn check_policies(&self) -> Result<(), ProfileRefusal> {
        let policies = &self.certificate_policies;
        let ids: BTreeSet<_> = policies.iter().map(|it| it.id).collect();
        refuse_if(
            policies.len() > POLICIES_MAX,
            "certificate_policies has more than 8 policies; remove some",
        )?;
        refuse_if(
            ids.len() != policies.len(),
            "certificate_policies names a policy twice; remove one",
        )?;
        refuse_if(
            !self.is_authority() && policies.iter().any(CertificatePolicy::is_any),
            "certificate_policies: anyPolicy is not for leaves; name the policies of the leaf",
        )
    }

    fn check_extensions(&self) -> Result<(), ProfileRefusal> {
        let ids: BTreeSet<_> = self.extensions.iter().map(|it| it.id).collect();
        refuse_if(
            self.extensions.len() > EXTENSIONS_MAX,
            "there are more than 16 extensions; remove some",
        )?;
        refuse_if(
            ids.len() != self.extensions.len(),
            "an extension is there twice; remove one",
        )?;
        let bytes: usize = self.extensions.iter().map(|it| it.encoded.len()).sum();
        refuse_if(
            bytes > custom::VALUE_BYTES_MAX,
            "the values of all extensions have more than 4096 bytes together; shorten them",
        )
    }

    fn check_leaf(&self) -> Result<(), ProfileRefusal> {
        refuse_if(
            self.signs_for_others(),
            "a leaf cannot have key_cert_sign or crl_sign",
        )?;
        refuse_if(
            !self.policy_limits.is_none(),
            "policy_constraints and inhibit_any_policy are for an authority only",
        )?;
        refuse_if(
            self.extended_key_usage.is_empty(),
            "a leaf needs an extended_key_usage, or it would be good for every purpose",
        )?;
        refuse_if(
            !self.key_usage.contains(&KeyUsage::DigitalSignature),
            "a leaf needs digital_signature: TLS 1.3 and OCSP sign",
        )?;
        let names = &self.subject_alternative_names;
        let mut kinds = [NameKind::Dns, NameKind::Ip].into_iter();
        refuse_if(
            self.needs_host_name() && !kinds.any(|it| names.takes(it) || names.makes(it)),
            "server_auth needs a host name or an IP address, with which TLS clients compare the \
             name that they called; use subject_alternative_names = \"dns_and_ip\", or give it dns \
             or ip",
        )
    }

    fn check_authority(&self) -> Result<(), ProfileRefusal> {
        let is_empty = |it: PolicyConstraints| it.is_empty();
        refuse_if(
            self.policy_limits.constraints.is_some_and(is_empty),
            "policy_constraints says nothing; give it require_explicit_policy or \
             inhibit_policy_mapping, or remove it",
        )?;
        refuse_if(
            !self.key_usage.contains(&KeyUsage::KeyCertSign),
            "an authority needs key_cert_sign",
        )?;
        refuse_if(
            !self.extended_key_usage.is_empty(),
            "an authority has no extended_key_usage",
        )?;
        refuse_if(
            !self.subject_alternative_names.is_none(),
            "an authority has no subject_alternative_names",
        )
    }
}

fn second_of_day(moment: UnixSeconds) -> i64 {
    moment.get().rem_euclid(DAY_SECONDS.cast_signed())
}

fn refuse_if(contradiction: bool, reason: &'static str) -> Result<(), ProfileRefusal> {
    if contradiction {
        Err(ProfileRefusal(reason.into()))
    } else {
        Ok(())
    }
}

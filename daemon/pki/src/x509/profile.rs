//! Defines the complete shape of a certificate, before any request for it.
//!
//! A profile is checked when it is read, so the builder never meets a contradiction. Criticality is
//! fixed by RFC 5280 4.2.1: basicConstraints and keyUsage are always critical, the others never.

use super::key::KeyType;
use super::name::SubjectAttributes;
use super::oid;
use der::asn1::ObjectIdentifier;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// Longest validity: 50 Julian years. A root that outlives its algorithms protects nothing.
pub const VALIDITY_SECONDS_MAX: u64 = 50 * 31_557_600;

/// Longest time that `notBefore` may lie before the issuance.
pub const BACKDATE_SECONDS_MAX: u64 = 86_400;

/// A device with a slow clock needs a `notBefore` in the past.
pub const BACKDATE_SECONDS_DEFAULT: u64 = 300;

const DAY_SECONDS: u64 = 86_400;

/// The complete shape of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Table", into = "Table")]
pub struct Profile {
    pub kind: Kind,
    /// Seconds from the issuance until `notAfter`.
    pub validity_seconds: u64,
    /// Seconds from `notBefore` until the issuance.
    pub backdate_seconds: u64,
    /// The key types that may be certified.
    pub key_types: BTreeSet<KeyType>,
    /// `keyUsage` (RFC 5280 4.2.1.3).
    pub key_usage: BTreeSet<KeyUsage>,
    /// `extKeyUsage` (RFC 5280 4.2.1.12), in the order of encoding.
    pub extended_key_usage: Vec<ExtendedKeyUsage>,
    /// The attributes of the subject besides its common name.
    pub subject: SubjectAttributes,
    /// Whether the certificate carries the requested names.
    pub subject_alternative_names: SubjectAlternativeNames,
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

/// The bits of keyUsage that a profile may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyUsage {
    /// Signatures other than on certificates and revocation lists.
    DigitalSignature,
    KeyEncipherment,
    KeyAgreement,
    KeyCertSign,
    /// Signatures on revocation lists.
    CrlSign,
}

/// The purposes that a profile may name. There is no `anyExtendedKeyUsage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExtendedKeyUsage {
    /// TLS client, such as a device at the provisioning service.
    ClientAuth,
    ServerAuth,
    /// Delegated OCSP responder (RFC 6960 4.2.2.2).
    OcspSigning,
}

impl ExtendedKeyUsage {
    /// Returns the key purpose id (RFC 5280 4.2.1.12).
    pub(super) fn oid(self) -> ObjectIdentifier {
        match self {
            ExtendedKeyUsage::ClientAuth => oid::CLIENT_AUTH,
            ExtendedKeyUsage::ServerAuth => oid::SERVER_AUTH,
            ExtendedKeyUsage::OcspSigning => oid::OCSP_SIGNING,
        }
    }
}

/// The use of the subject alternative names in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectAlternativeNames {
    /// The certificate has none.
    #[default]
    None,
    /// The certificate has the requested dNSNames and iPAddresses.
    DnsAndIp,
}

/// The reason why a profile contradicts itself or RFC 5280.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProfileRefusal(&'static str);

impl Profile {
    /// Returns a profile for authorities, which sign only certificates and revocation lists.
    pub fn authority(path_length: Option<u8>, validity_seconds: u64) -> Profile {
        Profile {
            kind: Kind::Authority { path_length },
            validity_seconds,
            backdate_seconds: BACKDATE_SECONDS_DEFAULT,
            key_types: BTreeSet::from(KeyType::ALL),
            key_usage: BTreeSet::from([KeyUsage::KeyCertSign, KeyUsage::CrlSign]),
            extended_key_usage: Vec::new(),
            subject: SubjectAttributes::default(),
            subject_alternative_names: SubjectAlternativeNames::None,
        }
    }

    /// Returns the profile of the proof of possession for the provisioning service. The common name
    /// of that leaf is the verification code; it is valid for a day.
    pub fn verification() -> Profile {
        Profile {
            kind: Kind::Leaf,
            validity_seconds: DAY_SECONDS,
            backdate_seconds: BACKDATE_SECONDS_DEFAULT,
            key_types: BTreeSet::from(KeyType::ALL),
            key_usage: BTreeSet::from([KeyUsage::DigitalSignature]),
            extended_key_usage: vec![ExtendedKeyUsage::ClientAuth],
            subject: SubjectAttributes::default(),
            subject_alternative_names: SubjectAlternativeNames::None,
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

    /// Checks for contradictions. A deserialized profile has passed this check.
    pub fn check(&self) -> Result<(), ProfileRefusal> {
        self.check_times()?;
        self.check_keys()?;
        self.check_purposes()?;
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
            "key_agreement is for P-256 and P-384 keys only; remove it, or the other key_types",
        )
    }

    fn check_purposes(&self) -> Result<(), ProfileRefusal> {
        let purposes: BTreeSet<_> = self.extended_key_usage.iter().collect();
        refuse_if(
            purposes.len() != self.extended_key_usage.len(),
            "extended_key_usage names a purpose twice",
        )?;
        refuse_if(
            purposes.contains(&ExtendedKeyUsage::OcspSigning) && purposes.len() > 1,
            "ocsp_signing stands alone: a responder's key must not authenticate anything else",
        )
    }

    fn check_leaf(&self) -> Result<(), ProfileRefusal> {
        refuse_if(
            self.signs_for_others(),
            "a leaf cannot have key_cert_sign or crl_sign",
        )?;
        refuse_if(
            self.extended_key_usage.is_empty(),
            "a leaf needs an extended_key_usage, or it would be good for every purpose",
        )?;
        refuse_if(
            !self.key_usage.contains(&KeyUsage::DigitalSignature),
            "a leaf needs digital_signature: TLS 1.3 and OCSP sign",
        )
    }

    fn check_authority(&self) -> Result<(), ProfileRefusal> {
        refuse_if(
            !self.key_usage.contains(&KeyUsage::KeyCertSign),
            "an authority needs key_cert_sign",
        )?;
        refuse_if(
            !self.extended_key_usage.is_empty(),
            "an authority has no extended_key_usage",
        )?;
        refuse_if(
            self.subject_alternative_names != SubjectAlternativeNames::None,
            "an authority has no subject_alternative_names",
        )
    }
}

fn refuse_if(contradiction: bool, reason: &'static str) -> Result<(), ProfileRefusal> {
    if contradiction {
        Err(ProfileRefusal(reason))
    } else {
        Ok(())
    }
}

/// A profile as the configuration gives it, unchecked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    kind: TableKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_length: Option<u8>,
    #[serde(with = "human_seconds")]
    validity: u64,
    #[serde(with = "human_seconds", default = "backdate_default")]
    backdate: u64,
    key_types: BTreeSet<KeyType>,
    key_usage: BTreeSet<KeyUsage>,
    #[serde(default)]
    extended_key_usage: Vec<ExtendedKeyUsage>,
    #[serde(default)]
    subject_alternative_names: SubjectAlternativeNames,
    #[serde(default)]
    subject: SubjectAttributes,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TableKind {
    Leaf,
    Authority,
}

fn backdate_default() -> u64 {
    BACKDATE_SECONDS_DEFAULT
}

impl TryFrom<Table> for Profile {
    type Error = ProfileRefusal;

    fn try_from(table: Table) -> Result<Profile, ProfileRefusal> {
        let kind = match (table.kind, table.path_length) {
            (TableKind::Leaf, None) => Kind::Leaf,
            (TableKind::Leaf, Some(_)) => {
                return Err(ProfileRefusal("path_length is for an authority only"));
            }
            (TableKind::Authority, path_length) => Kind::Authority { path_length },
        };
        let profile = Profile {
            kind,
            validity_seconds: table.validity,
            backdate_seconds: table.backdate,
            key_types: table.key_types,
            key_usage: table.key_usage,
            extended_key_usage: table.extended_key_usage,
            subject: table.subject,
            subject_alternative_names: table.subject_alternative_names,
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
        Table {
            kind,
            path_length,
            validity: profile.validity_seconds,
            backdate: profile.backdate_seconds,
            key_types: profile.key_types,
            key_usage: profile.key_usage,
            extended_key_usage: profile.extended_key_usage,
            subject: profile.subject,
            subject_alternative_names: profile.subject_alternative_names,
        }
    }
}

/// Reads and writes whole seconds as `90d`, `12h` or `20y`, for `#[serde(with)]`.
///
/// A year has 365.25 days. A fraction of a second is refused.
pub mod human_seconds {
    use super::Duration;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    /// Writes the duration in words.
    pub fn serialize<S: Serializer>(seconds: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        let duration = Duration::from_secs(*seconds);
        serializer.collect_str(&humantime::format_duration(duration))
    }

    /// Reads a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).map_err(D::Error::custom)
    }

    /// Reads a duration that may be absent; use it with `default`.
    pub fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        deserialize(deserializer).map(Some)
    }

    /// Reads a duration such as 90d. Fails with the reason in words.
    pub fn parse(text: &str) -> Result<u64, String> {
        let duration = humantime::parse_duration(text)
            .map_err(|error| format!("{text:?} is no duration such as 90d or 12h: {error}"))?;
        match duration.subsec_nanos() {
            0 => Ok(duration.as_secs()),
            _ => Err(format!("{text:?} is no whole number of seconds")),
        }
    }
}

//! Complete profiles by name, for `preset = "…"`.

use super::table::{Table, TableKind};
use super::{
    CustomExtension, ExtendedKeyUsage, KeyUsage, Profile, SubjectAlternativeNames, SubjectTemplate,
};
use crate::x509::key::KeyType;
use crate::x509::name::AttributeKind;
use crate::x509::oid;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A profile to start from. A member beside it replaces that of the preset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// A device that registers at a provisioning service.
    Device,
    /// The identity that its maker gives a device for good (IEEE 802.1AR).
    Idevid,
    /// An identity that the device's owner gives it (IEEE 802.1AR).
    Ldevid,
    TlsServer,
    TlsClient,
    CodeSigning,
    Station,
    Operator,
    /// A delegated OCSP responder (RFC 6960 4.2.2.2).
    Ocsp,
    /// An authority below another one, which certifies leaves alone.
    Intermediate,
    Root,
    /// An authority of an Azure Device Registry, whose key is there.
    AdrIntermediate,
}

impl Preset {
    /// Every preset.
    pub const ALL: [Preset; 12] = [
        Preset::Device,
        Preset::Idevid,
        Preset::Ldevid,
        Preset::TlsServer,
        Preset::TlsClient,
        Preset::CodeSigning,
        Preset::Station,
        Preset::Operator,
        Preset::Ocsp,
        Preset::Intermediate,
        Preset::Root,
        Preset::AdrIntermediate,
    ];

    /// Returns the name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Device => "device",
            Preset::Idevid => "idevid",
            Preset::Ldevid => "ldevid",
            Preset::TlsServer => "tls-server",
            Preset::TlsClient => "tls-client",
            Preset::CodeSigning => "code-signing",
            Preset::Station => "station",
            Preset::Operator => "operator",
            Preset::Ocsp => "ocsp",
            Preset::Intermediate => "intermediate",
            Preset::Root => "root",
            Preset::AdrIntermediate => "adr-intermediate",
        }
    }

    /// Returns the preset with this name.
    pub fn from_name(name: &str) -> Option<Preset> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    /// Returns the profile of the preset alone.
    pub fn profile(self) -> Profile {
        Profile::try_from(self.table()).expect("a preset is complete, as a test shows")
    }

    pub(super) fn table(self) -> Table {
        use ExtendedKeyUsage::{ClientAuth, CodeSigning, OcspSigning, ServerAuth};
        use KeyType::{P256, P384, Rsa2048, Rsa3072};
        match self {
            Preset::Device => leaf("90d", &[P256, Rsa2048, Rsa3072], ClientAuth),
            Preset::Idevid => Table {
                validity: None,
                not_after: Some("99991231235959Z".to_owned()),
                ..with_serial_number("1d")
            },
            Preset::Ldevid => with_serial_number("365d"),
            Preset::TlsServer => Table {
                subject_alternative_names: Some(SubjectAlternativeNames::dns_and_ip()),
                ..leaf("90d", &[P256, P384], ServerAuth)
            },
            Preset::TlsClient => leaf("90d", &[P256, P384], ClientAuth),
            Preset::CodeSigning => leaf("365d", &[P256, P384, Rsa3072], CodeSigning),
            Preset::Station => leaf("365d", &[P256], ClientAuth),
            Preset::Operator => leaf("30d", &[P256, P384], ClientAuth),
            Preset::Ocsp => Table {
                // RFC 6960 4.2.2.2.1: clients need not check whether the responder is revoked.
                extension: Some(vec![CustomExtension::null(oid::OCSP_NO_CHECK)]),
                ..leaf("30d", &[P256, P384], OcspSigning)
            },
            Preset::Intermediate => authority("10y", Some(0), &[]),
            Preset::Root => authority("20y", None, &[]),
            // More than the 365 days that must be left when the registry takes it.
            Preset::AdrIntermediate => Table {
                key_types: Some(BTreeSet::from([P256, P384])),
                ..authority("400d", Some(0), &[KeyUsage::DigitalSignature])
            },
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn leaf(validity: &str, key_types: &[KeyType], purpose: ExtendedKeyUsage) -> Table {
    Table {
        kind: Some(TableKind::Leaf),
        validity: Some(validity.to_owned()),
        key_types: Some(key_types.iter().copied().collect()),
        key_usage: Some(BTreeSet::from([KeyUsage::DigitalSignature])),
        extended_key_usage: Some(vec![purpose]),
        ..Table::default()
    }
}

/// IEEE 802.1AR: the subject has the serial number of the device.
fn with_serial_number(validity: &str) -> Table {
    let texts = [(AttributeKind::SerialNumber, "{id}".to_owned())];
    let subject = SubjectTemplate::try_from(BTreeMap::from(texts));
    Table {
        subject: Some(subject.expect("the template is well made")),
        ..leaf(
            validity,
            &[KeyType::P256, KeyType::P384, KeyType::Rsa2048],
            ExtendedKeyUsage::ClientAuth,
        )
    }
}

fn authority(validity: &str, path_length: Option<u8>, more: &[KeyUsage]) -> Table {
    let usage = [KeyUsage::KeyCertSign, KeyUsage::CrlSign];
    Table {
        kind: Some(TableKind::Authority),
        path_length,
        validity: Some(validity.to_owned()),
        key_types: Some(KeyType::ALL.into()),
        key_usage: Some(usage.iter().chain(more).copied().collect()),
        ..Table::default()
    }
}

//! Describes the desired state of an enrollment at the service.
//!
//! A field that is `None` is not managed: the service keeps its value. A [`Desired`] is stored when
//! it is sent, so that the planner can distinguish our changes from changes by others.

use super::id::{EnrollmentGroupId, RegistrationId};
use super::slots::SlotName;
use super::thumbprint::Thumbprint;
use crate::der_bytes::Der;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use der::pem::LineEnding;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The desired state of one enrollment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Desired {
    /// The accepted devices, and their certificates.
    pub kind: Kind,
    /// Whether the enrollment accepts its devices.
    pub status: Status,
    /// The treatment of the hub identity when a device registers again.
    pub reprovision_policy: Option<ReprovisionPolicy>,
    /// Host names of the linked hubs to choose from.
    pub hubs: Option<Vec<String>>,
}

/// The devices that an enrollment accepts, and the content of its slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    /// One device, by its own leaf.
    Individual {
        id: RegistrationId,
        /// The device id in the hub, if it is not the registration id.
        device_id: Option<String>,
        certificates: SlotPair<SlotCertificate>,
    },
    /// Every device below an intermediate.
    Group {
        id: EnrollmentGroupId,
        certificates: SlotPair<SlotCertificate>,
    },
    /// Every device below a CA certificate that the service has verified.
    GroupByReference {
        id: EnrollmentGroupId,
        /// The names of the CA certificates at the service.
        references: SlotPair<String>,
    },
}

/// The address of an enrollment at the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnrollmentName<'a> {
    Individual(&'a RegistrationId),
    Group(&'a EnrollmentGroupId),
}

impl Kind {
    /// Returns the address of the enrollment.
    pub fn id(&self) -> EnrollmentName<'_> {
        match self {
            Kind::Individual { id, .. } => EnrollmentName::Individual(id),
            Kind::Group { id, .. } | Kind::GroupByReference { id, .. } => EnrollmentName::Group(id),
        }
    }

    /// Returns the member of `attestation.x509` that holds the slots.
    pub fn x509_member(&self) -> &'static str {
        match self {
            Kind::Individual { .. } => "clientCertificates",
            Kind::Group { .. } => "signingCertificates",
            Kind::GroupByReference { .. } => "caReferences",
        }
    }
}

/// `provisioningStatus`. A disabled enrollment refuses its devices even if a group accepts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Enabled,
    Disabled,
}

impl Status {
    /// Returns the value in a DPS record.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Enabled => "enabled",
            Status::Disabled => "disabled",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `reprovisionPolicy`, which the service applies at every registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReprovisionPolicy {
    /// The device may be moved to another hub.
    pub update_hub_assignment: bool,
    /// The device's twin moves with it instead of being reset.
    pub migrate_device_data: bool,
}

/// The content of both slots. At least one is filled, because the service accepts no enrollment
/// without a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredPair<T>")]
pub struct SlotPair<T> {
    primary: Option<T>,
    secondary: Option<T>,
}

impl<T> SlotPair<T> {
    /// Returns `None` if both slots would be empty.
    pub fn new(primary: Option<T>, secondary: Option<T>) -> Option<Self> {
        (primary.is_some() || secondary.is_some()).then_some(Self { primary, secondary })
    }

    /// Returns the desired content of `slot`.
    pub fn in_slot(&self, slot: SlotName) -> Option<&T> {
        match slot {
            SlotName::Primary => self.primary.as_ref(),
            SlotName::Secondary => self.secondary.as_ref(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPair<T> {
    primary: Option<T>,
    secondary: Option<T>,
}

impl<T> TryFrom<StoredPair<T>> for SlotPair<T> {
    type Error = &'static str;

    fn try_from(stored: StoredPair<T>) -> Result<Self, Self::Error> {
        SlotPair::new(stored.primary, stored.secondary).ok_or("both slots are empty")
    }
}

/// A certificate for a slot: its bytes with the thumbprint that is computed from them, or the
/// thumbprint alone of one that only the service has.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SlotCertificate {
    der: Der,
    thumbprint: Thumbprint,
}

impl SlotCertificate {
    /// Wraps DER bytes.
    pub fn new(der: impl Into<Der>) -> Self {
        let der = der.into();
        let thumbprint = Thumbprint::of(&der);
        Self { der, thumbprint }
    }

    /// Names a certificate that the service holds and whose bytes are not on record.
    pub fn held(thumbprint: Thumbprint) -> Self {
        let der = Der::from(Vec::new());
        Self { der, thumbprint }
    }

    /// Returns the DER bytes; none of a certificate that only the service has.
    pub fn der(&self) -> &Der {
        &self.der
    }

    /// Returns the SHA-256.
    pub fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }

    /// Returns PEM text: of the four encodings that the service accepts, the one that the SDKs
    /// send. `None` for a certificate that only the service has.
    pub fn pem(&self) -> Option<String> {
        let pem = der::pem::encode_string("CERTIFICATE", LineEnding::LF, &self.der)
            .expect("a fixed label and bytes in memory always encode");
        (!self.der.is_empty()).then_some(pem)
    }
}

impl fmt::Debug for SlotCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotCertificate({})", self.thumbprint)
    }
}

/// Before the thumbprint of a certificate that only the service has, as it is stored. No base64
/// text begins so.
const HELD: &str = "sha256:";

impl TryFrom<String> for SlotCertificate {
    type Error = String;

    fn try_from(stored: String) -> Result<Self, String> {
        if let Some(thumbprint) = stored.strip_prefix(HELD) {
            let thumbprint = thumbprint.parse::<Thumbprint>();
            return thumbprint.map(Self::held).map_err(|it| it.to_string());
        }
        let der = BASE64_STANDARD.decode(stored);
        der.map(Self::new).map_err(|it| it.to_string())
    }
}

impl From<SlotCertificate> for String {
    fn from(certificate: SlotCertificate) -> String {
        if certificate.der.is_empty() {
            return format!("{HELD}{}", certificate.thumbprint);
        }
        BASE64_STANDARD.encode(certificate.der)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_without_any_certificate_cannot_be_made_or_loaded() {
        assert_eq!(SlotPair::<String>::new(None, None), None);
        assert!(serde_json::from_str::<SlotPair<String>>("{}").is_err());
        let pair: SlotPair<String> = serde_json::from_str(r#"{"secondary":"root-2"}"#).unwrap();
        assert_eq!(pair.in_slot(SlotName::Secondary).unwrap(), "root-2");
    }

    #[test]
    fn a_certificate_is_stored_whole_and_sent_as_pem() {
        let certificate = SlotCertificate::new(b"not really DER".to_vec());
        let stored = serde_json::to_string(&certificate).unwrap();
        let loaded: SlotCertificate = serde_json::from_str(&stored).unwrap();
        assert_eq!(loaded, certificate);
        let pem = loaded.pem().unwrap();
        assert!(pem.starts_with("-----BEGIN CERTIFICATE-----\n"));
        let held = SlotCertificate::held(certificate.thumbprint());
        let stored = serde_json::to_string(&held).unwrap();
        let loaded: SlotCertificate = serde_json::from_str(&stored).unwrap();
        assert_eq!((loaded.pem(), loaded), (None, held));
    }
}

//! An enrollment as we want it at the service.
//!
//! What is `None` here is not ours: the service keeps what it has. A [`Desired`] is stored when it
//! is sent, so that the planner can later tell our own changes from somebody else's.

use super::id::{EnrollmentGroupId, RegistrationId};
use super::slots::SlotName;
use super::thumbprint::Thumbprint;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use der::pem::LineEnding;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One enrollment, as it shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Desired {
    /// Whom it lets in, and by which certificates.
    pub kind: Kind,
    /// Whether it lets anybody in.
    pub status: Status,
    /// What happens to the hub identity when a device registers again.
    pub reprovision_policy: Option<ReprovisionPolicy>,
    /// Host names of the linked hubs to choose from.
    pub hubs: Option<Vec<String>>,
}

/// Whom an enrollment lets in, and what stands in its slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    /// One device, by its own leaf.
    Individual {
        /// The device.
        id: RegistrationId,
        /// Its name in the hub, if it is not the registration id.
        device_id: Option<String>,
        /// Its leaves.
        certificates: SlotPair<SlotCertificate>,
    },
    /// Every device below an intermediate.
    Group {
        /// The group.
        id: EnrollmentGroupId,
        /// The intermediate's generations.
        certificates: SlotPair<SlotCertificate>,
    },
    /// Every device below a CA certificate that the service holds verified.
    GroupByReference {
        /// The group.
        id: EnrollmentGroupId,
        /// The names of the CA certificates at the service.
        references: SlotPair<String>,
    },
}

/// Which enrollment is meant, at the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnrollmentId<'a> {
    /// `/enrollments/{id}`
    Individual(&'a RegistrationId),
    /// `/enrollmentGroups/{id}`
    Group(&'a EnrollmentGroupId),
}

impl Kind {
    /// Which enrollment is meant.
    pub fn id(&self) -> EnrollmentId<'_> {
        match self {
            Kind::Individual { id, .. } => EnrollmentId::Individual(id),
            Kind::Group { id, .. } | Kind::GroupByReference { id, .. } => EnrollmentId::Group(id),
        }
    }

    /// The member of `attestation.x509` that holds the slots.
    pub fn x509_member(&self) -> &'static str {
        match self {
            Kind::Individual { .. } => "clientCertificates",
            Kind::Group { .. } => "signingCertificates",
            Kind::GroupByReference { .. } => "caReferences",
        }
    }
}

/// `provisioningStatus`. A disabled enrollment refuses its devices, whatever else holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Devices are let in.
    Enabled,
    /// Devices are refused.
    Disabled,
}

impl Status {
    /// The value in a DPS record.
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

/// `reprovisionPolicy`, judged by the service at every registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReprovisionPolicy {
    /// The device may be moved to another hub.
    pub update_hub_assignment: bool,
    /// Its twin moves with it, instead of starting anew.
    pub migrate_device_data: bool,
}

/// What stands in the two slots: one of them at least, because the service knows no enrollment
/// by certificates without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredPair<T>")]
pub struct SlotPair<T> {
    primary: Option<T>,
    secondary: Option<T>,
}

impl<T> SlotPair<T> {
    /// `None` if both slots would be empty.
    pub fn new(primary: Option<T>, secondary: Option<T>) -> Option<Self> {
        (primary.is_some() || secondary.is_some()).then_some(Self { primary, secondary })
    }

    /// What shall stand in `slot`.
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

/// A certificate that goes into a slot. Its thumbprint is computed from it, never stated.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SlotCertificate {
    der: Vec<u8>,
    thumbprint: Thumbprint,
}

impl SlotCertificate {
    /// The certificate with these DER bytes.
    pub fn new(der: Vec<u8>) -> Self {
        let thumbprint = Thumbprint::of(&der);
        Self { der, thumbprint }
    }

    /// Its bytes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its SHA-256.
    pub fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }

    /// PEM text: of the four encodings that were seen to work, the one in which the SDKs send it.
    pub fn pem(&self) -> String {
        der::pem::encode_string("CERTIFICATE", LineEnding::LF, &self.der)
            .expect("a fixed label and bytes in memory always encode")
    }
}

impl fmt::Debug for SlotCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotCertificate({})", self.thumbprint)
    }
}

impl TryFrom<String> for SlotCertificate {
    type Error = base64::DecodeError;

    fn try_from(stored: String) -> Result<Self, base64::DecodeError> {
        BASE64_STANDARD.decode(stored).map(Self::new)
    }
}

impl From<SlotCertificate> for String {
    fn from(certificate: SlotCertificate) -> String {
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
        assert!(loaded.pem().starts_with("-----BEGIN CERTIFICATE-----\n"));
    }
}

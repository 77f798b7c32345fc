//! Reads what DPS records of a device's registration: its state, its hub and its id there (section
//! 3, `registrationState`).
//!
//! The device id in the hub is that of the enrollment, or the registration id as the device spelled
//! it, and hubs distinguish upper and lower case. So only the record names an identity.

use crate::enrollment::hub_identity::HubPlace;
use crate::enrollment::record::Record;
use serde::Deserialize;

/// The record of one registration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationRecord {
    /// `unassigned`, `assigning`, `assigned`, `failed` or `disabled`.
    pub status: Option<String>,
    assigned_hub: Option<String>,
    device_id: Option<String>,
}

impl RegistrationRecord {
    /// Reads it from an individual enrollment, if the service shows it there.
    pub fn of_enrollment(enrollment: &Record) -> Option<Self> {
        let shown = enrollment.fields().get("registrationState")?;
        Self::deserialize(shown).ok()
    }

    /// Returns the identity of the device, if the service has assigned it to a hub.
    pub fn place(&self) -> Option<HubPlace> {
        let named = |text: &Option<String>| text.clone().filter(|it| !it.is_empty());
        Some(HubPlace {
            hub: named(&self.assigned_hub)?.to_ascii_lowercase(),
            device_id: named(&self.device_id)?,
        })
    }

    /// Returns true while the service writes the device into a hub.
    pub fn is_assigning(&self) -> bool {
        self.status.as_deref() == Some("assigning")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(record: &str) -> Option<HubPlace> {
        serde_json::from_str::<RegistrationRecord>(record)
            .unwrap()
            .place()
    }

    #[test]
    fn only_an_assigned_device_has_a_place() {
        let record = r#"{"status":"assigned","assignedHub":"One.azure-devices.net",
            "deviceId":"Asset-1","registrationId":"press-7","etag":"x"}"#;
        let expected = HubPlace {
            hub: "one.azure-devices.net".into(),
            device_id: "Asset-1".into(),
        };
        assert_eq!(place(record), Some(expected));
        for record in [
            r#"{"status":"unassigned"}"#,
            r#"{"status":"unassigned","assignedHub":"","deviceId":""}"#,
            r#"{"status":"failed","assignedHub":"one.azure-devices.net"}"#,
        ] {
            assert_eq!(place(record), None, "{record}");
        }
    }
}

//! Reads what DPS records of a device's registration: its state, its hub and its id there (section
//! 3, `registrationState`).
//!
//! The device id in the hub is that of the enrollment, or the registration id as the device spelled
//! it, and hubs distinguish upper and lower case. So only the record names an identity.

use crate::enrollment::hub_identity::HubPlace;
use crate::enrollment::record::Record;
use serde::Deserialize;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

/// How much later than an individual enrollment the service makes its registration record. Examples
/// of its documentation differ by milliseconds.
const MADE_TOGETHER: Duration = Duration::seconds(2);

/// The record of one registration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationRecord {
    /// `unassigned`, `assigning`, `assigned`, `failed` or `disabled`.
    pub status: Option<String>,
    assigned_hub: Option<String>,
    device_id: Option<String>,
    created_date_time_utc: Option<String>,
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

    /// Returns true if the service made this record with its individual enrollment, and not later,
    /// when another program had deleted the record before.
    pub fn is_first_of(&self, enrollment: &Value) -> bool {
        let date = |text: Option<&str>| OffsetDateTime::parse(text?, &Rfc3339).ok();
        let record = date(self.created_date_time_utc.as_deref());
        let enrollment = date(enrollment["createdDateTimeUtc"].as_str());
        let both = record.zip(enrollment);
        both.is_some_and(|(record, enrollment)| record - enrollment <= MADE_TOGETHER)
    }

    /// Returns true while the service writes the device into a hub.
    pub fn is_assigning(&self) -> bool {
        self.status.as_deref() == Some("assigning")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn place(record: &str) -> Option<HubPlace> {
        serde_json::from_str::<RegistrationRecord>(record)
            .unwrap()
            .place()
    }

    #[test]
    fn a_record_is_the_first_of_its_enrollment_if_it_is_no_younger() {
        let enrollment = json!({ "createdDateTimeUtc": "2022-08-02T19:35:47.6957171Z" });
        for (created, expected) in [
            (json!("2022-08-02T19:35:47.7061193Z"), true),
            (json!("2022-08-01T00:00:00Z"), true),
            (json!("2022-08-02T19:35:51.7061193Z"), false),
            (json!("yesterday"), false),
            (json!(null), false),
        ] {
            let record = json!({ "status": "unassigned", "createdDateTimeUtc": created });
            let record: RegistrationRecord = serde_json::from_value(record).unwrap();
            assert_eq!(record.is_first_of(&enrollment), expected, "{created}");
            assert!(!record.is_first_of(&json!({})));
        }
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

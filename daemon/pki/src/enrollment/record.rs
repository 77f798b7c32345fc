//! Reads an enrollment from the service's answer.
//!
//! The record is kept whole, as JSON: a PUT replaces everything, so unknown fields must be sent
//! back unchanged. The accessors read the managed fields; a value that they cannot read is reported
//! and never guessed.

use super::desired::{ReprovisionPolicy, Status};
use super::etag::Etag;
use super::slots::SlotName;
use super::thumbprint::Thumbprint;
use serde_json::{Map, Value};

/// Members that the service sets. It refuses or ignores them in a request.
const READ_ONLY: [&str; 3] = [
    "registrationState",
    "createdDateTimeUtc",
    "lastUpdatedDateTimeUtc",
];

/// An enrollment record from the service.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    fields: Map<String, Value>,
    etag: Etag,
}

/// The observed content of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObservedSlot {
    /// The slot is empty.
    Empty,
    /// A certificate, by the SHA-256 of its `info`.
    Certificate(Thumbprint),
    /// A CA certificate of the service, by its name.
    Reference(String),
    /// Content without a readable name.
    Unreadable,
}

impl Record {
    /// Reads an answer. It must have an `etag`, without which no conditional write is possible.
    pub fn parse(answer: Value) -> Result<Self, RecordInvalid> {
        let Value::Object(fields) = answer else {
            return Err(RecordInvalid::NotAnObject);
        };
        let etag = fields.get("etag").and_then(Value::as_str);
        let etag = etag.and_then(Etag::verbatim);
        Ok(Self {
            etag: etag.ok_or(RecordInvalid::Etag)?,
            fields,
        })
    }

    /// Returns the observed version.
    pub fn etag(&self) -> &Etag {
        &self.etag
    }

    /// Returns the record unchanged.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// Returns the record for a request: without the members that the service sets.
    pub fn writable(&self) -> Map<String, Value> {
        let mut fields = self.fields.clone();
        for name in READ_ONLY {
            fields.shift_remove(name);
        }
        fields
    }

    /// Returns `registrationId` of an individual enrollment, `enrollmentGroupId` of a group.
    pub fn id(&self) -> Option<&str> {
        let group = || self.text("enrollmentGroupId");
        self.text("registrationId").or_else(group)
    }

    /// Returns the member of `attestation.x509` in use, if the enrollment is by X.509.
    pub fn x509_member(&self) -> Option<&str> {
        let holds = |name: &str| {
            SlotName::BOTH
                .into_iter()
                .any(|slot| self.raw_slot(name, slot).is_some())
        };
        let mut names = self.x509()?.keys().map(String::as_str);
        names.find(|name| holds(name))
    }

    /// Returns the slot as JSON, to be sent back unchanged.
    pub fn raw_slot(&self, member: &str, slot: SlotName) -> Option<&Value> {
        let value = self.x509()?.get(member)?.get(slot.as_str())?;
        (!value.is_null()).then_some(value)
    }

    /// Returns the content of a slot of `member`.
    pub fn slot(&self, member: &str, slot: SlotName) -> ObservedSlot {
        match self.raw_slot(member, slot) {
            None => ObservedSlot::Empty,
            Some(Value::String(name)) => ObservedSlot::Reference(name.clone()),
            Some(value) => {
                let hex = value.pointer("/info/sha256Thumbprint");
                let parsed = hex.and_then(Value::as_str).map(str::parse);
                match parsed {
                    Some(Ok(thumbprint)) => ObservedSlot::Certificate(thumbprint),
                    _ => ObservedSlot::Unreadable,
                }
            }
        }
    }

    /// Returns the certificates in both slots of the member in use: the evidence for a cut-over.
    pub fn thumbprints(&self) -> (Option<Thumbprint>, Option<Thumbprint>) {
        let Some(member) = self.x509_member() else {
            return (None, None);
        };
        let read = |slot| match self.slot(member, slot) {
            ObservedSlot::Certificate(thumbprint) => Some(thumbprint),
            _ => None,
        };
        (read(SlotName::Primary), read(SlotName::Secondary))
    }

    /// Returns `provisioningStatus`; an absent value means enabled. `None` if it is unknown.
    pub fn status(&self) -> Option<Status> {
        match self.fields.get("provisioningStatus") {
            None | Some(Value::Null) => Some(Status::Enabled),
            Some(value) => {
                let text = value.as_str()?;
                let named = |status: &Status| text.eq_ignore_ascii_case(status.as_str());
                [Status::Enabled, Status::Disabled].into_iter().find(named)
            }
        }
    }

    /// Returns `deviceId`, the name in the hub.
    pub fn device_id(&self) -> Option<&str> {
        self.text("deviceId")
    }

    /// Returns `reprovisionPolicy`, with the service's default for an absent flag.
    pub fn reprovision_policy(&self) -> Option<ReprovisionPolicy> {
        let policy = self.fields.get("reprovisionPolicy")?.as_object()?;
        let flag = |name: &str| policy.get(name).and_then(Value::as_bool).unwrap_or(true);
        Some(ReprovisionPolicy {
            update_hub_assignment: flag("updateHubAssignment"),
            migrate_device_data: flag("migrateDeviceData"),
        })
    }

    /// Returns `iotHubs`.
    pub fn hubs(&self) -> Vec<&str> {
        let hubs = self.fields.get("iotHubs").and_then(Value::as_array);
        let hubs = hubs.into_iter().flatten();
        hubs.filter_map(Value::as_str).collect()
    }

    fn x509(&self) -> Option<&Map<String, Value>> {
        self.fields.get("attestation")?.get("x509")?.as_object()
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.as_str()
    }
}

/// The reason why an answer is no enrollment record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordInvalid {
    /// The JSON has another shape.
    #[error("the service answered something else than a JSON object for an enrollment")]
    NotAnObject,
    /// The answer has no version for a conditional write.
    #[error("the service answered an enrollment without a usable etag")]
    Etag,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(mut fields: Value) -> Record {
        fields["etag"] = json!("\"e-1\"");
        Record::parse(fields).unwrap()
    }

    #[test]
    fn an_answer_without_etag_is_no_record() {
        assert_eq!(Record::parse(json!([])), Err(RecordInvalid::NotAnObject));
        assert_eq!(Record::parse(json!({})), Err(RecordInvalid::Etag));
        assert_eq!(Record::parse(json!({"etag": 7})), Err(RecordInvalid::Etag));
    }

    #[test]
    fn thumbprints_are_read_in_either_case() {
        let thumbprint = Thumbprint::of(b"leaf");
        let hex = thumbprint.to_string();
        let record = parse(json!({"attestation": {"type": "x509", "x509": {
            "caReferences": null,
            "clientCertificates": {
                "primary": {"info": {"sha256Thumbprint": hex.to_lowercase()}},
                "secondary": {"info": {}},
            },
        }}}));
        assert_eq!(record.x509_member(), Some("clientCertificates"));
        assert_eq!(record.thumbprints(), (Some(thumbprint), None));
        let secondary = record.slot("clientCertificates", SlotName::Secondary);
        assert_eq!(secondary, ObservedSlot::Unreadable);
    }

    #[test]
    fn defaults_are_those_of_the_service() {
        let record = parse(json!({"reprovisionPolicy": {"migrateDeviceData": false}}));
        assert_eq!(record.status(), Some(Status::Enabled));
        let policy = record.reprovision_policy().unwrap();
        assert!(policy.update_hub_assignment && !policy.migrate_device_data);
        assert_eq!(parse(json!({"provisioningStatus": "odd"})).status(), None);
    }
}

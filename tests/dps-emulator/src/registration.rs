//! Registration records: what DPS remembers of a device (contract sections 2, 3 and 9).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::enrollment::Entry;
use crate::{dates, etag};

/// Where a device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Unassigned,
    Assigned,
    Failed,
    Disabled,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Registration {
    pub(crate) id: String,
    /// The entry that decided last.
    pub(crate) entry: Entry,
    pub(crate) status: Status,
    pub(crate) substatus: Option<String>,
    pub(crate) assigned_hub: Option<String>,
    pub(crate) device_id: Option<String>,
    /// Six digits and a sentence, when the status is failed.
    pub(crate) error: Option<(u32, String)>,
    pub(crate) payload: Option<Value>,
    pub(crate) etag: String,
    created: String,
    updated: String,
}

impl Registration {
    /// A device that has not been seen yet.
    pub(crate) fn unassigned(id: &str, entry: Entry, now: OffsetDateTime) -> Self {
        let now = dates::seven_digits(now);
        Self {
            id: id.to_owned(),
            entry,
            status: Status::Unassigned,
            substatus: None,
            assigned_hub: None,
            device_id: None,
            error: None,
            payload: None,
            etag: etag::fresh_for_registration(),
            created: now.clone(),
            updated: now,
        }
    }

    /// Note a change: a new ETag and date.
    pub(crate) fn touch(&mut self, now: OffsetDateTime) {
        self.etag = etag::fresh_for_registration();
        self.updated = dates::seven_digits(now);
    }

    /// `registrationState` (contract section 3).
    pub(crate) fn shown(&self) -> Map<String, Value> {
        let error = self.error.as_ref();
        let members = [
            ("registrationId", Some(json!(self.id))),
            ("createdDateTimeUtc", Some(json!(self.created))),
            (
                "assignedHub",
                self.assigned_hub.as_ref().map(|hub| json!(hub)),
            ),
            ("deviceId", self.device_id.as_ref().map(|id| json!(id))),
            ("status", Some(json!(self.status))),
            ("substatus", self.substatus.as_ref().map(|text| json!(text))),
            ("errorCode", error.map(|(code, _)| json!(code))),
            ("errorMessage", error.map(|(_, message)| json!(message))),
            ("lastUpdatedDateTimeUtc", Some(json!(self.updated))),
            ("etag", Some(json!(self.etag))),
            ("payload", self.payload.clone()),
        ];
        let present = members
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        present.collect()
    }
}

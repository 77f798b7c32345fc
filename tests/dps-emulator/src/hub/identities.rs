//! Device identities of a hub (contract section 12).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::HubRefusal;
use crate::cloud::Cloud;
use crate::etag::IfMatch;
use crate::wire::{Call, Reply};
use crate::{dates, ids};

/// The thumbprints by which a hub knows a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Thumbprints {
    pub(crate) primary: String,
    pub(crate) secondary: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) device_id: String,
    pub(crate) etag: String,
    generation: String,
    /// Everything else, known or not, as JSON.
    fields: Map<String, Value>,
    /// Tags and desired properties; null until something sets them.
    pub(crate) twin: Value,
}

/// Members that the hub makes.
const READ_ONLY: [&str; 3] = ["deviceId", "etag", "generationId"];

impl Identity {
    /// A new identity without authentication.
    pub(crate) fn new(device_id: &str, now: OffsetDateTime) -> Self {
        let never = "0001-01-01T00:00:00Z";
        let fields = json!({
            "connectionState": "Disconnected",
            "status": "enabled",
            "statusReason": null,
            "connectionStateUpdatedTime": never,
            "statusUpdatedTime": never,
            "lastActivityTime": never,
            "cloudToDeviceMessageCount": 0,
            "authentication": { "type": "none" },
            "capabilities": { "iotEdge": false },
        });
        Self {
            device_id: device_id.to_owned(),
            etag: String::new(),
            generation: now.unix_timestamp_nanos().to_string(),
            fields: fields.as_object().cloned().unwrap_or_default(),
            twin: Value::Null,
        }
    }

    pub(crate) fn set(&mut self, member: &str, value: Value) {
        self.fields.insert(member.to_owned(), value);
    }

    /// Authenticate by these thumbprints from now on.
    pub(crate) fn set_thumbprints(&mut self, thumbprints: &Thumbprints) {
        let authentication = json!({
            "symmetricKey": { "primaryKey": null, "secondaryKey": null },
            "x509Thumbprint": {
                "primaryThumbprint": thumbprints.primary,
                "secondaryThumbprint": thumbprints.secondary,
            },
            "type": "selfSigned",
        });
        self.set("authentication", authentication);
    }

    /// The thumbprints on record; none unless the identity is `selfSigned`.
    pub(crate) fn thumbprints(&self) -> Vec<String> {
        let authentication = &self.fields["authentication"];
        if authentication["type"] != "selfSigned" {
            return Vec::new();
        }
        let both = ["primaryThumbprint", "secondaryThumbprint"];
        let texts = both.map(|name| authentication["x509Thumbprint"][name].as_str());
        texts.into_iter().flatten().map(str::to_owned).collect()
    }

    /// Whether the device may connect at all.
    pub(crate) fn is_enabled(&self) -> bool {
        self.fields["status"] != "disabled"
    }

    /// The identity as answers show it.
    pub(crate) fn shown(&self) -> Value {
        let mut shown = Map::from_iter([
            ("deviceId".to_owned(), json!(self.device_id)),
            ("generationId".to_owned(), json!(self.generation)),
            ("etag".to_owned(), json!(self.etag)),
        ]);
        shown.extend(self.fields.clone());
        shown.into()
    }

    fn replace_fields(&mut self, sent: Map<String, Value>) {
        let sent = sent
            .into_iter()
            .filter(|(name, _)| !READ_ONLY.contains(&name.as_str()));
        self.fields.extend(sent);
    }
}

pub(super) fn get(cloud: &Cloud, hub: &str, id: &str) -> Result<Reply, HubRefusal> {
    let online = cloud.presence.is_online(hub, id);
    cloud.read(|world| {
        let found = world.hubs.get(hub).and_then(|hub| hub.find(id));
        let mut identity = found.ok_or_else(|| HubRefusal::not_found(id))?.clone();
        if online {
            identity.set("connectionState", json!("Connected"));
        }
        Ok(shown(&identity))
    })
}

/// `GET /twins/{id}`: what provisioning put there, for a test to see. No device reports here.
pub(super) fn twin(cloud: &Cloud, hub: &str, id: &str) -> Result<Reply, HubRefusal> {
    cloud.read(|world| {
        let found = world.hubs.get(hub).and_then(|hub| hub.find(id));
        let identity = found.ok_or_else(|| HubRefusal::not_found(id))?;
        let part = |pointer: &str| identity.twin.pointer(pointer).cloned().unwrap_or(json!({}));
        let properties = json!({ "desired": part("/properties/desired"), "reported": {} });
        let twin = json!({ "deviceId": id, "tags": part("/tags"), "properties": properties });
        Ok(Reply::json(200, twin))
    })
}

pub(super) fn put(cloud: &Cloud, hub: &str, id: &str, call: &Call) -> Result<Reply, HubRefusal> {
    let if_match = if_match(call)?;
    let body = checked_body(id, call)?;
    let now = cloud.now();
    cloud.change(|world| {
        let etag = world.next_etag();
        let hub = world.hubs.entry(hub.to_owned()).or_default();
        let mut identity = match (hub.find(id), &if_match) {
            (None, IfMatch::Absent) => Identity::new(id, now),
            (None, _) => return Err(HubRefusal::not_found(id)),
            (Some(_), IfMatch::Absent) => {
                return Err(HubRefusal::new(409, "DeviceAlreadyExists", id));
            }
            (Some(known), if_match) => {
                check_version(known, if_match)?;
                known.clone()
            }
        };
        identity.replace_fields(body);
        identity.set("statusUpdatedTime", json!(dates::whole_seconds(now)));
        identity.etag = etag;
        Ok(shown(hub.insert(identity)))
    })
}

/// Deletes an identity; without `If-Match` the answer is 412 (contract section 12).
pub(super) fn delete(cloud: &Cloud, hub: &str, id: &str, call: &Call) -> Result<Reply, HubRefusal> {
    let if_match = if_match(call)?;
    cloud.change(|world| {
        let missing = || HubRefusal::not_found(id);
        let hub = world.hubs.get_mut(hub).ok_or_else(missing)?;
        let known = hub.find(id).ok_or_else(missing)?;
        if if_match == IfMatch::Absent {
            return Err(precondition_failed("If-Match is missing"));
        }
        check_version(known, &if_match)?;
        hub.remove(id);
        Ok(Reply::empty())
    })
}

fn shown(identity: &Identity) -> Reply {
    Reply::json(200, identity.shown()).with("etag", format!("\"{}\"", identity.etag))
}

fn check_version(known: &Identity, if_match: &IfMatch) -> Result<(), HubRefusal> {
    match if_match.allows(&known.etag) {
        true => Ok(()),
        false => Err(precondition_failed("the ETag does not match")),
    }
}

fn precondition_failed(message: &str) -> HubRefusal {
    HubRefusal::new(412, "PreconditionFailed", message)
}

fn if_match(call: &Call) -> Result<IfMatch, HubRefusal> {
    let header = call.header("if-match");
    IfMatch::lenient(header).map_err(|error| HubRefusal::argument(error.to_string()))
}

fn checked_body(id: &str, call: &Call) -> Result<Map<String, Value>, HubRefusal> {
    if !ids::is_hub_device_id(id) {
        return Err(HubRefusal::argument("the device id is not valid"));
    }
    let body = call.json_object();
    let body = body.ok_or_else(|| HubRefusal::argument("the body is not a JSON object"))?;
    match body.get("deviceId").and_then(Value::as_str) {
        Some(named) if named == id => Ok(body),
        _ => Err(HubRefusal::argument(
            "deviceId must be the id in the address",
        )),
    }
}

//! An IoT Hub as DPS and a back end use it (contract sections 9 and 12).

mod answers;
pub(crate) mod identities;
mod jobs;
mod methods;
pub(crate) mod presence;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

pub(crate) use answers::answer;
pub(crate) use identities::{Identity, Thumbprints};

/// The state of one hub.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Hub {
    /// By device id, whose case matters here.
    identities: BTreeMap<String, Identity>,
    #[serde(default)]
    jobs: BTreeMap<String, jobs::Job>,
}

impl Hub {
    /// The identity of a device.
    pub(crate) fn find(&self, device_id: &str) -> Option<&Identity> {
        self.identities.get(device_id)
    }

    /// All identities, in order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Identity> {
        self.identities.values()
    }

    pub(crate) fn insert(&mut self, identity: Identity) -> &mut Identity {
        let id = identity.device_id.clone();
        self.identities.insert(id.clone(), identity);
        self.identities.get_mut(&id).expect("it was just inserted")
    }

    pub(crate) fn remove(&mut self, device_id: &str) -> Option<Identity> {
        self.identities.remove(device_id)
    }

    /// The effect of a registration at DPS: the identity exists afterwards, `selfSigned`, with
    /// these thumbprints; all else about it stays (contract section 9).
    pub(crate) fn provision(
        &mut self,
        device_id: &str,
        thumbprints: &Thumbprints,
        edge: bool,
        etag: String,
        now: OffsetDateTime,
    ) -> &mut Identity {
        let known = self.identities.remove(device_id);
        let mut identity = known.unwrap_or_else(|| Identity::new(device_id, now));
        identity.set_thumbprints(thumbprints);
        identity.set("capabilities", serde_json::json!({ "iotEdge": edge }));
        identity.etag = etag;
        self.insert(identity)
    }

    /// Whether a device may connect with this leaf: the identity exists, is enabled, and carries
    /// the leaf's SHA-256 or SHA-1 thumbprint.
    pub(crate) fn admits(&self, device_id: &str, leaf: &crate::certificate::Certificate) -> bool {
        let Some(identity) = self.find(device_id) else {
            return false;
        };
        let known = identity.thumbprints();
        let presented = [leaf.sha256(), leaf.sha1()];
        let fits = |own: &String| {
            presented
                .iter()
                .any(|shown| shown.eq_ignore_ascii_case(own))
        };
        identity.is_enabled() && known.iter().any(fits)
    }
}

/// A hub's refusal: its code, twice, and a sentence (contract section 12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HubRefusal {
    status: u16,
    code: &'static str,
    message: String,
}

impl HubRefusal {
    pub(crate) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    pub(crate) fn argument(message: impl Into<String>) -> Self {
        Self::new(400, "ArgumentInvalid", message)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(401, "IotHubUnauthorizedAccess", "Unauthorized")
    }

    pub(crate) fn not_found(device_id: &str) -> Self {
        Self::new(404, "DeviceNotFound", device_id)
    }

    pub(crate) fn reply(&self) -> crate::wire::Reply {
        let tracking = uuid::Uuid::new_v4().simple();
        let body: Value = serde_json::json!({
            "Message": format!("ErrorCode:{};{}", self.code, self.message),
            "ExceptionMessage": format!("Tracking ID:{tracking}"),
        });
        crate::wire::Reply::json(self.status, body).with("iothub-errorcode", self.code)
    }
}

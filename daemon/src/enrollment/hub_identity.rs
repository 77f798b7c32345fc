//! A device identity as the IoT Hub answered it (section 12).
//!
//! Kept whole, as JSON: a PUT replaces everything. The accessors believe nothing; what they cannot
//! read counts as absent.

use super::etag::Etag;
use super::thumbprint::Thumbprint;
use serde_json::{Value, json};

/// Made by the hub; sent back, they would be refused or ignored.
const READ_ONLY: [&str; 7] = [
    "generationId",
    "etag",
    "connectionState",
    "connectionStateUpdatedTime",
    "statusUpdatedTime",
    "lastActivityTime",
    "cloudToDeviceMessageCount",
];

/// One identity, read from a hub.
#[derive(Clone, Debug, PartialEq)]
pub struct HubIdentity {
    /// An object.
    fields: Value,
    device_id: String,
    etag: Etag,
}

/// An answer that is no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is no device identity: it has no {0}")]
pub struct HubIdentityInvalid(&'static str);

impl HubIdentity {
    /// Takes an answer of the hub. Its etag stands without quotes in the body.
    pub fn parse(answer: Value) -> Result<Self, HubIdentityInvalid> {
        let text = |name| answer.get(name).and_then(Value::as_str);
        let device_id = text("deviceId").ok_or(HubIdentityInvalid("deviceId"))?;
        let etag = text("etag").and_then(Etag::quoted);
        Ok(Self {
            device_id: device_id.to_owned(),
            etag: etag.ok_or(HubIdentityInvalid("etag"))?,
            fields: answer,
        })
    }

    /// Its name in the hub, where case matters.
    pub fn device_id(&self) -> &str {
        &self.device_id
    }

    /// The version that was read.
    pub fn etag(&self) -> &Etag {
        &self.etag
    }

    /// Whether the hub lets the device in at all.
    pub fn is_enabled(&self) -> bool {
        self.text("/status") != Some("disabled")
    }

    /// Whether the device is connected, and a direct method would reach it.
    pub fn is_connected(&self) -> bool {
        self.text("/connectionState") == Some("Connected")
    }

    /// The leaf by which the hub knows the device.
    pub fn leaf(&self) -> Option<Thumbprint> {
        self.text("/authentication/x509Thumbprint/primaryThumbprint")?
            .parse()
            .ok()
    }

    /// Whether the hub knows the device by this leaf: the proof that it registered with it.
    pub fn carries(&self, leaf: &Thumbprint) -> bool {
        let both = ["primaryThumbprint", "secondaryThumbprint"];
        both.iter().any(|name| {
            let shown = self.text(&format!("/authentication/x509Thumbprint/{name}"));
            shown.and_then(|text| text.parse().ok()) == Some(*leaf)
        })
    }

    /// The identity as it may be sent to change whether the device is let in; all else stays.
    pub fn with_status(&self, enabled: bool) -> Value {
        let mut fields = self.fields.clone();
        if let Some(members) = fields.as_object_mut() {
            for name in READ_ONLY {
                members.shift_remove(name);
            }
        }
        fields["status"] = json!(if enabled { "enabled" } else { "disabled" });
        fields
    }

    fn text(&self, pointer: &str) -> Option<&str> {
        self.fields.pointer(pointer)?.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(status: &str, thumbprint: &str) -> HubIdentity {
        HubIdentity::parse(json!({
            "deviceId": "press-7", "etag": "AAE=", "generationId": "1", "status": status,
            "connectionState": "Connected", "tags": 3,
            "authentication": {"x509Thumbprint": {"secondaryThumbprint": thumbprint}},
        }))
        .unwrap()
    }

    #[test]
    fn a_leaf_is_recognised_in_either_place_and_case() {
        let leaf = Thumbprint::of(b"leaf");
        assert!(identity("enabled", &leaf.to_string()).carries(&leaf));
        assert!(identity("enabled", &leaf.to_string().to_lowercase()).carries(&leaf));
        assert!(!identity("enabled", "").carries(&leaf));
        assert!(!identity("enabled", &leaf.to_string()).carries(&Thumbprint::of(b"other")));
    }

    #[test]
    fn a_change_of_status_keeps_everything_else() {
        let read = identity("enabled", "");
        assert!(read.is_enabled() && read.is_connected());
        let sent = read.with_status(false);
        assert_eq!(
            (&sent["status"], &sent["tags"]),
            (&json!("disabled"), &json!(3))
        );
        assert!(sent.get("etag").is_none() && sent.get("generationId").is_none());
        assert!(!identity("disabled", "").is_enabled());
    }

    #[test]
    fn an_answer_without_a_version_is_no_identity() {
        for answer in [json!([]), json!({"deviceId": "a"}), json!({"etag": "AAE="})] {
            HubIdentity::parse(answer).unwrap_err();
        }
    }
}

//! Reads the device identity of an IoT Hub (docs/dps-contract.md, section 12).
//!
//! An identity is never sent. A value that an accessor cannot read counts as absent.

use super::thumbprint::Thumbprint;
use serde_json::Value;

/// The place of an identity: a hub, and the id there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubPlace {
    /// The hub's host name, in lower case.
    pub hub: String,
    /// The device's id in that hub.
    pub device_id: String,
}

/// A device identity.
#[derive(Clone, Debug, PartialEq)]
pub struct HubIdentity {
    fields: Value,
}

/// The answer is no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is no device identity: it has no {0}")]
pub struct HubIdentityInvalid(&'static str);

impl HubIdentity {
    /// Reads an answer of the hub.
    pub fn parse(answer: Value) -> Result<Self, HubIdentityInvalid> {
        match answer.get("deviceId").and_then(Value::as_str) {
            Some(_) => Ok(Self { fields: answer }),
            None => Err(HubIdentityInvalid("deviceId")),
        }
    }

    /// Returns the leaf by which the hub authenticates the device.
    pub fn leaf(&self) -> Option<Thumbprint> {
        self.text("/authentication/x509Thumbprint/primaryThumbprint")?
            .parse()
            .ok()
    }

    /// Returns true if the hub authenticates the device by this leaf, so it has registered with it.
    pub fn carries(&self, leaf: &Thumbprint) -> bool {
        let both = ["primaryThumbprint", "secondaryThumbprint"];
        both.iter().any(|name| {
            let shown = self.text(&format!("/authentication/x509Thumbprint/{name}"));
            shown.and_then(|text| text.parse().ok()) == Some(*leaf)
        })
    }

    /// Returns the thumbprints by which the hub authenticates the device, as the hub shows them.
    pub fn thumbprints(&self) -> Vec<&str> {
        let both = ["primaryThumbprint", "secondaryThumbprint"];
        let shown = both.iter().filter_map(|name| {
            let text = self.text(&format!("/authentication/x509Thumbprint/{name}"));
            text.filter(|it| !it.is_empty())
        });
        shown.collect()
    }

    fn text(&self, pointer: &str) -> Option<&str> {
        self.fields.pointer(pointer)?.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn identity(thumbprint: &str) -> HubIdentity {
        HubIdentity::parse(json!({
            "deviceId": "press-7", "etag": "AAE=", "generationId": "1",
            "connectionState": "Connected", "tags": 3,
            "authentication": {"x509Thumbprint": {"secondaryThumbprint": thumbprint}},
        }))
        .unwrap()
    }

    #[test]
    fn a_leaf_is_recognised_in_either_place_and_case() {
        let leaf = Thumbprint::of(b"leaf");
        assert!(identity(&leaf.to_string()).carries(&leaf));
        assert!(identity(&leaf.to_string().to_lowercase()).carries(&leaf));
        assert!(!identity("").carries(&leaf));
        assert!(!identity(&leaf.to_string()).carries(&Thumbprint::of(b"other")));
    }

    #[test]
    fn an_answer_without_a_name_is_no_identity() {
        for answer in [json!([]), json!({"deviceId": 1}), json!({"etag": "AAE="})] {
            HubIdentity::parse(answer).unwrap_err();
        }
    }
}

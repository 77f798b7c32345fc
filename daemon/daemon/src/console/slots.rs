//! Names the slots at the services that hold a certificate.

use super::timeline::Slot;
use serde::Deserialize;

/// An enrollment with what is in its slots.
#[derive(Deserialize)]
pub(super) struct Holder {
    provisioning: String,
    name: String,
    #[serde(default)]
    status: String,
    slots: Slots,
    primary: Option<String>,
    secondary: Option<String>,
    overlay_of: Option<String>,
}

#[derive(Deserialize)]
struct Slots {
    certificate: Option<String>,
    serving: Option<String>,
    next: Option<String>,
}

impl Slots {
    /// The state of the slot with this certificate.
    fn of(&self, certificate: &str) -> &'static str {
        let is = |it: &Option<String>| it.as_deref() == Some(certificate);
        if is(&self.certificate) || is(&self.serving) {
            "serving"
        } else if is(&self.next) {
            "staged"
        } else {
            "draining"
        }
    }
}

impl Holder {
    /// The slots of this enrollment that hold the certificate.
    fn slots_with(&self, certificate: &str) -> Vec<Slot> {
        let slots = [("primary", &self.primary), ("secondary", &self.secondary)];
        let held = slots
            .into_iter()
            .filter(|(_, held)| held.as_deref() == Some(certificate));
        held.map(|(slot, _)| self.slot(slot, certificate)).collect()
    }

    fn slot(&self, slot: &str, certificate: &str) -> Slot {
        let Self {
            provisioning, name, ..
        } = self;
        let class = match (self.status.as_str(), &self.overlay_of) {
            ("disabled", Some(_)) => "blocking",
            _ => self.slots.of(certificate),
        };
        let disabled = match self.status.as_str() {
            "disabled" => ", disabled",
            _ => "",
        };
        Slot {
            text: format!("{slot} slot of {name} at {provisioning}: {class}{disabled}"),
            class,
        }
    }
}

/// The slots that hold the certificate.
pub(super) fn holding(holders: &[Holder], certificate: &str) -> Vec<Slot> {
    let slots = holders.iter().flat_map(|it| it.slots_with(certificate));
    slots.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn holder(status: &str, overlay_of: Option<&str>, slots: &Value) -> Holder {
        let json = json!({
            "provisioning": "dps", "name": "line-1", "status": status, "slots": slots,
            "overlay_of": overlay_of, "primary": "A", "secondary": slots.get("other"),
        });
        serde_json::from_value(json).expect("an enrollment")
    }

    #[test]
    fn a_slot_is_named_with_its_state() {
        let both = |state: &str, serving: &str, other: &str| {
            let name = match state {
                "staged" => "next",
                _ => "retiring",
            };
            json!({ "state": state, "serving": serving, name: other, "other": "B" })
        };
        let alone = json!({ "state": "serving", "slot": "primary", "certificate": "A" });
        for (holder, certificate, class) in [
            (holder("enabled", None, &alone), "A", "serving"),
            (
                holder("enabled", None, &both("staged", "A", "B")),
                "A",
                "serving",
            ),
            (
                holder("enabled", None, &both("staged", "A", "B")),
                "B",
                "staged",
            ),
            (
                holder("enabled", None, &both("draining", "B", "A")),
                "B",
                "serving",
            ),
            (
                holder("enabled", None, &both("draining", "B", "A")),
                "A",
                "draining",
            ),
            (holder("disabled", Some("line-1"), &alone), "A", "blocking"),
        ] {
            let slots = holding(&[holder], certificate);
            assert_eq!(slots.len(), 1, "{certificate}");
            assert_eq!(slots[0].class, class, "{certificate}");
        }
        let none = holding(&[holder("enabled", None, &alone)], "B");
        assert!(none.is_empty());
        let disabled = holding(&[holder("disabled", None, &alone)], "A");
        let text = "primary slot of line-1 at dps: serving, disabled";
        assert_eq!(disabled[0].text, text);
    }
}

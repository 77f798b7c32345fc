//! From a client's JSON to a record that may be stored: all checks of contract sections 3 and 6.

use serde_json::{Map, Value, json};

use super::{Attestation, Kind};
use crate::ids;
use crate::options::Switches;
use crate::refusal::Refusal;

/// Members that the service makes; a client's values for them are ignored.
const READ_ONLY: [&str; 4] = [
    "etag",
    "createdDateTimeUtc",
    "lastUpdatedDateTimeUtc",
    "registrationState",
];

const ALLOCATION_POLICIES: [&str; 4] = ["hashed", "geoLatency", "static", "custom"];

/// Facts about the service that the checks need.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) linked_hubs: &'a [String],
    pub(crate) switches: &'a Switches,
    /// Whether a CA certificate of this name exists.
    pub(crate) has_authority: &'a dyn Fn(&str) -> bool,
}

/// A checked record without ETag and dates.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) id: String,
    /// Everything the client sent but the read-only members; `attestation` as sent.
    pub(crate) fields: Map<String, Value>,
    pub(crate) attestation: Attestation,
}

impl Draft {
    /// Check `body` as a record of `kind` named `id`. `old` is the attestation that the record
    /// holds now. A member that is left out is reset to its default: a PUT replaces (contract
    /// section 6).
    pub(crate) fn read(
        kind: Kind,
        id: &str,
        mut body: Map<String, Value>,
        old: Option<&Attestation>,
        around: Surroundings<'_>,
    ) -> Result<Self, Refusal> {
        if !ids::is_registration_id(id, around.switches.id_starts_alphanumeric) {
            return Err(Refusal::bad_registration_id());
        }
        check_id(kind, id, &body)?;
        for member in READ_ONLY {
            body.remove(member);
        }
        let sent = body.get("attestation").unwrap_or(&Value::Null);
        let attestation = Attestation::read(kind, sent, old)?;
        check_references(&attestation, around)?;
        check_fields(kind, &body, around)?;
        fill_defaults(&mut body);
        Ok(Self {
            id: id.to_owned(),
            fields: body,
            attestation,
        })
    }
}

/// The id in the body must be the one in the address (UNCONFIRMED, chosen in section 6).
fn check_id(kind: Kind, id: &str, body: &Map<String, Value>) -> Result<(), Refusal> {
    match body.get(kind.id_member()).and_then(Value::as_str) {
        Some(named) if named.eq_ignore_ascii_case(id) => Ok(()),
        _ => Err(Refusal::bad_request(format!(
            "{} must be the id in the address",
            kind.id_member()
        ))),
    }
}

fn check_references(attestation: &Attestation, around: Surroundings<'_>) -> Result<(), Refusal> {
    match attestation
        .references()
        .find(|name| !(around.has_authority)(name))
    {
        Some(name) => Err(Refusal::bad_request(format!(
            "no CA certificate is named {name}"
        ))),
        None => Ok(()),
    }
}

fn check_fields(
    kind: Kind,
    body: &Map<String, Value>,
    around: Surroundings<'_>,
) -> Result<(), Refusal> {
    one_of(body, "provisioningStatus", &["enabled", "disabled"])?;
    one_of(body, "allocationPolicy", &ALLOCATION_POLICIES)?;
    booleans(body, "capabilities", &["iotEdge"])?;
    booleans(
        body,
        "reprovisionPolicy",
        &["updateHubAssignment", "migrateDeviceData"],
    )?;
    check_hubs(body, around.linked_hubs)?;
    check_custom_allocation(body)?;
    if kind == Kind::Individual {
        check_device_id(body)?;
    }
    Ok(())
}

fn one_of(body: &Map<String, Value>, member: &str, allowed: &[&str]) -> Result<(), Refusal> {
    match body.get(member) {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(value)) if allowed.contains(&value.as_str()) => Ok(()),
        Some(_) => Err(Refusal::bad_request(format!(
            "{member} must be one of {}",
            allowed.join(", ")
        ))),
    }
}

fn booleans(body: &Map<String, Value>, member: &str, inner: &[&str]) -> Result<(), Refusal> {
    let wrong = |name: &&str| !matches!(body[member].get(name), None | Some(Value::Bool(_)));
    match body.get(member) {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Object(_)) if !inner.iter().any(wrong) => Ok(()),
        Some(_) => Err(Refusal::bad_request(format!("{member} must hold booleans"))),
    }
}

/// An unlinked hub is refused (UNCONFIRMED, chosen in section 6).
fn check_hubs(body: &Map<String, Value>, linked: &[String]) -> Result<(), Refusal> {
    let mut named = match body.get("iotHubs") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(hubs)) => hubs.iter().map(Value::as_str).collect(),
        Some(_) => vec![None],
    };
    if let Some(legacy) = body.get("iotHubHostName").filter(|hub| !hub.is_null()) {
        named.push(legacy.as_str());
    }
    let is_linked = |hub: &Option<&str>| hub.is_some_and(|hub| linked.iter().any(|own| own == hub));
    if named.iter().all(is_linked) {
        return Ok(());
    }
    Err(Refusal::bad_request(
        "iotHubs or iotHubHostName names a hub that is not linked",
    ))
}

fn check_custom_allocation(body: &Map<String, Value>) -> Result<(), Refusal> {
    let is_custom = body.get("allocationPolicy").and_then(Value::as_str) == Some("custom");
    let has_definition = body
        .get("customAllocationDefinition")
        .is_some_and(Value::is_object);
    if is_custom && !has_definition {
        return Err(Refusal::bad_request(
            "allocationPolicy custom needs customAllocationDefinition",
        ));
    }
    Ok(())
}

fn check_device_id(body: &Map<String, Value>) -> Result<(), Refusal> {
    match body.get("deviceId") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(id)) if ids::is_hub_device_id(id) => Ok(()),
        Some(_) => Err(Refusal::bad_request("deviceId is not a valid device id")),
    }
}

/// The defaults of contract section 3, shown in every record.
fn fill_defaults(body: &mut Map<String, Value>) {
    let defaults = [
        ("capabilities", json!({"iotEdge": false})),
        ("provisioningStatus", json!("enabled")),
        (
            "reprovisionPolicy",
            json!({"updateHubAssignment": true, "migrateDeviceData": true}),
        ),
    ];
    for (member, default) in defaults {
        if body.get(member).is_none_or(Value::is_null) {
            body.insert(member.to_owned(), default);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrollment::Records;
    use proptest::prelude::*;

    /// Any JSON, not deep.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-z]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            let names =
                prop::sample::select(vec!["type", "primary", "info", "certificate", "iotEdge"]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::vec((names.prop_map(str::to_owned), inner), 0..3)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Places of a record that the checks look into.
    fn any_place() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "/attestation",
            "/attestation/type",
            "/attestation/x509",
            "/attestation/x509/clientCertificates",
            "/attestation/x509/clientCertificates/primary",
            "/attestation/x509/clientCertificates/secondary",
            "/attestation/x509/clientCertificates/primary/certificate",
            "/attestation/symmetricKey",
            "/capabilities",
            "/reprovisionPolicy",
            "/iotHubs",
            "/iotHubHostName",
            "/deviceId",
            "/provisioningStatus",
            "/registrationId",
        ])
    }

    fn record() -> Value {
        let made = rcgen::generate_simple_self_signed(["press-7".to_owned()]).unwrap();
        let slot = json!({ "certificate": made.cert.pem() });
        json!({
            "registrationId": "press-7",
            "attestation": { "type": "x509", "symmetricKey": {}, "x509": {
                "clientCertificates": { "primary": slot, "secondary": null } } },
            "capabilities": {}, "reprovisionPolicy": {}, "iotHubs": [], "iotHubHostName": null,
            "deviceId": "d", "provisioningStatus": "enabled",
        })
    }

    proptest! {
        /// Whatever stands in a member: the record is refused, or stored and shown without
        /// certificates.
        #[test]
        fn no_json_makes_the_checks_panic(place in any_place(), value in any_json(), kind: bool) {
            let mut record = record();
            *record.pointer_mut(place).unwrap() = value;
            let body = record.as_object().cloned().unwrap();
            let kind = if kind { Kind::Individual } else { Kind::Group };
            let switches = Switches::default();
            let around = Surroundings {
                linked_hubs: &[],
                switches: &switches,
                has_authority: &|_| false,
            };
            if let Ok(draft) = Draft::read(kind, "press-7", body, None, around) {
                let mut records = Records::default();
                let stored = records.put(draft, time::OffsetDateTime::UNIX_EPOCH);
                let shown = Value::from(stored.shown(kind)).to_string();
                prop_assert!(!shown.contains("BEGIN CERTIFICATE"));
            }
        }
    }
}

//! Rewrites an observed record for a request, with only our fields changed.
//!
//! A PUT replaces everything, so unknown fields must keep their values. A slot that is already
//! right is sent back unchanged: the service returns only the `info` of a certificate, and keeps
//! the certificate when the `info` comes back. A certificate is never moved between slots by its
//! `info`, because no document says that the service supports that.

use super::compare::{Field, desired_device_id, desired_slot};
use super::desired::{Desired, Kind};
use super::record::Record;
use super::slots::SlotName;
use serde_json::{Map, Value, json};

/// The members of `attestation.x509` that exclude one another.
const X509_MEMBERS: [&str; 3] = ["clientCertificates", "signingCertificates", "caReferences"];

/// The members of an attestation that is not by X.509.
const OTHER_ATTESTATIONS: [&str; 2] = ["tpm", "symmetricKey"];

/// Returns the record of a new enrollment.
pub(super) fn new_record(desired: &Desired) -> Map<String, Value> {
    let mut record = Map::new();
    match &desired.kind {
        Kind::Individual { id, .. } => record.insert("registrationId".into(), json!(id)),
        Kind::Group { id, .. } | Kind::GroupByReference { id, .. } => {
            record.insert("enrollmentGroupId".into(), json!(id))
        }
    };
    let attestation = attestation(Map::new(), &desired.kind, None);
    record.insert("attestation".into(), attestation);
    for field in Field::ALL {
        set_plain_field(&mut record, desired, field);
    }
    record
}

/// Returns the observed record with the fields `writing` as desired.
pub(super) fn changed_record(
    desired: &Desired,
    observed: &Record,
    writing: &[Field],
) -> Map<String, Value> {
    let mut record = observed.writable();
    for field in writing {
        set_plain_field(&mut record, desired, *field);
    }
    if writing.iter().any(|field| field.is_slot()) {
        let read = record.get("attestation").and_then(Value::as_object);
        let read = read.cloned().unwrap_or_default();
        let attestation = attestation(read, &desired.kind, Some(observed));
        record.insert("attestation".into(), attestation);
    }
    record
}

/// Writes a managed field other than the slots.
fn set_plain_field(record: &mut Map<String, Value>, desired: &Desired, field: Field) {
    let (name, value) = match field {
        Field::Primary | Field::Secondary => return,
        Field::Status => ("provisioningStatus", Some(json!(desired.status))),
        Field::DeviceId => (
            "deviceId",
            desired_device_id(&desired.kind).map(|id| json!(id)),
        ),
        Field::ReprovisionPolicy => (
            "reprovisionPolicy",
            desired.reprovision_policy.map(|policy| json!(policy)),
        ),
        Field::Hubs => ("iotHubs", desired.hubs.as_ref().map(|hubs| json!(hubs))),
    };
    if let Some(value) = value {
        record.insert(name.into(), value);
    }
}

/// Returns the observed attestation with both slots as desired.
fn attestation(mut read: Map<String, Value>, kind: &Kind, observed: Option<&Record>) -> Value {
    for name in OTHER_ATTESTATIONS {
        read.shift_remove(name);
    }
    read.insert("type".into(), json!("x509"));
    let mut x509 = match read.shift_remove("x509") {
        Some(Value::Object(x509)) => x509,
        _ => Map::new(),
    };
    let mut slots = match x509.shift_remove(kind.x509_member()) {
        Some(Value::Object(slots)) => slots,
        _ => Map::new(),
    };
    for name in X509_MEMBERS {
        x509.shift_remove(name);
    }
    for slot in SlotName::BOTH {
        match slot_value(kind, slot, observed) {
            Some(value) => slots.insert(slot.as_str().into(), value),
            None => slots.shift_remove(slot.as_str()),
        };
    }
    x509.insert(kind.x509_member().into(), Value::Object(slots));
    read.insert("x509".into(), Value::Object(x509));
    Value::Object(read)
}

/// Returns the slot for the request: unchanged if it is right, otherwise our certificate.
fn slot_value(kind: &Kind, slot: SlotName, observed: Option<&Record>) -> Option<Value> {
    let unchanged = |record: &&Record| {
        let member = kind.x509_member();
        record.slot(member, slot) == desired_slot(kind, slot)
    };
    if let Some(record) = observed.filter(unchanged) {
        return record.raw_slot(kind.x509_member(), slot).cloned();
    }
    match kind {
        Kind::Individual { certificates, .. } | Kind::Group { certificates, .. } => {
            certificates.in_slot(slot).map(|it| match it.pem() {
                Some(pem) => json!({ "certificate": pem }),
                // The service refuses it unless it holds that certificate.
                None => json!({ "info": { "sha256Thumbprint": it.thumbprint().to_string() } }),
            })
        }
        Kind::GroupByReference { references, .. } => references.in_slot(slot).map(|n| json!(n)),
    }
}

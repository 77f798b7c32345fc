//! Compares a desired enrollment with an observed one, field by field.
//!
//! Values are equal if they are equal to the service: certificates by SHA-256, names in any case,
//! hubs in any order.

use super::desired::{Desired, Kind, ReprovisionPolicy, Status};
use super::record::{ObservedSlot, Record};
use super::slots::SlotName;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// A field whose desired and observed values differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub field: Field,
    pub desired: String,
    pub observed: String,
}

/// A field that we manage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    Primary,
    Secondary,
    Status,
    DeviceId,
    ReprovisionPolicy,
    Hubs,
}

impl Field {
    pub(super) const ALL: [Field; 6] = [
        Field::Primary,
        Field::Secondary,
        Field::Status,
        Field::DeviceId,
        Field::ReprovisionPolicy,
        Field::Hubs,
    ];

    pub(super) fn is_slot(self) -> bool {
        matches!(self, Field::Primary | Field::Secondary)
    }
}

/// Returns the managed fields that are not as desired.
pub(super) fn differing_fields(desired: &Desired, observed: &Record) -> Vec<Field> {
    let differs = |field: &Field| match desired_value(desired, *field) {
        None => false,
        Some(value) => value != observed_value(observed, *field),
    };
    Field::ALL.into_iter().filter(differs).collect()
}

/// Returns a value as text.
pub(super) fn describe(fields: &[Field], desired: &Desired, observed: &Record) -> Vec<Difference> {
    let describe_one = |field: &Field| Difference {
        field: *field,
        desired: desired_value(desired, *field).map_or_else(String::new, |v| v.to_string()),
        observed: observed_value(observed, *field).to_string(),
    };
    fields.iter().map(describe_one).collect()
}

/// A normalized value: two values are equal if the service treats them as equal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FieldValue {
    Slot(ObservedSlot),
    Status(Option<Status>),
    DeviceId(Option<String>),
    ReprovisionPolicy(Option<ReprovisionPolicy>),
    Hubs(BTreeSet<String>),
}

/// Returns the desired value; `None` if the field is not managed.
pub(super) fn desired_value(desired: &Desired, field: Field) -> Option<FieldValue> {
    Some(match field {
        Field::Primary => FieldValue::Slot(desired_slot(&desired.kind, SlotName::Primary)),
        Field::Secondary => FieldValue::Slot(desired_slot(&desired.kind, SlotName::Secondary)),
        Field::Status => FieldValue::Status(Some(desired.status)),
        Field::DeviceId => FieldValue::DeviceId(Some(desired_device_id(&desired.kind)?.to_owned())),
        Field::ReprovisionPolicy => {
            FieldValue::ReprovisionPolicy(Some(desired.reprovision_policy?))
        }
        Field::Hubs => FieldValue::Hubs(caseless_set(desired.hubs.as_ref()?)),
    })
}

/// Returns the observed value.
pub(super) fn observed_value(observed: &Record, field: Field) -> FieldValue {
    match field {
        Field::Primary => FieldValue::Slot(observed_slot(observed, SlotName::Primary)),
        Field::Secondary => FieldValue::Slot(observed_slot(observed, SlotName::Secondary)),
        Field::Status => FieldValue::Status(observed.status()),
        Field::DeviceId => FieldValue::DeviceId(observed.device_id().map(str::to_owned)),
        Field::ReprovisionPolicy => FieldValue::ReprovisionPolicy(observed.reprovision_policy()),
        Field::Hubs => FieldValue::Hubs(caseless_set(&observed.hubs())),
    }
}

/// Returns the desired content of a slot in its observed form.
pub(super) fn desired_slot(kind: &Kind, slot: SlotName) -> ObservedSlot {
    match kind {
        Kind::Individual { certificates, .. } | Kind::Group { certificates, .. } => certificates
            .in_slot(slot)
            .map_or(ObservedSlot::Empty, |certificate| {
                ObservedSlot::Certificate(certificate.thumbprint())
            }),
        Kind::GroupByReference { references, .. } => references
            .in_slot(slot)
            .map_or(ObservedSlot::Empty, |name| reference(name)),
    }
}

fn observed_slot(observed: &Record, slot: SlotName) -> ObservedSlot {
    let member = observed.x509_member();
    match member.map_or(ObservedSlot::Empty, |member| observed.slot(member, slot)) {
        ObservedSlot::Reference(name) => reference(&name),
        other => other,
    }
}

/// Normalizes a resource name: case is ignored.
fn reference(name: &str) -> ObservedSlot {
    ObservedSlot::Reference(name.to_ascii_lowercase())
}

/// Returns the device id, which only an individual enrollment has.
pub(super) fn desired_device_id(kind: &Kind) -> Option<&str> {
    match kind {
        Kind::Individual { device_id, .. } => device_id.as_deref(),
        Kind::Group { .. } | Kind::GroupByReference { .. } => None,
    }
}

fn caseless_set(names: &[impl AsRef<str>]) -> BTreeSet<String> {
    let names = names.iter();
    names
        .map(|name| name.as_ref().to_ascii_lowercase())
        .collect()
}

impl fmt::Display for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FieldValue::Slot(ObservedSlot::Certificate(thumbprint)) => thumbprint.fmt(f),
            FieldValue::Slot(ObservedSlot::Reference(name)) => f.write_str(name),
            FieldValue::Slot(ObservedSlot::Empty) => f.write_str("empty"),
            FieldValue::Slot(ObservedSlot::Unreadable) => f.write_str("unreadable"),
            FieldValue::Status(Some(status)) => status.fmt(f),
            FieldValue::DeviceId(Some(id)) => f.write_str(id),
            FieldValue::ReprovisionPolicy(Some(policy)) => write!(
                f,
                "updateHubAssignment {}, migrateDeviceData {}",
                policy.update_hub_assignment, policy.migrate_device_data
            ),
            FieldValue::Hubs(hubs) => {
                let hubs: Vec<&str> = hubs.iter().map(String::as_str).collect();
                f.write_str(&hubs.join(", "))
            }
            FieldValue::Status(None)
            | FieldValue::DeviceId(None)
            | FieldValue::ReprovisionPolicy(None) => f.write_str("unset"),
        }
    }
}

//! Plans the request that makes an enrollment at the service as desired.
//!
//! The planner compares three states field by field: desired, observed, and sent before. A
//! difference that our own change explains is written. Any other difference is drift: it is
//! reported, and repaired only if policy says so. Drift never delays our own change, which may be a
//! block.
//!
//! The record to send is the observed record with only our fields changed: a PUT replaces
//! everything, and unknown fields must keep their values. Both slots are always written together:
//! half a rollover merged with a slot of another writer could leave a device with neither
//! certificate.

use super::compare::{
    Difference, Field, describe, desired_value, differing_fields, observed_value,
};
use super::desired::Desired;
use super::etag::Etag;
use super::history::History;
use super::record::Record;
use super::rewrite::{changed_record, new_record};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The next request for one enrollment.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// No request: the service has the desired state.
    Settled,
    /// PUT without `If-Match`. A conflict means that the enrollment exists: observe again.
    Create {
        record: Value,
    },
    Replace {
        record: Value,
        etag: Etag,
        /// Drift that this PUT repairs.
        repaired: Vec<Difference>,
        /// Drift that this PUT leaves.
        left: Vec<Difference>,
    },
    Delete {
        etag: Etag,
    },
    /// No request: the difference is drift, to be reported.
    Drift(Drift),
}

/// The policy for drift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DriftPolicy {
    /// Report the drift, and leave it.
    #[default]
    Report,
    /// Restore the desired state.
    Repair,
    /// Report every difference, also one that an own change explains: the state at the service may
    /// be newer than the record. No setting says so.
    #[serde(skip)]
    Keep,
}

/// A difference that we did not make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// The kind of difference.
    pub cause: DriftCause,
    /// The fields that differ, where the record exists and is desired.
    pub differences: Vec<Difference>,
}

/// The kind of a drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftCause {
    /// Another writer deleted the enrollment.
    Missing,
    /// The enrollment exists, and we never sent it.
    NotOurs,
    /// Another writer changed the enrollment.
    Changed,
}

/// Returns true if the service has everything that `desired` says.
pub fn holds(observed: &Record, desired: &Desired) -> bool {
    differing_fields(desired, observed).is_empty()
}

/// Plans the next request, by the rules of this module.
pub fn plan(
    desired: Option<&Desired>,
    observed: Option<&Record>,
    history: &History,
    policy: DriftPolicy,
) -> Plan {
    match (desired, observed) {
        (None, None) => Plan::Settled,
        (None, Some(_)) if policy == DriftPolicy::Keep => drift(DriftCause::Changed, Vec::new()),
        (None, Some(observed)) => plan_removal(observed, history),
        (Some(desired), None) => plan_creation(desired, history, policy),
        (Some(desired), Some(observed)) => plan_change(desired, observed, history, policy),
    }
}

/// Plans a deletion. An enrollment that was never ours is not deleted under any policy.
fn plan_removal(observed: &Record, history: &History) -> Plan {
    if history.is_empty() {
        return drift(DriftCause::NotOurs, Vec::new());
    }
    Plan::Delete {
        etag: observed.etag().clone(),
    }
}

fn plan_creation(desired: &Desired, history: &History, policy: DriftPolicy) -> Plan {
    let is_kept = match policy {
        DriftPolicy::Report => history.confirmed() == Some(desired),
        DriftPolicy::Keep => !history.is_empty(),
        DriftPolicy::Repair => false,
    };
    if is_kept {
        return drift(DriftCause::Missing, Vec::new());
    }
    Plan::Create {
        record: Value::Object(new_record(desired)),
    }
}

fn plan_change(
    desired: &Desired,
    observed: &Record,
    history: &History,
    policy: DriftPolicy,
) -> Plan {
    let differing = differing_fields(desired, observed);
    if differing.is_empty() {
        return Plan::Settled;
    }
    if history.is_empty() && policy != DriftPolicy::Repair {
        return drift(DriftCause::NotOurs, describe(&differing, desired, observed));
    }
    let foreign = |field: &Field| is_foreign(*field, observed, history);
    let mut writing: Vec<Field> = differing.to_vec();
    writing.retain(|field| match policy {
        DriftPolicy::Repair => true,
        DriftPolicy::Report => !foreign(field) || is_pending(*field, desired, history),
        DriftPolicy::Keep => false,
    });
    if writing.is_empty() {
        return drift(DriftCause::Changed, describe(&differing, desired, observed));
    }
    write_slots_together(&mut writing, &differing);
    let (repaired, left): (Vec<Field>, Vec<Field>) = differing
        .into_iter()
        .filter(foreign)
        .partition(|field| writing.contains(field));
    Plan::Replace {
        record: Value::Object(changed_record(desired, observed, &writing)),
        etag: observed.etag().clone(),
        repaired: describe(&repaired, desired, observed),
        left: describe(&left, desired, observed),
    }
}

fn drift(cause: DriftCause, differences: Vec<Difference>) -> Plan {
    Plan::Drift(Drift { cause, differences })
}

/// Returns true if the desired value differs from the last confirmed value.
fn is_pending(field: Field, desired: &Desired, history: &History) -> bool {
    let confirmed = history.confirmed().map(|sent| desired_value(sent, field));
    confirmed != Some(desired_value(desired, field))
}

/// Returns true if we sent the field and the observed value is none of the sent values.
fn is_foreign(field: Field, observed: &Record, history: &History) -> bool {
    if history.is_empty() {
        return true;
    }
    let value = observed_value(observed, field);
    let mut sent = history.sent().filter_map(|sent| desired_value(sent, field));
    let first = sent.next();
    first.is_some_and(|first| first != value && sent.all(|other| other != value))
}

fn write_slots_together(writing: &mut Vec<Field>, differing: &[Field]) {
    if writing.iter().any(|field| field.is_slot()) {
        let slots = differing.iter().filter(|field| field.is_slot());
        let missing: Vec<Field> = slots.filter(|f| !writing.contains(f)).copied().collect();
        writing.extend(missing);
    }
}

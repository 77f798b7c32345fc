//! What must be done at the service so that an enrollment becomes what is desired.
//!
//! The planner compares field by field and three ways: what is desired, what is observed, and what
//! we sent before. A difference that our own change explains is written. One that somebody else
//! made is drift: reported, and repaired only if policy says so; it never holds up a change of
//! our own, because that change may be a block.
//!
//! The record to send is the record that was read with only our fields changed: a PUT replaces
//! everything, and what we do not know is not ours to reset. The two slots are always written
//! together: merging half a roll with somebody else's slot could leave a device with neither
//! certificate.

use super::compare::{
    Difference, Field, describe, desired_value, differing_fields, observed_value,
};
use super::desired::Desired;
use super::etag::Etag;
use super::history::History;
use super::record::Record;
use super::rewrite::{changed_record, new_record};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The next thing to do at the service for one enrollment.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Nothing: the service holds what is desired.
    Settled,
    /// PUT without `If-Match`: a conflict means that it is there after all; observe again.
    Create {
        /// The whole record.
        record: Value,
    },
    /// PUT with `If-Match`.
    Replace {
        /// The whole record.
        record: Value,
        /// The version that was observed.
        etag: Etag,
        /// What somebody else had changed and this PUT changes back.
        repaired: Vec<Difference>,
        /// What somebody else has changed and this PUT leaves.
        left: Vec<Difference>,
    },
    /// DELETE with `If-Match`.
    Delete {
        /// The version that was observed.
        etag: Etag,
    },
    /// Nothing to do but to tell: somebody else made the difference.
    Drift(Drift),
}

/// What to do about a difference that somebody else made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriftPolicy {
    /// Tell, and leave it.
    #[default]
    Report,
    /// Make it as desired again.
    Repair,
}

/// A difference between desire and observation that is not of our making.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// What kind of difference.
    pub cause: DriftCause,
    /// Field by field, where the record exists and is wanted.
    pub differences: Vec<Difference>,
}

/// How an enrollment came to differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftCause {
    /// It was there, and somebody else deleted it.
    Missing,
    /// It is there, but we never sent it.
    NotOurs,
    /// Somebody else changed it.
    Changed,
}

/// Whether the service holds everything that `desired` says.
pub fn holds(observed: &Record, desired: &Desired) -> bool {
    differing_fields(desired, observed).is_empty()
}

/// Decides; see the module.
pub fn plan(
    desired: Option<&Desired>,
    observed: Option<&Record>,
    history: &History,
    policy: DriftPolicy,
) -> Plan {
    match (desired, observed) {
        (None, None) => Plan::Settled,
        (None, Some(observed)) => plan_removal(observed, history),
        (Some(desired), None) => plan_creation(desired, history, policy),
        (Some(desired), Some(observed)) => plan_change(desired, observed, history, policy),
    }
}

/// What was never ours is never deleted, whatever the policy.
fn plan_removal(observed: &Record, history: &History) -> Plan {
    if history.is_empty() {
        return drift(DriftCause::NotOurs, Vec::new());
    }
    Plan::Delete {
        etag: observed.etag().clone(),
    }
}

fn plan_creation(desired: &Desired, history: &History, policy: DriftPolicy) -> Plan {
    if history.confirmed() == Some(desired) && policy == DriftPolicy::Report {
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
    if history.is_empty() && policy == DriftPolicy::Report {
        return drift(DriftCause::NotOurs, describe(&differing, desired, observed));
    }
    let foreign = |field: &Field| is_foreign(*field, observed, history);
    let mut writing: Vec<Field> = differing.to_vec();
    writing.retain(|field| match policy {
        DriftPolicy::Repair => true,
        DriftPolicy::Report => !foreign(field) || is_pending(*field, desired, history),
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

/// We want this field to become something else than what was last seen in place.
fn is_pending(field: Field, desired: &Desired, history: &History) -> bool {
    let confirmed = history.confirmed().map(|sent| desired_value(sent, field));
    confirmed != Some(desired_value(desired, field))
}

/// We sent this field, and the observed value is none of those we sent.
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

//! What we sent to the service for one enrollment: how the planner tells our own changes from
//! somebody else's, even when an answer was lost. Persisted beside the slots.

use super::desired::Desired;
use super::plan::holds;
use super::record::Record;
use serde::{Deserialize, Serialize};

/// Last seen in place, and sent since.
///
/// An attempt MUST be stored before it is sent, and every observation given to
/// [`observed`](History::observed) before it is planned with. An attempt that was not seen in
/// place is remembered all the same: a request whose answer was lost may still arrive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    confirmed: Option<Desired>,
    attempt: Option<Attempt>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Attempt {
    Put(Desired),
    Delete,
}

impl History {
    /// Before `desired` is sent; `None` is a deletion.
    pub fn sending(self, desired: Option<&Desired>) -> History {
        let attempt = match desired {
            Some(desired) => Attempt::Put(desired.clone()),
            None => Attempt::Delete,
        };
        History {
            attempt: Some(attempt),
            ..self
        }
    }

    /// After the service was read: an attempt that is in place is confirmed by that.
    pub fn observed(self, record: Option<&Record>) -> History {
        match (self.attempt, record) {
            (Some(Attempt::Put(sent)), Some(record)) if holds(record, &sent) => History {
                confirmed: Some(sent),
                attempt: None,
            },
            (Some(Attempt::Delete), None) => History::default(),
            (attempt, _) => History { attempt, ..self },
        }
    }

    /// After the plan was `Settled`: what is desired is in place, whoever put it there.
    pub fn settled(desired: Option<&Desired>) -> History {
        History {
            confirmed: desired.cloned(),
            attempt: None,
        }
    }

    /// Last seen in place.
    pub fn confirmed(&self) -> Option<&Desired> {
        self.confirmed.as_ref()
    }

    /// Everything of ours that may be in place.
    pub(super) fn sent(&self) -> impl Iterator<Item = &Desired> {
        let attempted = match &self.attempt {
            Some(Attempt::Put(sent)) => Some(sent),
            Some(Attempt::Delete) | None => None,
        };
        self.confirmed.iter().chain(attempted)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent().next().is_none()
    }
}

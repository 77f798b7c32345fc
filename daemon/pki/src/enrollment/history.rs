//! Records the requests that were sent for one enrollment, beside its slots.
//!
//! By this record the planner distinguishes our changes from changes by others, even when an answer
//! was lost.

use super::desired::Desired;
use super::plan::holds;
use super::record::Record;
use serde::{Deserialize, Serialize};

/// The last confirmed state, and the attempts since.
///
/// An attempt MUST be stored before it is sent, and every observation passed to
/// [`observed`](History::observed) before planning. An unconfirmed attempt is kept: a request whose
/// answer was lost may still arrive.
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
    /// Records an attempt before it is sent; `None` is a deletion.
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

    /// Records an observation. It confirms an attempt that is in place.
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

    /// Records that the desired state is in place, after the plan `Settled`.
    pub fn settled(desired: Option<&Desired>) -> History {
        History {
            confirmed: desired.cloned(),
            attempt: None,
        }
    }

    /// Returns the last confirmed state.
    pub fn confirmed(&self) -> Option<&Desired> {
        self.confirmed.as_ref()
    }

    /// Returns every state of ours that may be in place.
    pub(super) fn sent(&self) -> impl Iterator<Item = &Desired> {
        let attempted = match &self.attempt {
            Some(Attempt::Put(sent)) => Some(sent),
            Some(Attempt::Delete) | None => None,
        };
        self.confirmed.iter().chain(attempted)
    }

    /// Returns whether nothing was ever sent.
    pub fn is_empty(&self) -> bool {
        self.sent().next().is_none()
    }
}

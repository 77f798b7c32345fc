//! Holds what a hub has answered to a task, and when the task is tried again.

use super::UnixSeconds;
use super::hub_deletion::Deletion;
use crate::ids::HubTaskId;

/// A hub's answer to a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubAnswer {
    pub(super) words: String,
    pub(super) reached: Option<bool>,
    pub(super) deletion: Option<Deletion>,
}

impl HubAnswer {
    /// An answer that does not say whether the device was reached.
    pub fn said(words: impl Into<String>) -> Self {
        let words = words.into();
        Self {
            words,
            reached: None,
            deletion: None,
        }
    }

    /// The result of a deletion.
    pub fn deletion(words: impl Into<String>, deletion: Deletion) -> Self {
        Self {
            deletion: Some(deletion),
            ..Self::said(words)
        }
    }

    /// The device answered the call, with its status if the hub reports it.
    pub fn heard(status: Option<i64>) -> Self {
        Self {
            words: status.map_or("answered".into(), |status| format!("answered {status}")),
            reached: Some(true),
            deletion: None,
        }
    }

    /// The device was not reached; with the hub's code, if there is one.
    pub fn not_heard(code: Option<String>) -> Self {
        Self {
            words: code.map_or("offline".into(), |code| format!("offline: {code}")),
            reached: Some(false),
            deletion: None,
        }
    }

    /// Returns hub and device of an identity in a hub that is not configured.
    pub fn elsewhere(&self) -> Option<(&str, &str)> {
        match &self.deletion {
            Some(Deletion::Elsewhere { hub, device_id }) => Some((hub, device_id)),
            _ => None,
        }
    }

    /// Returns true if the device was not reached.
    pub fn is_not_heard(&self) -> bool {
        self.reached == Some(false)
    }
}

/// The end or retry of a task after an answer.
#[derive(Clone, Debug)]
pub struct HubTaskEnd {
    /// The task's row id.
    pub id: HubTaskId,
    /// The round that was called; the answer does not end a later round.
    pub round: i64,
    pub answer: HubAnswer,
    /// When it is tried again; `None` if it is done.
    pub again_at: Option<UnixSeconds>,
}

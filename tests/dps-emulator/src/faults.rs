//! Faults on demand: the effects of a network and a busy service on a client, at a moment that a
//! test chooses.

use std::sync::Mutex;

use axum::http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::enrollment::Kind;
use crate::plane::Plane;

/// Most faults that may wait at a time.
pub(crate) const FAULTS_MAX: usize = 1000;

/// One fault: which requests it hits, how often, and what happens to them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which requests it hits.
    #[serde(default)]
    pub aim: Aim,
    /// How many such requests pass unharmed first.
    #[serde(default)]
    pub skip: u32,
    /// How many are hit after that.
    #[serde(default = "once")]
    pub times: u32,
    /// The action on them.
    pub action: Action,
}

fn once() -> u32 {
    1
}

impl Fault {
    /// Hit the next request whose operation has this name, e.g. `individual.put`.
    pub fn on(operation: impl Into<String>, action: Action) -> Self {
        Self {
            aim: Aim {
                operation: Some(operation.into()),
                ..Aim::default()
            },
            skip: 0,
            times: 1,
            action,
        }
    }

    /// The same fault for requests to this host alone.
    #[must_use]
    pub fn at_host(mut self, host: impl Into<String>) -> Self {
        self.aim.host = Some(host.into());
        self
    }

    /// The same fault for so many requests.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    /// The same fault after so many unharmed requests.
    #[must_use]
    pub fn after(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }
}

/// A request is hit if everything that is given here fits.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Aim {
    pub plane: Option<Plane>,
    /// The host name, of one hub among several for example.
    pub host: Option<String>,
    /// The operation's name, as in the request log.
    pub operation: Option<String>,
    pub method: Option<String>,
    /// A part of the path.
    pub path_contains: Option<String>,
}

/// The action on a request that is hit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Answer this, and do not do what was asked.
    Status {
        status: u16,
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// Body; the plane's own shape if left out. A string is sent as it is, as a proxy's page
        /// would be; the empty string is an empty body.
        #[serde(default)]
        body: Option<Value>,
    },
    /// Reset the connection; nothing was done.
    ResetBefore,
    /// Do it, then reset the connection: the answer is lost.
    ResetAfter,
    /// Do it, then send half of the answer's body and close.
    Truncate,
    /// Never answer; nothing was done.
    Hang,
    /// Do it, and never answer.
    HangAfter,
    Latency {
        milliseconds: u64,
    },
    /// Another client edits a record just before: its ETag changes behind the client's back.
    Edit {
        /// Kind of the record.
        record: Kind,
        id: String,
        merge: Map<String, Value>,
    },
}

impl Action {
    /// 429 with `Retry-After`.
    pub fn throttle(retry_after_seconds: u32) -> Self {
        Self::Status {
            status: 429,
            headers: vec![("Retry-After".to_owned(), retry_after_seconds.to_string())],
            body: None,
        }
    }

    /// A bare status.
    pub fn status(status: u16) -> Self {
        Self::Status {
            status,
            headers: Vec::new(),
            body: None,
        }
    }

    /// This status with a body that is not the service's own, as a proxy would send it.
    pub fn foreign(status: u16, body: impl Into<String>) -> Self {
        Self::Status {
            status,
            headers: vec![("Content-Type".to_owned(), "text/html".to_owned())],
            body: Some(Value::String(body.into())),
        }
    }

    /// The refusal of a hub with this code.
    pub fn of_hub(status: u16, code: &str, message: &str) -> Self {
        Self::Status {
            status,
            headers: vec![("iothub-errorcode".to_owned(), code.to_owned())],
            body: Some(serde_json::json!({
                "Message": format!("ErrorCode:{code};{message}"),
                "ExceptionMessage": "Tracking ID:0f-G:7-TimeStamp:11/29/2026 20:10:00",
            })),
        }
    }

    /// The name in the request log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::ResetBefore => "reset_before",
            Self::ResetAfter => "reset_after",
            Self::Truncate => "truncate",
            Self::Hang => "hang",
            Self::HangAfter => "hang_after",
            Self::Latency { .. } => "latency",
            Self::Edit { .. } => "edit",
        }
    }
}

/// The parts of a request that a fault is compared with.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) plane: Option<Plane>,
    /// In lower case, without the port.
    pub(crate) host: &'a str,
    pub(crate) operation: &'static str,
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
}

impl Aim {
    fn hits(&self, target: &Target<'_>) -> bool {
        let plane = self.plane.is_none_or(|plane| target.plane == Some(plane));
        let host = self
            .host
            .as_ref()
            .is_none_or(|host| target.host.eq_ignore_ascii_case(host));
        let operation = self
            .operation
            .as_ref()
            .is_none_or(|name| name == target.operation);
        let method = self
            .method
            .as_ref()
            .is_none_or(|name| name == target.method.as_str());
        let path = self
            .path_contains
            .as_ref()
            .is_none_or(|part| target.path.contains(part));
        plane && host && operation && method && path
    }
}

/// More faults than [`FAULTS_MAX`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {FAULTS_MAX} faults are waiting")]
pub struct TooManyFaults;

/// The faults that wait for their request.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    waiting: Mutex<Vec<Fault>>,
}

impl Faults {
    pub(crate) fn add(&self, fault: Fault) -> Result<(), TooManyFaults> {
        let mut waiting = crate::lock(&self.waiting);
        if waiting.len() >= FAULTS_MAX {
            return Err(TooManyFaults);
        }
        waiting.push(fault);
        Ok(())
    }

    /// The action of the first waiting fault that hits, which is then used up by one. Faults that
    /// only let this request pass count it.
    pub(crate) fn take(&self, target: &Target<'_>) -> Option<Action> {
        let mut waiting = crate::lock(&self.waiting);
        for fault in waiting.iter_mut().filter(|fault| fault.aim.hits(target)) {
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if fault.times > 0 {
                fault.times -= 1;
                let action = fault.action.clone();
                waiting.retain(|fault| fault.times > 0);
                return Some(action);
            }
        }
        None
    }

    /// The faults that still wait.
    pub(crate) fn waiting(&self) -> Vec<Fault> {
        crate::lock(&self.waiting).clone()
    }

    pub(crate) fn clear(&self) {
        crate::lock(&self.waiting).clear();
    }
}

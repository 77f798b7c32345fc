//! The device plane of DPS (section 9): registering as a device does, with its certificate.
//!
//! For the canary, which shows that devices under a new authority get in before they need to.

use super::call::{Call, Reply, segment};
use super::failure::CallError;
use super::http::Plane;
use crate::enrollment::id::RegistrationId;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

/// The version that the device SDKs use.
const API_VERSION: &str = "2019-03-31";

/// Between two polls, when the service does not say.
pub const POLL_INTERVAL_DEFAULT: Duration = Duration::from_secs(2);

/// The service allows 5 operations in 10 seconds.
pub const POLL_INTERVAL_MIN: Duration = Duration::from_secs(2);

/// A client of the device plane, as one device.
#[derive(Clone, Debug)]
pub struct DeviceClient {
    plane: Plane,
    id_scope: String,
}

/// The state of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Under way: poll after the interval.
    Assigning {
        /// To poll with; opaque.
        operation_id: String,
        /// How long to wait first.
        poll_after: Duration,
    },
    /// The device is in the hub.
    Assigned {
        /// Host name of its hub.
        hub: String,
        device_id: String,
    },
    /// The enrollment that applies is disabled: final, and not an error.
    Disabled,
    /// The service could not do it: final.
    Failed { reason: String },
}

impl DeviceClient {
    /// Speaks as the device whose certificate `plane` presents.
    pub fn new(plane: Plane, id_scope: String) -> Self {
        Self { plane, id_scope }
    }

    /// Starts a registration. [`CallError::Unauthorized`] is the service's refusal of the
    /// certificate.
    pub async fn register(&self, id: &RegistrationId) -> Result<Registration, CallError> {
        let operation = format!("register {id}");
        let call = Call::new(Method::PUT, operation.clone(), self.path(id, "/register"));
        let call = call.body(json!({ "registrationId": id }));
        Registration::read(&operation, &self.plane.call(call).await?)
    }

    /// Reads the state of a registration.
    pub async fn poll(
        &self,
        id: &RegistrationId,
        operation_id: &str,
    ) -> Result<Registration, CallError> {
        let operation = format!("poll registration of {id}");
        let path = self.path(id, &format!("/operations/{}", segment(operation_id)));
        let call = Call::new(Method::GET, operation.clone(), path);
        Registration::read(&operation, &self.plane.call(call).await?)
    }

    /// The registration as the service remembers it.
    pub async fn lookup(&self, id: &RegistrationId) -> Result<Registration, CallError> {
        let operation = format!("look up registration of {id}");
        let call = Call::new(Method::POST, operation.clone(), self.path(id, "")).reads_only();
        let call = call.body(json!({ "registrationId": id }));
        let answer = self.plane.call(call).await?;
        let state: State = answer.json(&operation)?;
        Ok(state.settled("", poll_after(&answer)))
    }

    fn path(&self, id: &RegistrationId, below: &str) -> String {
        let scope = segment(&self.id_scope);
        let id = segment(id.as_str());
        format!("/{scope}/registrations/{id}{below}?api-version={API_VERSION}")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Operation {
    #[serde(default)]
    operation_id: String,
    status: String,
    registration_state: Option<State>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct State {
    status: Option<String>,
    assigned_hub: Option<String>,
    device_id: Option<String>,
    error_code: Option<i64>,
    error_message: Option<String>,
}

impl Registration {
    fn read(operation: &str, answer: &Reply) -> Result<Self, CallError> {
        let body: Operation = answer.json(operation)?;
        let state = State {
            // The operation's own status is the one that is always there.
            status: Some(body.status),
            ..body.registration_state.unwrap_or_default()
        };
        Ok(state.settled(&body.operation_id, poll_after(answer)))
    }
}

impl State {
    fn settled(self, operation_id: &str, poll_after: Duration) -> Registration {
        match (self.status.as_deref(), self.assigned_hub, self.device_id) {
            (Some("assigned"), Some(hub), Some(device_id)) => {
                Registration::Assigned { hub, device_id }
            }
            (Some("assigning" | "unassigned"), ..) => Registration::Assigning {
                operation_id: operation_id.to_owned(),
                poll_after,
            },
            (Some("disabled"), ..) => Registration::Disabled,
            (status, ..) => Registration::Failed {
                reason: format!(
                    "status {}, code {}: {}",
                    status.unwrap_or("unknown"),
                    self.error_code.unwrap_or(0),
                    self.error_message.as_deref().unwrap_or("no message")
                ),
            },
        }
    }
}

fn poll_after(answer: &Reply) -> Duration {
    let asked = answer.retry_after().unwrap_or(POLL_INTERVAL_DEFAULT);
    asked.max(POLL_INTERVAL_MIN)
}

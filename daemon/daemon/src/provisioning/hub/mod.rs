//! Calls the IoT Hub that devices are provisioned to (section 12): identities, methods, jobs.
//!
//! The hub knows a device by the leaf of its last registration. So an identity proves that a device
//! has its new leaf, and gives a compromised device access until it is deleted.

mod job;
mod linked;

pub use linked::Hubs;

pub use job::{JOB_DEVICES_MAX, Job, JobStatistics, JobStatus, MethodJob};

use job::DeviceJob;

use super::call::{Call, Reply, segment};
use super::failure::CallError;
use super::http::Plane;
use crate::enrollment::hub_identity::HubIdentity;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// The version that the SDKs use.
const API_VERSION: &str = "2021-04-12";

/// How long the hub waits for a device to connect, in seconds. With [`RESPONSE_SECONDS`] it stays
/// below the limit of one request.
const CONNECT_SECONDS: u32 = 5;

/// How long the hub waits for the device's answer, in seconds.
const RESPONSE_SECONDS: u32 = 15;

/// Pages in which the devices of one job are read at most; one is enough, if the hub fills it.
const RESULT_PAGES_MAX: usize = 100;

/// "Whatever is there", with the quotes that the hub wants around it.
const ANY_VERSION: &str = "\"*\"";

/// The codes of a hub that has no such device; the number is that of newer answers.
const DEVICE_MISSING: [&str; 2] = ["DeviceNotFound", "404001"];

/// The codes of a hub to which a device is not connected.
const DEVICE_OFFLINE: [&str; 2] = ["DeviceNotOnline", "404103"];

/// A client of one hub.
#[derive(Clone, Debug)]
pub struct HubClient {
    plane: Plane,
    host: String,
}

/// A method that a device offers, and what to tell it.
#[derive(Clone, Debug, PartialEq)]
pub struct DirectMethod {
    /// Its name, as the device's program has it.
    pub name: String,
    pub payload: Value,
}

impl DirectMethod {
    fn body(&self) -> Value {
        json!({
            "methodName": self.name,
            "payload": self.payload,
            "connectTimeoutInSeconds": CONNECT_SECONDS,
            "responseTimeoutInSeconds": RESPONSE_SECONDS,
        })
    }
}

/// The result of a direct method.
#[derive(Clone, Debug, PartialEq)]
pub enum MethodOutcome {
    Answered {
        /// The device's own status; 200 by custom means that it will do it. A job may leave it out.
        status: Option<i64>,
        /// The device's own words.
        payload: Value,
    },
    /// The hub has no such device, or it is not connected. It finds out when it is refused.
    NotReached {
        /// The hub's code, as `DeviceNotOnline`.
        code: Option<String>,
    },
}

impl HubClient {
    /// Speaks to the hub `host` behind `plane`.
    pub fn new(plane: Plane, host: String) -> Self {
        Self { plane, host }
    }

    /// Returns the host name, in lower case.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns a client whose calls wait for an answer for `timeout` only.
    pub(super) fn within(&self, timeout: Duration) -> Self {
        Self::new(self.plane.within(timeout), self.host.clone())
    }

    /// Returns how far its clock was ahead at its last answer, in seconds.
    pub(super) fn skew_seconds(&self) -> Option<i64> {
        self.plane.skew_seconds()
    }

    /// The identity of a device, or `None`.
    pub async fn identity(&self, device_id: &str) -> Result<Option<HubIdentity>, CallError> {
        let operation = format!("read hub identity {device_id}");
        let call = Call::new(Method::GET, operation.clone(), identity_path(device_id));
        match self.plane.call(call).await {
            Ok(answer) => identity(&operation, &answer).map(Some),
            Err(error) if error.is_missing(&DEVICE_MISSING) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates an identity. A conflict means that one exists.
    pub async fn create(&self, device_id: &str, new: &Value) -> Result<HubIdentity, CallError> {
        let operation = format!("create hub identity {device_id}");
        let path = identity_path(device_id);
        let call = Call::new(Method::PUT, operation.clone(), path).body(new.clone());
        identity(&operation, &self.plane.call(call).await?)
    }

    /// Deletes an identity in whatever state: its device is compromised, and no concurrent change
    /// may keep its access. Returns false if the hub has none. Only a 204, and the hub's own code,
    /// are an answer of the hub: a proxy may send any other.
    pub async fn delete(&self, device_id: &str) -> Result<bool, CallError> {
        let operation = format!("delete hub identity {device_id}");
        let call = Call::new(Method::DELETE, operation.clone(), identity_path(device_id));
        let call = call.header("if-match", ANY_VERSION.to_owned());
        match self.plane.call(call).await {
            Ok(answer) if answer.status == 204 => Ok(true),
            Ok(answer) => Err(CallError::Transient {
                operation,
                reason: format!("the answer is {}, and a hub's is 204", answer.status),
                retry_after: None,
                lost_answer: true,
            }),
            Err(error) if error.is_missing(&DEVICE_MISSING) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Calls a method of a device and waits for its answer, [`RESPONSE_SECONDS`] at most.
    pub async fn invoke(
        &self,
        device_id: &str,
        method: &DirectMethod,
    ) -> Result<MethodOutcome, CallError> {
        #[derive(Deserialize)]
        struct Answered {
            status: i64,
            #[serde(default)]
            payload: Value,
        }
        let operation = format!("call {} of device {device_id}", method.name);
        let path = versioned(&format!("/twins/{}/methods", segment(device_id)));
        let call = Call::new(Method::POST, operation.clone(), path).body(method.body());
        match self.plane.call(call).await {
            Ok(answer) => {
                let Answered { status, payload } = answer.json(&operation)?;
                let status = Some(status);
                Ok(MethodOutcome::Answered { status, payload })
            }
            Err(error) => not_reached(error),
        }
    }

    /// Has the hub call a method of many devices. A conflict means that a job with this id exists:
    /// read it, it may be ours with an answer that was lost.
    pub async fn schedule(&self, job: &MethodJob) -> Result<Job, CallError> {
        let operation = format!("schedule job {}", job.id);
        let body = job.body().map_err(|reason| CallError::Unsendable {
            operation: operation.clone(),
            reason,
        })?;
        let call = Call::new(Method::PUT, operation.clone(), job_path(&job.id)).body(body);
        self.plane.call(call).await?.json(&operation)
    }

    /// A job, or `None`. Any 404 counts: a job that exists after all is not scheduled again, since
    /// its id is taken.
    pub async fn job(&self, id: &str) -> Result<Option<Job>, CallError> {
        let operation = format!("read job {id}");
        let call = Call::new(Method::GET, operation.clone(), job_path(id));
        match self.plane.call(call).await {
            Ok(answer) => answer.json(&operation).map(Some),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the results of a job by device. Devices that are still to be called are missing, and
    /// so are devices that the hub does not know.
    pub async fn job_results(&self, id: &str) -> Result<Vec<(String, MethodOutcome)>, CallError> {
        let operation = format!("read the devices of job {id}");
        let query = format!("SELECT * FROM devices.jobs WHERE devices.jobs.jobId = '{id}'");
        let mut results = Vec::new();
        let mut from = None;
        for _ in 0..RESULT_PAGES_MAX {
            let call = Call::new(Method::POST, operation.clone(), versioned("/devices/query"))
                .page(JOB_DEVICES_MAX, from.as_ref())
                .body(json!({ "query": query }));
            let answer = self.plane.call(call).await?;
            let page: Vec<DeviceJob> = answer.json(&operation)?;
            results.extend(page.into_iter().filter_map(DeviceJob::outcome));
            from = answer.continuation(&operation)?;
            if from.is_none() {
                break;
            }
        }
        Ok(results)
    }
}

/// Only the hub's own codes say that a device was not reached.
fn not_reached(error: CallError) -> Result<MethodOutcome, CallError> {
    let own = error.is_missing(&DEVICE_MISSING) || error.is_missing(&DEVICE_OFFLINE);
    match error {
        CallError::Rejected { code, .. } if own => Ok(MethodOutcome::NotReached { code }),
        error => Err(error),
    }
}

fn identity_path(device_id: &str) -> String {
    versioned(&format!("/devices/{}", segment(device_id)))
}

fn job_path(id: &str) -> String {
    versioned(&format!("/jobs/v2/{}", segment(id)))
}

fn versioned(path: &str) -> String {
    format!("{path}?api-version={API_VERSION}")
}

fn identity(operation: &str, answer: &Reply) -> Result<HubIdentity, CallError> {
    let identity = HubIdentity::parse(answer.json(operation)?);
    identity.map_err(|invalid| CallError::Transient {
        operation: operation.to_owned(),
        reason: invalid.to_string(),
        retry_after: None,
        lost_answer: true,
    })
}

//! Direct methods: a back end calls a device and waits for its answer (contract section 12).

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::HubRefusal;
use super::presence::{MethodAnswer, NoAnswer};
use crate::cloud::Cloud;
use crate::wire::{Call, Reply};

/// Longest wait that a caller may ask for (the hub's own limit).
const WAIT_SECONDS_MAX: u64 = 300;
/// Wait for an answer if the caller does not say (contract section 12).
const RESPONSE_SECONDS_DEFAULT: u64 = 30;
const NAME_LENGTH_MAX: usize = 100;

/// A call as a back end writes it, directly or in a job.
#[derive(Clone, Debug)]
pub(super) struct MethodCall {
    name: String,
    payload: Value,
    connect: Duration,
    respond: Duration,
}

impl MethodCall {
    /// Check `{"methodName", "payload", "responseTimeoutInSeconds", "connectTimeoutInSeconds"}`.
    pub(super) fn read(body: &Map<String, Value>) -> Result<Self, HubRefusal> {
        let name = body
            .get("methodName")
            .and_then(Value::as_str)
            .unwrap_or_default();
        // The name becomes part of a topic: no wildcards, no separators.
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > NAME_LENGTH_MAX || !name.chars().all(fits) {
            return Err(HubRefusal::argument("methodName is missing or not valid"));
        }
        let response = seconds(body, "responseTimeoutInSeconds", RESPONSE_SECONDS_DEFAULT)?;
        Ok(Self {
            name: name.to_owned(),
            payload: body.get("payload").cloned().unwrap_or(Value::Null),
            connect: seconds(body, "connectTimeoutInSeconds", 0)?,
            respond: response,
        })
    }

    pub(super) async fn call(
        &self,
        cloud: &Cloud,
        hub: &str,
        id: &str,
    ) -> Result<MethodAnswer, HubRefusal> {
        let waits = (self.connect, self.respond);
        let answer = cloud
            .presence
            .invoke((hub, id), &self.name, &self.payload, waits)
            .await;
        answer.map_err(|reason| match reason {
            NoAnswer::NotOnline => HubRefusal::new(404, "DeviceNotOnline", id),
            NoAnswer::TimedOut => HubRefusal::new(504, "GatewayTimeout", id),
        })
    }
}

pub(super) async fn invoke(
    cloud: &Cloud,
    hub: &str,
    id: &str,
    call: &Call,
) -> Result<Reply, HubRefusal> {
    let body = call.json_object();
    let body = body.ok_or_else(|| HubRefusal::argument("the body is not a JSON object"))?;
    let method = MethodCall::read(&body)?;
    if !exists(cloud, hub, id) {
        return Err(HubRefusal::not_found(id));
    }
    let answer = method.call(cloud, hub, id).await?;
    Ok(Reply::json(
        200,
        json!({ "status": answer.status, "payload": answer.payload }),
    ))
}

/// Whether the hub has such an identity.
pub(super) fn exists(cloud: &Cloud, hub: &str, id: &str) -> bool {
    cloud.read(|world| {
        world
            .hubs
            .get(hub)
            .is_some_and(|hub| hub.find(id).is_some())
    })
}

fn seconds(body: &Map<String, Value>, member: &str, default: u64) -> Result<Duration, HubRefusal> {
    match body.get(member) {
        None | Some(Value::Null) => Ok(Duration::from_secs(default)),
        Some(value) => match value.as_u64() {
            Some(seconds) if seconds <= WAIT_SECONDS_MAX => Ok(Duration::from_secs(seconds)),
            _ => Err(HubRefusal::argument(format!(
                "{member} must be at most {WAIT_SECONDS_MAX}"
            ))),
        },
    }
}

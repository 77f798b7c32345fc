//! The device plane (contract section 9): HTTPS here, the same requests over MQTT in `mqtt`.
//!
//! `requests` holds what both transports share, `judge` decides who a device is, `assign` acts on it.

mod assign;
mod judge;
pub(crate) mod operations;
pub(crate) mod requests;

use crate::cloud::Cloud;
use crate::operation::Operation;
use crate::refusal::Refusal;
use crate::service::check_api_version;
use crate::wire::{Call, Reply};
use requests::{Device, Outcome};

/// Versions that the device plane answers (contract section 1).
pub(crate) const API_VERSIONS: [&str; 7] = [
    "2018-09-01-preview",
    "2018-11-01",
    "2019-03-31",
    "2021-06-01",
    "2021-10-01",
    "2026-07-01-preview",
    "2026-11-01",
];

/// Answer a call that leads to this plane.
pub(crate) fn answer(cloud: &Cloud, operation: Option<Operation>, call: &Call) -> Reply {
    served(cloud, operation, call).unwrap_or_else(|refusal| refusal.reply(cloud.now()))
}

fn served(cloud: &Cloud, operation: Option<Operation>, call: &Call) -> Result<Reply, Refusal> {
    let operation = operation.ok_or_else(Refusal::no_such_operation)?;
    check_api_version(call, &API_VERSIONS)?;
    let unreadable = |_: &_| Refusal::device_unauthorized("Invalid certificate.");
    let device = Device {
        id_scope: call.segment(0),
        registration_id: call.segment(2),
        api_version: call.query.get("api-version").map_or("", String::as_str),
        presented: call.presented.as_ref().map_err(unreadable)?,
    };
    match operation {
        Operation::Register => {
            if let Err(wait) = requests::take_rate(cloud) {
                return Ok(crate::service::throttled(cloud.now(), wait));
            }
            let outcome = requests::register(cloud, &device, &call.body)?;
            let location = location(call, &outcome);
            Ok(reply(cloud, outcome).with("location", location))
        }
        Operation::Poll => Ok(reply(
            cloud,
            requests::poll(cloud, &device, call.segment(4))?,
        )),
        Operation::Lookup => Ok(Reply::json(200, requests::lookup(cloud, &device)?)),
        _ => Err(Refusal::no_such_operation()),
    }
}

fn reply(cloud: &Cloud, outcome: Outcome) -> Reply {
    let retry_after = cloud.switches().retry_after_seconds.to_string();
    match outcome {
        Outcome::Assigning { .. } => {
            Reply::json(202, outcome.body()).with("retry-after", retry_after)
        }
        Outcome::Final(body) => Reply::json(200, body),
    }
}

fn location(call: &Call, outcome: &Outcome) -> String {
    let (scope, id) = (call.segment(0), call.segment(2));
    format!(
        "https://{}/{scope}/registrations/{id}/operations/{}",
        call.host,
        outcome.operation_id()
    )
}

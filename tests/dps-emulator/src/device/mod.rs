//! The device plane (contract section 9): HTTPS here, the same requests over MQTT in `mqtt`.
//!
//! `requests` holds what both transports share, `judge` decides who a device is, `assign` acts on
//! it.

mod assign;
mod judge;
pub(crate) mod operations;
pub(crate) mod requests;

use crate::certificate::{Certificate, Unreadable};
use crate::cloud::Cloud;
use crate::operation::Operation;
use crate::refusal::Refusal;
use crate::service::check_api_version;
use crate::wire::{Call, Reply};
use requests::{Device, Outcome};

/// Versions that the device plane answers (contract section 1).
const API_VERSIONS: [&str; 7] = [
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
    let ask = match operation {
        Some(Operation::Register) => Ask::Register(&call.body),
        Some(Operation::Poll) => Ask::Poll(call.segment(4)),
        Some(Operation::Lookup) => Ask::Lookup,
        _ => return Err(Refusal::no_such_operation()),
    };
    let version = call.query.get("api-version");
    let device = Device {
        id_scope: call.segment(0),
        registration_id: call.segment(2),
        api_version: version.map_or("", String::as_str),
        presented: readable(&call.presented)?,
    };
    let reply = act(cloud, ask, &device)?;
    match reply
        .body
        .as_ref()
        .and_then(|body| body["operationId"].as_str())
    {
        Some(id) if reply.status == 202 => {
            let location = location(call, id);
            Ok(reply.with("location", location))
        }
        _ => Ok(reply),
    }
}

/// A request of a device.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask<'a> {
    /// Begin a registration, with this body.
    Register(&'a [u8]),
    /// How this operation went.
    Poll(&'a str),
    Lookup,
}

/// Do what a device asks, on either transport.
pub(crate) fn act(cloud: &Cloud, ask: Ask<'_>, device: &Device<'_>) -> Result<Reply, Refusal> {
    check_api_version(Some(device.api_version), &API_VERSIONS)?;
    match ask {
        Ask::Register(body) => match requests::take_rate(cloud) {
            Ok(()) => Ok(reply(cloud, requests::register(cloud, device, body)?)),
            Err(wait) => Ok(crate::service::throttled(cloud.now(), wait)),
        },
        Ask::Poll(operation) => Ok(reply(cloud, requests::poll(cloud, device, operation)?)),
        Ask::Lookup => Ok(Reply::json(200, requests::lookup(cloud, device)?)),
    }
}

/// The presented chain, if all of it could be read.
pub(crate) fn readable(
    presented: &Result<Vec<Certificate>, Unreadable>,
) -> Result<&[Certificate], Refusal> {
    match presented {
        Ok(chain) => Ok(chain),
        Err(_) => Err(Refusal::device_unauthorized("Invalid certificate.")),
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

fn location(call: &Call, operation_id: &str) -> String {
    let (host, scope, id) = (&call.host, call.segment(0), call.segment(2));
    format!("https://{host}/{scope}/registrations/{id}/operations/{operation_id}")
}

//! The service plane: requests of back ends to DPS (contract sections 2 to 8).

mod bulk;
mod query;
pub(crate) mod records;
pub(crate) mod registrations;

use std::time::Instant;

use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::cloud::Cloud;
use crate::etag::IfMatch;
use crate::operation::Operation;
use crate::refusal::Refusal;
use crate::sas;
use crate::wire::{Call, Reply};

/// Longest body (contract section 5: message 96 KB).
const BODY_LENGTH_MAX: usize = 96 * 1024;

/// Versions that the service plane answers (contract section 1).
const API_VERSIONS: [&str; 10] = [
    "2018-09-01",
    "2019-03-31",
    "2021-06-01",
    "2021-10-01",
    "2025-07-01-preview",
    "2026-07-01-preview",
    "2026-11-01",
    "2026-11-02-preview",
    "2026-11-15-preview",
    "2018-11-01",
];

/// Answer a call that leads to this plane. Returns `None` for a path that is not served.
pub(crate) fn answer(cloud: &Cloud, operation: Option<Operation>, call: &Call) -> Reply {
    served(cloud, operation, call).unwrap_or_else(|refusal| refusal.reply(cloud.now()))
}

fn served(cloud: &Cloud, operation: Option<Operation>, call: &Call) -> Result<Reply, Refusal> {
    authorize(cloud, call)?;
    if let Some(throttled) = throttle(cloud) {
        return Ok(throttled);
    }
    let version = call.query.get("api-version").map(String::as_str);
    check_api_version(version, &API_VERSIONS)?;
    if call.body.len() > BODY_LENGTH_MAX {
        return Err(Refusal::bad_request("the message is longer than 96 KB"));
    }
    let operation = operation.ok_or_else(Refusal::no_such_operation)?;
    dispatch(cloud, operation, call)
}

fn dispatch(cloud: &Cloud, operation: Operation, call: &Call) -> Result<Reply, Refusal> {
    let id = call.segment(1);
    match operation {
        Operation::Get(kind) => records::get(cloud, kind, id),
        Operation::Put(kind) => records::put(cloud, kind, id, call),
        Operation::Delete(kind) => records::delete(cloud, kind, id, call),
        Operation::Mechanism(kind) => records::mechanism(cloud, kind, id),
        Operation::Bulk(kind) => bulk::run(cloud, kind, call),
        Operation::Query(kind) => query::records(cloud, kind, call),
        Operation::RegistrationGet => registrations::get(cloud, id),
        Operation::RegistrationDelete => registrations::delete(cloud, id, call),
        Operation::RegistrationQuery => query::registrations(cloud, id, call),
        _ => Err(Refusal::no_such_operation()),
    }
}

/// SAS or a bearer token (contract section 8). Codes of the service plane are UNCONFIRMED: 401000.
fn authorize(cloud: &Cloud, call: &Call) -> Result<(), Refusal> {
    let header = call
        .header("authorization")
        .ok_or_else(Refusal::unauthorized)?;
    if let Some(token) = header.strip_prefix("Bearer ") {
        let scope = crate::entra::Scope::Service;
        return match crate::entra::opens(cloud, token, scope) {
            true => Ok(()),
            false => Err(Refusal::unauthorized()),
        };
    }
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let policy = cloud.read(|world| world.service_policy.clone());
    let judge = |host: &str| sas::check(header, &policy, host, &call.path, now);
    judge(&cloud.hosts.service)
        .or_else(|_| judge(&call.host))
        .map_err(|reason| {
            tracing::debug!(%reason, "the service plane refused a token");
            Refusal::unauthorized()
        })
}

fn throttle(cloud: &Cloud) -> Option<Reply> {
    let limit = cloud.switches().quotas.service_operations_a_minute;
    let wait = cloud.rates.service.take(limit, Instant::now()).err()?;
    Some(throttled(cloud.now(), wait))
}

/// 429 with its `Retry-After`; the code is UNCONFIRMED (contract section 5).
pub(crate) fn throttled(now: OffsetDateTime, wait_seconds: u64) -> Reply {
    let refusal = Refusal::new(429_001, "Operations are being throttled for this tenant.");
    refusal
        .reply(now)
        .with("retry-after", wait_seconds.to_string())
}

/// A missing or unknown version is refused with 400 (UNCONFIRMED, chosen in section 1).
pub(crate) fn check_api_version(version: Option<&str>, known: &[&str]) -> Result<(), Refusal> {
    match version {
        Some("") | None => Err(Refusal::bad_request("api-version is missing")),
        Some(version) if known.contains(&version) => Ok(()),
        Some(_) => Err(Refusal::bad_request("unknown api-version")),
    }
}

fn if_match(call: &Call) -> Result<IfMatch, Refusal> {
    IfMatch::strict(call.header("if-match"))
        .map_err(|error| Refusal::bad_request(error.to_string()))
}

fn json_object(call: &Call) -> Result<Map<String, Value>, Refusal> {
    call.json_object()
        .ok_or_else(|| Refusal::bad_request("the body is not a JSON object"))
}

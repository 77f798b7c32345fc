//! The hub's HTTPS plane: permissions, and dispatch (contract section 12).

use std::sync::Arc;

use time::OffsetDateTime;

use super::{HubRefusal, identities, jobs, methods};
use crate::cloud::Cloud;
use crate::operation::Operation;
use crate::sas;
use crate::wire::{Call, Reply};

/// Longest body; the contract gives none, DPS's own limit does.
const BODY_LENGTH_MAX: usize = 256 * 1024;

/// Answer a call that leads to this plane.
pub(crate) async fn answer(cloud: &Arc<Cloud>, operation: Option<Operation>, call: &Call) -> Reply {
    let answer = served(cloud, operation, call).await;
    answer.unwrap_or_else(|refusal| refusal.reply())
}

async fn served(
    cloud: &Arc<Cloud>,
    operation: Option<Operation>,
    call: &Call,
) -> Result<Reply, HubRefusal> {
    let unknown = || HubRefusal::new(404, "InvalidOperation", "no such address");
    let operation = operation.ok_or_else(unknown)?;
    check_api_version(call)?;
    let hub = cloud.hosts.hub(&call.host);
    let (id, job) = (call.segment(1), call.segment(2));
    if operation == Operation::DeviceMessage {
        return message(cloud, hub, id, call);
    }
    authorize(cloud, hub, call)?;
    if call.body.len() > BODY_LENGTH_MAX {
        return Err(HubRefusal::argument("the message is too long"));
    }
    match operation {
        Operation::IdentityGet => identities::get(cloud, hub, id),
        Operation::IdentityPut => identities::put(cloud, hub, id, call),
        Operation::IdentityDelete => identities::delete(cloud, hub, id, call),
        Operation::TwinGet => identities::twin(cloud, hub, id),
        Operation::DeviceQuery => jobs::query_devices(cloud, hub, call),
        Operation::DirectMethod => methods::invoke(cloud, hub, id, call).await,
        Operation::JobPut => jobs::create(cloud, hub, job, call),
        Operation::JobGet => jobs::get(cloud, hub, job),
        Operation::JobCancel => jobs::cancel(cloud, hub, job),
        Operation::JobQuery => Ok(jobs::query(cloud, hub, call)),
        _ => Err(unknown()),
    }
}

/// A device sends a message: the only way to observe over HTTPS whether the hub accepts it.
fn message(cloud: &Cloud, hub: &str, id: &str, call: &Call) -> Result<Reply, HubRefusal> {
    let leaf = call.presented.as_ref().ok().and_then(|chain| chain.first());
    let leaf = leaf.ok_or_else(HubRefusal::unauthorized)?;
    let now = cloud.now();
    let admits = cloud.read(|world| world.hubs.get(hub).is_some_and(|hub| hub.admits(id, leaf)));
    match admits && leaf.is_valid_at(now) {
        true => Ok(Reply::empty()),
        false => Err(HubRefusal::unauthorized()),
    }
}

/// SAS or a bearer token (contract section 12).
fn authorize(cloud: &Cloud, hub: &str, call: &Call) -> Result<(), HubRefusal> {
    let header = call
        .header("authorization")
        .ok_or_else(HubRefusal::unauthorized)?;
    if let Some(token) = header.strip_prefix("Bearer ") {
        return match crate::entra::opens(cloud, token, crate::entra::Scope::Hub) {
            true => Ok(()),
            false => Err(HubRefusal::unauthorized()),
        };
    }
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let policy = cloud.read(|world| world.hub_policy.clone());
    let judge = |host: &str| sas::check(header, &policy, host, &call.path, now);
    judge(hub).or_else(|_| judge(&call.host)).map_err(|reason| {
        tracing::debug!(%reason, "the hub refused a token");
        HubRefusal::unauthorized()
    })
}

/// The sentence is the one of contract section 1.
fn check_api_version(call: &Call) -> Result<(), HubRefusal> {
    const KNOWN: [&str; 5] = [
        "2018-06-30",
        "2019-10-01",
        "2020-03-13",
        "2020-09-30",
        "2021-04-12",
    ];
    match call.query.get("api-version") {
        Some(version) if KNOWN.contains(&version.as_str()) => Ok(()),
        Some(version) => Err(HubRefusal::argument(format!(
            "Unknown api version; {version}"
        ))),
        None => Err(HubRefusal::argument("api-version is missing")),
    }
}

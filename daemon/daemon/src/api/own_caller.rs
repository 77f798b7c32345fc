//! Serves `/v1/caller`: as which caller a client is known, and what it may do.

use super::asks::Asks;
use crate::ca::authorize::{Authorized, Fetch, Inspect, Operate};
use crate::unix_seconds::UnixSeconds;
use axum::Json;
use schemars::JsonSchema;
use serde::Serialize;

/// A caller as the daemon knows it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Caller")]
pub(super) struct OwnCaller {
    /// Its role and name, as the journal has them.
    caller: String,
    /// Whether it may read everything.
    inspects: bool,
    /// Whether it may change things.
    operates: bool,
    /// The time of the daemon, in Unix seconds.
    now: UnixSeconds,
    version: &'static str,
}

pub(super) async fn show(
    Asks {
        api, permission, ..
    }: Asks<Fetch>,
) -> Json<OwnCaller> {
    let caller = permission.caller();
    Json(OwnCaller {
        caller: caller.to_string(),
        inspects: Authorized::<Inspect>::to_inspect(caller.clone()).is_ok(),
        operates: Authorized::<Operate>::to_operate(caller.clone()).is_ok(),
        now: api.ca.now(),
        version: env!("CARGO_PKG_VERSION"),
    })
}

//! `/v1/status`, and the two probes.

use super::Addresses;
use super::asks::{Asks, Open};
use super::problem::Problem;
use crate::ca::authorize::Inspect;
use crate::ca::status::Status;
use crate::ca::{Code, Error};
use axum::Json;
use schemars::JsonSchema;
use serde::Serialize;
use std::time::{Duration, Instant};

/// How long an answer of `/healthz` holds.
const HEALTH_PERIOD: Duration = Duration::from_secs(1);

/// Whether the store could be read, and when that was.
#[derive(Clone)]
pub(super) struct Health {
    at: Instant,
    failure: Option<Error>,
}

/// The application's state, and where it listens.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Status")]
pub(super) struct Shown {
    #[serde(flatten)]
    addresses: Addresses,
    #[serde(flatten)]
    status: Status,
}

pub(super) async fn show(Asks { api, .. }: Asks<Inspect>) -> Result<Json<Shown>, Problem> {
    let status = api.monitored().application(|ca| ca.status()).await?;
    Ok(Json(Shown {
        addresses: api.shared.addresses,
        status,
    }))
}

/// The process answers, and its store can be read. Open to all, so the store is read once in
/// [`HEALTH_PERIOD`], however many ask.
pub(super) async fn healthy(Open(api): Open) -> Result<&'static str, Problem> {
    let mut seen = api.shared.health.lock().await;
    let known = seen.clone().filter(|it| it.at.elapsed() < HEALTH_PERIOD);
    let health = match known {
        Some(health) => health,
        None => {
            let read = api.monitored().application(|ca| ca.alarms()).await;
            let failure = read.err().map(|problem| problem.error().clone());
            let at = Instant::now();
            seen.insert(Health { at, failure }).clone()
        }
    };
    match health.failure {
        None => Ok("ok\n"),
        Some(error) => Err(error.into()),
    }
}

/// Certificates can be issued at this moment.
pub(super) async fn ready(Open(api): Open) -> Result<&'static str, Problem> {
    if api.ca.is_ready() {
        return Ok("ready\n");
    }
    Err(Error::later(
        2,
        Code::NotReady,
        "certificates cannot be issued at the moment; `hallmark status` says why",
    )
    .into())
}

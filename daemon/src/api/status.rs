//! `/v1/status`, and the two probes.

use super::caller::Peer;
use super::problem::Problem;
use super::{Addresses, Api};
use crate::ca::Error;
use crate::ca::authorize::{Authorized, Inspect};
use crate::ca::status::Status;
use axum::Json;
use axum::extract::{Extension, State};
use serde::Serialize;

/// The application's state, and where it listens.
#[derive(Serialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    addresses: Addresses,
    #[serde(flatten)]
    status: Status,
}

pub(super) async fn show(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
) -> Result<Json<Shown>, Problem> {
    Authorized::<Inspect>::to_inspect(api.caller(&peer).await?)?;
    let status = api.application(|ca| ca.status()).await?;
    Ok(Json(Shown {
        addresses: api.shared.addresses,
        status,
    }))
}

/// The process answers, and its store can be read.
pub(super) async fn healthy(State(api): State<Api>) -> Result<&'static str, Problem> {
    api.application(|ca| ca.alarms()).await?;
    Ok("ok\n")
}

/// Certificates can be issued at this moment.
pub(super) async fn ready(State(api): State<Api>) -> Result<&'static str, Problem> {
    if api.ca.is_ready() {
        return Ok("ready\n");
    }
    Err(Error::later(
        2,
        "not_ready",
        "certificates cannot be issued at the moment; the alarms of `hallmark status` say why",
    )
    .into())
}

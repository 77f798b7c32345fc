//! `/v1/clock`: the machine's clock, when it is right and not believed.

use super::Api;
use super::caller::Peer;
use super::problem::Problem;
use crate::ca::authorize::{Authorized, Operate};
use crate::ca::rfc3339;
use axum::Json;
use axum::extract::{Extension, State};
use serde::Serialize;

/// What was accepted.
#[derive(Serialize)]
pub(super) struct Accepted {
    now: String,
}

pub(super) async fn accept(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
) -> Result<Json<Accepted>, Problem> {
    let permission = Authorized::<Operate>::to_operate(api.caller(&peer).await?)?;
    let now = api
        .application(move |ca| ca.accept_clock(&permission))
        .await?;
    Ok(Json(Accepted { now: rfc3339(now) }))
}

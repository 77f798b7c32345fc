//! `/v1/clock`: the machine's clock, when it is right and not believed.

use super::asks::Asks;
use super::problem::Problem;
use crate::ca::authorize::Operate;
use axum::Json;
use schemars::JsonSchema;
use serde::Serialize;

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AcceptedClock")]
pub(super) struct Accepted {
    now: String,
}

pub(super) async fn accept(
    Asks {
        api, permission, ..
    }: Asks<Operate>,
) -> Result<Json<Accepted>, Problem> {
    let now = api
        .application(move |ca| ca.issuer().accept_clock(&permission))
        .await?;
    Ok(Json(Accepted {
        now: now.to_string(),
    }))
}

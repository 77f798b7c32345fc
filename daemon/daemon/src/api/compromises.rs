//! Says what a compromise would change: `/v1/devices/{id}/compromise` and
//! `/v1/authorities/{name}/compromise`. It is started by `POST /v1/rolls` and by `POST
//! /v1/authorities/{name}/rolls`.

use super::asks::Asks;
use super::parts::{Path, Query};
use super::problem::Problem;
use crate::ca::authorize::Inspect;
use crate::ca::exclusion::plan::CompromisePlan;
use crate::ids::GenerationNumber;
use axum::Json;
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Which {
    /// The compromised generation; by default the one that serves.
    generation: Option<GenerationNumber>,
}

pub(super) async fn of_device(
    Asks { api, .. }: Asks<Inspect>,
    Path(id): Path<String>,
) -> Result<Json<CompromisePlan>, Problem> {
    let plan = api.application(move |ca| ca.exclusions().plan_of_device(&id));
    Ok(Json(plan.await?))
}

pub(super) async fn of_authority(
    Asks { api, .. }: Asks<Inspect>,
    Path(name): Path<String>,
    Query(which): Query<Which>,
) -> Result<Json<CompromisePlan>, Problem> {
    let plan =
        api.application(move |ca| ca.exclusions().plan_of_authority(&name, which.generation));
    Ok(Json(plan.await?))
}

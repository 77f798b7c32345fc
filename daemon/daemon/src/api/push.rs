//! `/v1/push`: changes that provisioning services do not show yet.

use super::PAGE_ROWS_MAX;
use super::asks::Asks;
use super::body::JsonBody;
use super::enrollments::Pending;
use super::problem::Problem;
use crate::ca::authorize::{Inspect, Operate};
use axum::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "WaitingChange")]
pub(super) struct Item {
    provisioning: String,
    name: String,
    #[serde(flatten)]
    pending: Pending,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Retry {
    /// One enrollment or CA certificate; all of them if left out.
    #[serde(default)]
    name: Option<String>,
}

/// How many were made due.
#[derive(Serialize, JsonSchema)]
pub(super) struct Retried {
    retried: usize,
}

pub(super) async fn list(Asks { api, .. }: Asks<Inspect>) -> Result<Json<Vec<Item>>, Problem> {
    let queue = api
        .application(|ca| Ok(ca.store().push_queue(PAGE_ROWS_MAX)?))
        .await?;
    let items = queue.into_iter().map(|(provisioning, name, mark)| Item {
        provisioning,
        name,
        pending: mark.into(),
    });
    Ok(Json(items.collect()))
}

pub(super) async fn retry(
    Asks {
        api, permission, ..
    }: Asks<Operate>,
    JsonBody(retry): JsonBody<Retry>,
) -> Result<Json<Retried>, Problem> {
    let retried = api
        .application(move |ca| ca.retry_push(&permission, retry.name))
        .await?;
    Ok(Json(Retried { retried }))
}

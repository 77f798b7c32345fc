//! `/v1/push`: changes that provisioning services do not show yet.

use super::body::JsonBody;
use super::caller::Peer;
use super::enrollments::Pending;
use super::problem::Problem;
use super::{Api, PAGE_ROWS_MAX};
use crate::ca::authorize::{Authorized, Inspect, Operate};
use axum::Json;
use axum::extract::{Extension, State};
use serde::{Deserialize, Serialize};

#[derive(Serialize)]
pub(super) struct Item {
    provisioning: String,
    name: String,
    #[serde(flatten)]
    pending: Pending,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retry {
    /// One enrollment or CA certificate; all of them if left out.
    #[serde(default)]
    name: Option<String>,
}

/// How many were made due.
#[derive(Serialize)]
pub(super) struct Retried {
    retried: usize,
}

pub(super) async fn list(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
) -> Result<Json<Vec<Item>>, Problem> {
    Authorized::<Inspect>::to_inspect(api.caller(&peer).await?)?;
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
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    JsonBody(retry): JsonBody<Retry>,
) -> Result<Json<Retried>, Problem> {
    let permission = Authorized::<Operate>::to_operate(api.caller(&peer).await?)?;
    let retried = api
        .application(move |ca| ca.retry_push(&permission, retry.name))
        .await?;
    Ok(Json(Retried { retried }))
}

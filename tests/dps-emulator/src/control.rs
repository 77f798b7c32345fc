//! The control address, for tests of another program. Plain HTTP, no authentication; keep it on
//! loopback. The library offers the same without HTTP ([`crate::Emulator`]).

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::cloud::Cloud;
use crate::enrollment::Kind;
use crate::entra::EntraClient;
use crate::faults::Fault;
use crate::hub::presence::MethodAnswer;
use crate::options::Switches;
use crate::{ids, views};

/// The router of the control listener.
pub(crate) fn router(cloud: Arc<Cloud>) -> Router {
    Router::new()
        .route("/health", get(|| async { Json(json!({ "ok": true })) }))
        .route("/clock", get(clock).put(set_clock).delete(reset_clock))
        .route("/requests", get(requests).delete(clear_requests))
        .route("/counters", get(counters))
        .route("/faults", get(faults).post(add_fault).delete(clear_faults))
        .route("/switches", get(switches).put(set_switches))
        .route("/world", get(world))
        .route("/records/{kind}/{id}", post(edit))
        .route("/devices/{id}", put(simulate).delete(forget))
        .route("/clients", post(add_client))
        .with_state(cloud)
}

type Shared = State<Arc<Cloud>>;

/// A request of the control address that makes no sense.
fn bad_request(message: impl Into<String>) -> Response {
    (
        StatusCode::BAD_REQUEST,
        Json(json!({ "message": message.into() })),
    )
        .into_response()
}

async fn clock(State(cloud): Shared) -> Response {
    let now = cloud.now().format(&Rfc3339).unwrap_or_default();
    Json(json!({ "now": now })).into_response()
}

/// One of the three; a stopped clock needs `at`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockSetting {
    at: Option<String>,
    #[serde(default)]
    stopped: bool,
    offset_seconds: Option<i64>,
    advance_seconds: Option<i64>,
}

async fn set_clock(State(cloud): Shared, Json(setting): Json<ClockSetting>) -> Response {
    let at = match setting
        .at
        .as_deref()
        .map(|text| OffsetDateTime::parse(text, &Rfc3339))
    {
        Some(Err(error)) => return bad_request(error.to_string()),
        Some(Ok(at)) => Some(at),
        None => None,
    };
    match (at, setting.offset_seconds, setting.advance_seconds) {
        (Some(at), None, None) if setting.stopped => cloud.clock.stop_at(at),
        (Some(at), None, None) => cloud.clock.set(at),
        (None, Some(seconds), None) => cloud.clock.set_offset(Duration::seconds(seconds)),
        (None, None, Some(seconds)) => cloud.clock.advance(Duration::seconds(seconds)),
        _ => return bad_request("give one of at, offset_seconds, advance_seconds"),
    }
    clock(State(cloud)).await
}

async fn reset_clock(State(cloud): Shared) -> Response {
    cloud.clock.reset();
    clock(State(cloud)).await
}

#[derive(Debug, Deserialize)]
struct Since {
    #[serde(default)]
    since: u64,
}

async fn requests(State(cloud): Shared, Query(Since { since }): Query<Since>) -> Response {
    Json(cloud.journal.since(since)).into_response()
}

async fn clear_requests(State(cloud): Shared) -> StatusCode {
    cloud.journal.clear();
    StatusCode::NO_CONTENT
}

async fn counters(State(cloud): Shared) -> Response {
    Json(cloud.journal.counts()).into_response()
}

async fn faults(State(cloud): Shared) -> Response {
    Json(cloud.faults.waiting()).into_response()
}

async fn add_fault(State(cloud): Shared, Json(fault): Json<Fault>) -> Response {
    match cloud.faults.add(fault) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => bad_request(error.to_string()),
    }
}

async fn clear_faults(State(cloud): Shared) -> StatusCode {
    cloud.faults.clear();
    StatusCode::NO_CONTENT
}

async fn switches(State(cloud): Shared) -> Response {
    Json(cloud.switches()).into_response()
}

/// Set the given switches; the others stay.
async fn set_switches(State(cloud): Shared, Json(sent): Json<Map<String, Value>>) -> Response {
    let mut merged = json!(cloud.switches());
    for (name, value) in sent {
        merged[name] = value;
    }
    match serde_json::from_value::<Switches>(merged) {
        Ok(merged) => {
            cloud.switch(|own| *own = merged);
            switches(State(cloud)).await
        }
        Err(error) => bad_request(error.to_string()),
    }
}

async fn world(State(cloud): Shared) -> Response {
    Json(views::world(&cloud)).into_response()
}

/// Edit a record behind the clients' backs: the given members are set, its ETag changes.
async fn edit(
    State(cloud): Shared,
    Path((kind, id)): Path<(Kind, String)>,
    Json(merge): Json<Map<String, Value>>,
) -> Response {
    match views::edit(&cloud, kind, &id, merge) {
        Ok(record) => Json(record).into_response(),
        Err(message) => bad_request(message),
    }
}

/// The hub that is meant; the first one if the request names none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AtHub {
    hub: Option<String>,
}

impl AtHub {
    fn host<'a>(&'a self, cloud: &'a Cloud) -> &'a str {
        cloud.hosts.hub(self.hub.as_deref().unwrap_or_default())
    }
}

/// Let a device be online.
async fn simulate(
    State(cloud): Shared,
    Path(id): Path<String>,
    Query(at): Query<AtHub>,
    Json(answer): Json<MethodAnswer>,
) -> Response {
    if !ids::is_hub_device_id(&id) {
        return bad_request("the device id is not valid");
    }
    cloud.presence.simulate(at.host(&cloud), &id, answer);
    StatusCode::NO_CONTENT.into_response()
}

async fn forget(
    State(cloud): Shared,
    Path(id): Path<String>,
    Query(at): Query<AtHub>,
) -> StatusCode {
    cloud.presence.remove(at.host(&cloud), &id);
    StatusCode::NO_CONTENT
}

/// Let an application ask the token endpoint.
async fn add_client(State(cloud): Shared, Json(client): Json<EntraClient>) -> Response {
    match cloud.change(|world| world.directory.register(client)) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => bad_request(error.to_string()),
    }
}

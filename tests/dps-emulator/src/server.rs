//! Translates HTTP to a [`Call`], and an answer to HTTP. `exchange` runs in between.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use serde_json::Value;

use crate::certificate::Certificate;
use crate::cloud::Cloud;
use crate::exchange::{self, Ending};
use crate::faults::Target;
use crate::journal::{self, LoggedRequest};
use crate::listener::{Cut, Peer};
use crate::operation::Operation;
use crate::plane::{Plane, host_without_port};
use crate::refusal::Refusal;
use crate::truncated::HalfBody;
use crate::wire::{self, Call, Reply};
use crate::{arm, dates, device, entra, hub, mqtt, service};

/// The router of the HTTPS listener: everything leads to [`serve`], but what becomes MQTT.
pub(crate) fn router(cloud: Arc<Cloud>) -> Router {
    Router::new()
        .route(mqtt::WEBSOCKET_PATH, get(websocket))
        .fallback(serve)
        .with_state(cloud)
}

async fn websocket(
    State(cloud): State<Arc<Cloud>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    upgrade: WebSocketUpgrade,
) -> Response {
    mqtt::upgrade(upgrade, peer, cloud)
}

/// One request, from its first byte to its answer.
async fn serve(
    State(cloud): State<Arc<Cloud>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response {
    let Some(call) = read(&peer, request).await else {
        return plain(StatusCode::BAD_REQUEST);
    };
    let shape = call.shape();
    let plane = cloud.hosts.plane(&call.host, &shape);
    let operation = plane.and_then(|plane| Operation::find(plane, &call.method, &shape));
    let name = operation.map_or("unknown", Operation::name);
    let target = Target {
        plane,
        host: &call.host,
        operation: name,
        method: &call.method,
        path: &call.path,
    };
    let act = dispatch(&cloud, plane, operation, &call);
    match exchange::run(&cloud, logged(&cloud, name, &call), &target, act).await {
        Ending::Whole(reply) => written(&reply),
        Ending::Half(reply) => truncated(&reply),
        Ending::Cut => reset(&peer.cut),
        Ending::Silence => std::future::pending().await,
    }
}

async fn dispatch(
    cloud: &Arc<Cloud>,
    plane: Option<Plane>,
    operation: Option<Operation>,
    call: &Call,
) -> Reply {
    match plane {
        Some(Plane::Service) => service::answer(cloud, operation, call),
        Some(Plane::Device) => device::answer(cloud, operation, call),
        Some(Plane::Arm) => arm::answer(cloud, operation, call),
        Some(Plane::Hub) => hub::answer(cloud, operation, call).await,
        Some(Plane::Entra) => entra::answer(cloud, operation, call),
        None => Refusal::no_such_operation().reply(cloud.now()),
    }
}

async fn read(peer: &Peer, request: Request) -> Option<Call> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, wire::BODY_LENGTH_MAX)
        .await
        .ok()?;
    let path = parts.uri.path().to_owned();
    Some(Call {
        method: parts.method,
        host: host(&parts.uri, &parts.headers),
        segments: wire::segments(&path)?,
        path,
        query: wire::fields(parts.uri.query().unwrap_or_default()),
        headers: parts.headers,
        body: body.to_vec(),
        presented: peer.certificates(),
    })
}

fn host(uri: &axum::http::Uri, headers: &HeaderMap) -> String {
    let header = headers
        .get(header::HOST)
        .and_then(|value| value.to_str().ok());
    host_without_port(header.or_else(|| uri.host()).unwrap_or_default())
}

fn logged(cloud: &Cloud, operation: &'static str, call: &Call) -> LoggedRequest {
    let leaf = call.presented.as_ref().ok().and_then(|chain| chain.first());
    LoggedRequest {
        sequence: 0,
        at: dates::seven_digits(cloud.now()),
        transport: "HTTPS",
        operation,
        method: call.method.to_string(),
        host: call.host.clone(),
        path: call.path.clone(),
        if_match: call.header("if-match").map(str::to_owned),
        traceparent: call.header("traceparent").map(str::to_owned),
        tracestate: call.header("tracestate").map(str::to_owned),
        body: journal::kept_body(&call.body),
        client: leaf.map(Certificate::sha256),
        status: None,
        fault: None,
    }
}

fn plain(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// The answer that is never sent: the connection fails at its first byte.
fn reset(cut: &Cut) -> Response {
    cut.now();
    plain(StatusCode::INTERNAL_SERVER_ERROR)
}

fn written(reply: &Reply) -> Response {
    let bytes = body_bytes(reply);
    let mut response = head(reply);
    *response.body_mut() = Body::from(bytes);
    response
}

/// Half of the body under a `Content-Length` that promises all of it.
fn truncated(reply: &Reply) -> Response {
    let bytes = body_bytes(reply);
    let mut response = head(reply);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    *response.body_mut() = Body::new(HalfBody::new(bytes));
    response
}

fn head(reply: &Reply) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = plain(status);
    let headers = response.headers_mut();
    if reply.body.as_ref().is_some_and(|body| !body.is_string()) {
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, json);
    }
    for (name, value) in &reply.headers {
        match (
            HeaderName::try_from(name.as_ref()),
            HeaderValue::try_from(value),
        ) {
            (Ok(name), Ok(value)) => drop(headers.insert(name, value)),
            _ => tracing::warn!(%name, "a header was left out"),
        }
    }
    response
}

/// A string is no answer of any plane: a fault sends it as it is.
fn body_bytes(reply: &Reply) -> Bytes {
    match &reply.body {
        None => Bytes::new(),
        Some(Value::String(text)) => Bytes::from(text.clone()),
        Some(json) => Bytes::from(json.to_string()),
    }
}

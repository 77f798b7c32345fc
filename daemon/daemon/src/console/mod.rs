//! Serves the console: web pages for operators and auditors, below `/console/`.
//!
//! The console is a client of the API within the process: a page asks the same routes as a program
//! would, in the name of the caller whose browser asked for the page ([`visit`]). So it has the
//! permissions, limits and refusals of the API, and each refusal is audited there. No page reads
//! the application or the store. Pages are askama templates (`templates/`), complete without
//! script; the scripts in `assets/` refresh what moves, copy, and count times down.

mod actions;
mod api_reference;
mod approvals;
mod assets;
mod audit;
mod blocks;
mod certificates;
mod cloud;
mod components;
mod compromise;
mod devices;
mod events;
mod expiry;
mod headers;
mod hierarchy;
mod overview;
mod refused;
mod rolls;
mod schema_shown;
mod slots;
mod table;
mod timeline;
mod tokens;
mod visit;

use actions::FormTokens;
use axum::Router;
use axum::middleware::map_response;
use axum::routing::{get, post};
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};

/// The state of the pages.
#[derive(Clone)]
struct Console {
    /// All routes of the API.
    api: Router,
    tokens: FormTokens,
    /// Places for pages that wait for events.
    streams: Arc<Semaphore>,
    /// True when the daemon stops.
    stop: watch::Receiver<bool>,
}

/// Pages of one listener that may wait for events.
const STREAMS_MAX: usize = 32;

/// Returns the routes of `api` and those of the console, whose pages ask `api`, until `stop` turns
/// true.
pub fn with_console(api: Router, stop: watch::Receiver<bool>) -> Router {
    let console = Console {
        api: api.clone(),
        tokens: FormTokens::new(),
        streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        stop,
    };
    let pages = Router::new()
        .route("/console", get(overview::show))
        .route("/console/", get(overview::show))
        .route("/console/devices", get(devices::list))
        .route("/console/devices/{id}", get(devices::show))
        .route("/console/certificates", get(certificates::list))
        .route("/console/certificates.csv", get(certificates::csv))
        .route("/console/certificates/{digits}", get(certificates::show))
        .route("/console/hierarchy", get(hierarchy::show))
        .route("/console/rolls", get(rolls::list).post(actions::start_roll))
        .route("/console/rolls/{id}", get(rolls::show))
        .route("/console/rolls/{id}/approve", post(actions::approve))
        .route("/console/rolls/{id}/abort", post(actions::abort))
        .route("/console/blocks", get(blocks::list).post(actions::block))
        .route(
            "/console/compromise/device/{id}",
            get(compromise::ask_device).post(compromise::report_device),
        )
        .route(
            "/console/compromise/generation/{name}/{number}",
            get(compromise::ask_generation).post(compromise::report_generation),
        )
        .route("/console/lifted", post(actions::lift))
        .route("/console/retried", post(actions::retry))
        .route("/console/blocks/{kind}/{name}", get(blocks::show))
        .route("/console/approvals", get(approvals::list))
        .route("/console/approvals/{id}", get(approvals::show))
        .route("/console/approvals/{id}/document", get(approvals::document))
        .route("/console/approvals/{id}/signature", post(approvals::sign))
        .route("/console/approvals/{id}/rejection", post(approvals::reject))
        .route("/console/approvals/{id}/done", post(approvals::perform))
        .route("/console/events", get(events::stream))
        .route("/console/expiry", get(expiry::show))
        .route("/console/cloud", get(cloud::show))
        .route("/console/audit", get(audit::list))
        .route("/console/audit.ndjson", get(audit::export))
        .route("/console/audit/verification", get(audit::verify))
        .route("/console/tokens", get(tokens::list))
        .route("/console/tokens/{name}", get(tokens::show))
        .route("/console/api", get(api_reference::list))
        .route("/console/api/{id}", get(api_reference::show))
        .route("/console/openapi.json", get(api_reference::file))
        .route("/console/{*page}", get(refused::no_such_page))
        .layer(map_response(headers::for_pages))
        .route("/console/assets/{name}", get(assets::serve))
        .with_state(console);
    api.merge(pages)
}

//! Serves the console: web pages for operators and auditors, below `/console/`.
//!
//! The console is a client of the API within the process: a page asks the same routes as a program
//! would, in the name of the caller whose browser asked for the page ([`visit`]). So it has the
//! permissions, limits and refusals of the API, and each refusal is audited there. No page reads
//! the application or the store. Pages are askama templates (`templates/`), complete without
//! script; the scripts in `assets/` refresh what moves, copy, and count times down.

mod assets;
mod components;
mod headers;
mod overview;
mod refused;
mod tokens;
mod visit;

use axum::Router;
use axum::middleware::map_response;
use axum::routing::get;

/// The state of the pages.
#[derive(Clone)]
struct Console {
    /// All routes of the API.
    api: Router,
}

/// Returns the routes of `api` and those of the console, whose pages ask `api`.
pub fn with_console(api: Router) -> Router {
    let console = Console { api: api.clone() };
    let pages = Router::new()
        .route("/console", get(overview::show))
        .route("/console/", get(overview::show))
        .route("/console/tokens", get(tokens::list))
        .route("/console/tokens/{name}", get(tokens::show))
        .route("/console/{*page}", get(refused::no_such_page))
        .layer(map_response(headers::for_pages))
        .route("/console/assets/{name}", get(assets::serve))
        .with_state(console);
    api.merge(pages)
}

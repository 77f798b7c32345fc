//! Serves `/openapi.json`: the routes, their parameters, bodies, answers and codes, as OpenAPI 3.1.
//!
//! Types come from the signatures of the handlers ([`handler`]), so they cannot differ from what is
//! read and written; [`routes`] adds what no type says. It is made for each request that asks for
//! it, because few do, and nothing of it is kept.

mod access;
mod access_table;
mod examples;
mod handler;
mod operation;
mod problems;
mod routes;
mod schemas;
mod statuses;

use super::asks::Asks;
use super::problem::Problem;
use crate::ca::authorize::Inspect;
use axum::Json;
use examples::Examples;
use operation::Operation;
use schemas::Schemas;
use serde_json::{Map, Value, json};

pub(super) use access::Access;
pub use access_table::access_table;

/// An OpenAPI document (OpenAPI Specification 3.1.1).
#[derive(serde::Serialize, schemars::JsonSchema)]
#[serde(transparent)]
#[schemars(rename = "OpenApi")]
pub(super) struct Document(Map<String, Value>);

pub(super) async fn show(Asks { api, .. }: Asks<Inspect>) -> Result<Json<Document>, Problem> {
    Ok(Json(api.application(|_| Ok(document())).await?))
}

/// All routes, in the order of docs/api.md, and the types of their bodies and answers.
fn described() -> (Vec<Operation>, Schemas) {
    let mut schemas = Schemas::new();
    let operations = routes::all(&mut schemas);
    (operations, schemas)
}

fn document() -> Document {
    let (operations, schemas) = described();
    let examples = Examples::recorded();
    let mut tags: Vec<&str> = operations.iter().map(|it| it.tag).collect();
    tags.dedup();
    let tags: Vec<_> = tags.iter().map(|name| json!({ "name": name })).collect();
    let mut paths = Map::new();
    for operation in &operations {
        let path = paths.entry(operation.path()).or_insert_with(|| json!({}));
        path[operation.method] = operation.document(&examples);
    }
    let mut codes: Vec<_> = operations.iter().flat_map(Operation::codes).collect();
    codes.sort_unstable();
    codes.dedup();
    let document = json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Hallmark",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "The API of the certificate authority, EST, and published files",
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [
            {
                "url": "https://{host}:{port}",
                "description": "The HTTPS listener, `[listen] https` of the configuration.",
                "variables": {
                    "host": { "default": "localhost" },
                    "port": { "default": "8443" },
                },
            },
            {
                "url": "http://localhost",
                "description": "The admin socket: HTTP over a Unix socket on the machine itself.",
            },
        ],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas.definitions(),
            "examples": problems::examples(&codes),
            "securitySchemes": access::schemes(),
        },
    });
    match document {
        Value::Object(members) => Document(members),
        _ => Document(Map::new()),
    }
}

/// The rules of all routes, in CommonMark.
const ABOUT: &str = "\
A body has 64 KiB at most (a batch 1 MiB) and arrives within ten seconds. Lists come in pages of \
at most 1,000 rows. A refusal is a problem document (RFC 9457) with a stable `code`; 503 has \
`Retry-After`. An address that is not listed here answers 404 `route_unknown`, and a method that \
an address does not take 405 `method_not_allowed` with `Allow`. A caller without permission is \
refused before its path, query and body are read. docs/operations.md gives cause and remedy of \
each code.";

/// Each route with its method and the callers that may use it.
#[cfg(test)]
pub(super) fn accesses() -> Vec<(&'static str, String, Access)> {
    let (operations, _) = described();
    let each = operations
        .iter()
        .map(|it| (it.method, it.path(), it.access));
    each.collect()
}

#[cfg(test)]
mod tests;

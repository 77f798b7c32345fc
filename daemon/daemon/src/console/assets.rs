//! Serves style sheet and scripts, each below a name with its digest: a browser keeps it until it
//! changes.

use super::refused::Refused;
use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use std::sync::LazyLock;

/// A file that pages name.
struct Asset {
    /// The name with the digest.
    name: String,
    content_type: &'static str,
    content: &'static str,
}

impl Asset {
    fn new(name: &str, content_type: &'static str, content: &'static str) -> Self {
        let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
        let sha256 = hex::encode(digest(&SHA256, content.as_bytes()));
        Self {
            name: format!("{stem}.{}.{extension}", &sha256[..12]),
            content_type,
            content,
        }
    }
}

static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    let content = include_str!("assets/console.css");
    Asset::new("console.css", "text/css; charset=utf-8", content)
});
static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    let content = include_str!("assets/console.js");
    Asset::new("console.js", "text/javascript; charset=utf-8", content)
});
/// htmx, unchanged; its licence is beside it.
static HTMX: LazyLock<Asset> = LazyLock::new(|| {
    let content = include_str!("assets/htmx-2.0.11.min.js");
    Asset::new("htmx.js", "text/javascript; charset=utf-8", content)
});

/// Returns the address of the style sheet.
pub(super) fn style() -> &'static str {
    &STYLE.name
}

/// Returns the name of the script of our own.
pub(super) fn script() -> &'static str {
    &SCRIPT.name
}

/// Returns the name of htmx.
pub(super) fn htmx() -> &'static str {
    &HTMX.name
}

/// Serves a file to every client: it says nothing of this daemon but its version.
pub(super) async fn serve(Path(name): Path<String>) -> Result<Response, Refused> {
    let all = [&STYLE, &SCRIPT, &HTMX];
    let asset = all.into_iter().find(|it| it.name == name);
    let asset = asset.ok_or_else(Refused::no_such_page)?;
    let headers = [
        (CONTENT_TYPE, asset.content_type),
        (CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, asset.content).into_response())
}

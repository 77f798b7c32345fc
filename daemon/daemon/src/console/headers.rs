//! Sets the headers of every page.

use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::Response;

/// No page loads or sends anything elsewhere, runs an inline script or is shown in a frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
                      img-src 'self' data:; connect-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";

/// With `no-referrer` a browser sends a form with `Origin: null` (Fetch, "append a request Origin
/// header"), which is refused as another site's.
const REFERRER: &str = "same-origin";

/// A page shows the state of one moment to one caller, so no cache keeps it.
pub(super) async fn for_pages(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let set = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, REFERRER),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in set {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

//! Refuses requests that a page of another site has a browser send. The browser presents the client
//! certificate of its user with them, who does not know of them.
//!
//! Browsers say where a request comes from by `Sec-Fetch-Site` and `Origin`; other clients send
//! neither.

use super::client::is_of_this_origin;
use super::problem::Problem;
use crate::ca::{Code, Error};
use axum::extract::Request;
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Answers a request unless it would change something for a page of another site.
pub(super) async fn refuse_other_sites(request: Request, next: Next) -> Response {
    match judge(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => Problem::from(refused).into_response(),
    }
}

fn judge(method: &Method, headers: &HeaderMap) -> Result<(), Error> {
    if method.is_safe() || is_of_this_origin(headers) {
        return Ok(());
    }
    let message = "a page of another site has sent this request in the name of the browser's user; \
                   send it by `hallmark`, or by a page of the console";
    Err(Error::forbidden(Code::CrossSiteRequest, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn another_site_may_look_and_change_nothing() {
        let cross_site = HeaderValue::from_static("cross-site");
        let headers = HeaderMap::from_iter([("sec-fetch-site".parse().unwrap(), cross_site)]);
        for method in [Method::POST, Method::DELETE, Method::PUT] {
            let refused = judge(&method, &headers).unwrap_err();
            assert_eq!(refused.code, Code::CrossSiteRequest, "{method}");
            assert!(judge(&method, &HeaderMap::new()).is_ok());
        }
        assert!(judge(&Method::GET, &headers).is_ok());
    }
}

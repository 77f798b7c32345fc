//! Answers requests that no route takes: an unknown address (404), or another method (405).

use super::problem::Problem;
use crate::ca::{Code, Error};
use axum::http::header::ALLOW;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

/// Says what is wrong with an address that nothing is at.
pub(super) async fn unknown_address(address: Uri) -> Problem {
    missing(what_to_do(address.path()))
}

/// The same for plain HTTP.
pub(super) async fn not_over_http() -> Problem {
    missing(
        "plain HTTP serves /crl/NAME.crl, /ca/NAME.cer and /ocsp/AUTHORITY and nothing else; EST \
         and the API are at the HTTPS listener",
    )
}

fn what_to_do(path: &str) -> &'static str {
    if path.contains("//") {
        return "there is nothing at this address: a part between two slashes is empty; fill it in, \
                or leave out one slash";
    }
    if path.len() > 1 && path.ends_with('/') {
        return "there is nothing at this address, which ends with a slash; leave that slash out";
    }
    if path.starts_with("/.well-known/est") {
        return "EST has cacerts, csrattrs, simpleenroll, simplereenroll and serverkeygen here, at \
                /.well-known/est/OPERATION and /.well-known/est/PROFILE/OPERATION; it has no other \
                operation";
    }
    "there is nothing at this address; see docs/operations.md"
}

fn missing(message: &str) -> Problem {
    Error::missing(Code::RouteUnknown, message).into()
}

/// Gives the answer to a method that an address does not take a body that names the others. The
/// router has set `Allow` (RFC 9110 section 15.5.6).
pub(super) fn explain_method(method: &Method, answer: Response) -> Response {
    if answer.status() != StatusCode::METHOD_NOT_ALLOWED {
        return answer;
    }
    let Some(allow) = answer.headers().get(ALLOW).cloned() else {
        return answer;
    };
    let methods = allow.to_str().unwrap_or_default().replace(',', ", ");
    let message = format!("this address does not take {method}; it takes {methods}");
    let error = Error::invalid(Code::MethodNotAllowed, message);
    let problem = Problem::with_status(StatusCode::METHOD_NOT_ALLOWED, error);
    let mut answer = problem.into_response();
    answer.headers_mut().insert(ALLOW, allow);
    answer
}

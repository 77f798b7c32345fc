//! Shows a refusal or failure of the API as a page.

use super::visit::Frame;
use askama::Template;
use axum::body::to_bytes;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use serde::Deserialize;

/// The largest problem document that is read, in bytes.
const PROBLEM_BYTES_MAX: usize = 64 * 1024;

/// An answer of the API that is no success (RFC 9457), with its status.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    problem: Problem,
}

/// The members of a problem document that a page shows.
#[derive(Debug, Default, Deserialize)]
struct Problem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    detail: String,
    /// The request for an approval that waits, if there is one.
    #[serde(default)]
    approval: Option<Waiting>,
}

/// A request for an approval.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Waiting {
    id: i64,
}

#[derive(Template)]
#[template(path = "refused.html")]
struct Page {
    frame: Frame,
    status: u16,
    code: String,
    detail: String,
    approval: Option<Waiting>,
}

impl Refused {
    /// The answer of the API, by its body.
    pub(super) fn of(status: StatusCode, body: &[u8]) -> Self {
        let problem = serde_json::from_slice(body).unwrap_or_default();
        Self { status, problem }
    }

    /// An answer of the API that this version of the console cannot read.
    pub(super) fn unreadable(what: &str, error: &impl ToString) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            format!("{what} cannot be shown: {}", error.to_string()),
        )
    }

    /// A form that does not come from a page of ours.
    pub(super) fn forged() -> Self {
        let detail = "the form does not come from a page of this console, or the daemon was \
                      started since; open the page again, and repeat it";
        Self::new(StatusCode::FORBIDDEN, "", detail.into())
    }

    /// Fails with the answer of the API unless it is a success.
    pub(super) async fn unless_success(response: Response) -> Result<(), Self> {
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let body = to_bytes(response.into_body(), PROBLEM_BYTES_MAX).await;
        Err(Self::of(status, &body.unwrap_or_default()))
    }

    /// More pages wait for events than may.
    pub(super) fn too_many(most: usize) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let detail = format!("{most} pages are open that follow the state; close one");
        Self::new(status, "too_many_requests_in_flight", detail)
    }

    /// A page that does not exist.
    pub(super) fn no_such_page() -> Self {
        let detail = "there is no such page; the console begins at /console";
        Self::new(StatusCode::NOT_FOUND, "route_unknown", detail.into())
    }

    fn new(status: StatusCode, code: &str, detail: String) -> Self {
        let code = code.to_owned();
        let problem = Problem {
            code,
            detail,
            approval: None,
        };
        Self { status, problem }
    }

    /// Whether there is no such thing.
    pub(super) fn is_missing(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    /// Whether other criteria would get an answer.
    pub(super) fn is_of_input(&self) -> bool {
        self.is_missing() || self.status == StatusCode::BAD_REQUEST
    }

    /// The sentence of the answer.
    pub(super) fn detail(self) -> String {
        self.problem.detail
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let page = Page {
            frame: Frame::without_caller("Refused"),
            status: self.status.as_u16(),
            code: self.problem.code,
            detail: self.problem.detail,
            approval: self.problem.approval,
        };
        (self.status, Html(page.to_string())).into_response()
    }
}

/// Answers an address below `/console/` that has no page.
pub(super) async fn no_such_page() -> Refused {
    Refused::no_such_page()
}

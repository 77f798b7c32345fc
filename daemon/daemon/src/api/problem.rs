//! Maps errors to HTTP, in this one place: problem documents (RFC 9457) with stable codes.

use crate::ca::{Advice, Code, Error};
use crate::ids::ApprovalId;
use crate::unix_seconds::UnixSeconds;
use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

/// The challenge of HTTP Basic (RFC 7617, section 2).
const BASIC: &str = "Basic realm=\"hallmark\", charset=\"UTF-8\"";

/// An error as a client sees it.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    error: Error,
    about: Option<About>,
    /// The client may authenticate by HTTP Basic.
    takes_basic: bool,
    waits_for: Option<Box<WaitsFor>>,
}

/// The request for an approval that an action waits for.
#[derive(Debug, Serialize, JsonSchema)]
struct WaitsFor {
    id: ApprovalId,
    /// Hex SHA-256 of the bytes that an approver signs.
    sha256: String,
    expires_at: String,
}

/// The subject and profile of a refused request for a certificate.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) subject: String,
    pub(super) profile: Option<String>,
}

/// A refusal, as `api::refusals` audits it.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) error: Error,
    pub(super) about: Option<About>,
}

/// The refusals of one request, in the extensions of its response. Only a batch has several.
#[derive(Clone, Debug)]
pub(super) struct Refusals(pub(super) Vec<Refusal>);

impl Refusals {
    /// Returns those of `problems` that are refusals.
    pub(super) fn of(problems: impl IntoIterator<Item = Problem>) -> Self {
        let refused = problems.into_iter().filter(|it| it.error.is_refusal());
        let refusals = refused.map(|problem| Refusal {
            status: problem.status,
            error: problem.error,
            about: problem.about,
        });
        Self(refusals.collect())
    }
}

/// The body: RFC 9457 members, and `code` for programs.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(super) struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    code: Code,
    detail: &'a str,
    /// With `approval_required`: the request that waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<&'a WaitsFor>,
}

impl Problem {
    /// A problem whose status says more than the advice does (413, 415).
    pub fn with_status(status: StatusCode, error: Error) -> Self {
        Self {
            status,
            error,
            about: None,
            takes_basic: false,
            waits_for: None,
        }
    }

    /// Names the request for an approval that waits.
    pub(super) fn with_approval(
        self,
        id: ApprovalId,
        sha256: String,
        expires_at: UnixSeconds,
    ) -> Self {
        let waits_for = WaitsFor {
            id,
            sha256,
            expires_at: expires_at.to_string(),
        };
        Self {
            waits_for: Some(Box::new(waits_for)),
            ..self
        }
    }

    /// Says that the client may authenticate by HTTP Basic instead (RFC 7030, section 3.2.3).
    pub(super) fn or_by_basic(self) -> Self {
        Self {
            takes_basic: true,
            ..self
        }
    }

    /// Adds the subject that the journal is to show.
    pub(super) fn about(self, subject: &str, profile: &str) -> Self {
        let about = About {
            subject: subject.to_owned(),
            profile: Some(profile.to_owned()),
        };
        Self {
            about: Some(about),
            ..self
        }
    }

    /// Returns the error.
    pub fn error(&self) -> &Error {
        &self.error
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the seconds after which to repeat the request, if a repeat may succeed.
    pub(super) fn retry_after(&self) -> Option<u32> {
        match self.error.advice {
            Advice::Later { seconds } => Some(seconds),
            _ => None,
        }
    }

    /// Logs a failure that needs the operator.
    pub(super) fn log(&self) {
        let Error {
            advice,
            code,
            message,
        } = &self.error;
        if *advice == Advice::Stop {
            tracing::error!(code = code.name(), message, "request failed");
        }
    }

    pub(super) fn document(&self) -> Document<'_> {
        let code = self.error.code;
        Document {
            r#type: format!("urn:hallmark:problem:{code}"),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code,
            detail: &self.error.message,
            approval: self.waits_for.as_deref(),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = match error.advice {
            Advice::Correct => StatusCode::BAD_REQUEST,
            Advice::Authenticate => StatusCode::UNAUTHORIZED,
            Advice::Forbidden => StatusCode::FORBIDDEN,
            Advice::Missing => StatusCode::NOT_FOUND,
            Advice::Conflict => StatusCode::CONFLICT,
            Advice::Later { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Advice::Stop => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::with_status(status, error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.log();
        let mut response = (self.status, Json(self.document())).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("TLS-Client-Certificate"),
            );
            if self.takes_basic {
                headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(BASIC));
            }
        }
        if self.error.is_refusal() {
            response.extensions_mut().insert(Refusals::of([self]));
        }
        response
    }
}

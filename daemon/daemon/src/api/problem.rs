//! Maps errors to HTTP, in this one place: problem documents (RFC 9457) with stable codes.

use crate::ca::{Advice, Code, Error};
use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// An error as a client sees it.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    error: Error,
    about: Option<About>,
}

/// The subject and profile of a refused request for a certificate.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) subject: String,
    pub(super) profile: Option<String>,
}

/// A refusal, in the extensions of its response for `api::refusals`.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) error: Error,
    pub(super) about: Option<About>,
}

/// The body: RFC 9457 members, and `code` for programs.
#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    code: Code,
    detail: &'a str,
}

impl Problem {
    /// A problem whose status says more than the advice does (413, 415).
    pub fn with_status(status: StatusCode, error: Error) -> Self {
        Self {
            status,
            error,
            about: None,
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
        let Error {
            advice,
            code,
            message,
        } = &self.error;
        if *advice == Advice::Stop {
            tracing::error!(code = code.name(), message, "request failed");
        }
        let document = Document {
            r#type: format!("urn:hallmark:problem:{code}"),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: *code,
            detail: message,
        };
        let mut response = (self.status, Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Advice::Later { seconds } = advice {
            headers.insert(RETRY_AFTER, HeaderValue::from(*seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("TLS-Client-Certificate"),
            );
        }
        if self.error.is_refusal() {
            let error = self.error;
            let about = self.about;
            response.extensions_mut().insert(Refusal { error, about });
        }
        response
    }
}

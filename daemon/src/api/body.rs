//! A JSON body, whose refusal is a problem document like every other.

use super::problem::Problem;
use crate::ca::Error;
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// How long a request's body may take. It is read before its sender is known, and holds the configuration
/// that the request came under.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A body of type `T`, sent as `application/json` within the size limit.
pub(super) struct JsonBody<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let read = Json::<T>::from_request(request, state);
        match tokio::time::timeout(BODY_TIMEOUT, read)
            .await
            .map_err(|_| too_slow())?
        {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(problem(&rejection)),
        }
    }
}

/// A request that was not sent whole in time.
pub(super) fn too_slow() -> Problem {
    let message = format!("a request is sent within {} s", BODY_TIMEOUT.as_secs());
    let error = Error::mend("body_too_slow", message);
    Problem::with_status(StatusCode::REQUEST_TIMEOUT, error)
}

fn problem(rejection: &JsonRejection) -> Problem {
    let status = rejection.status();
    let code = match status {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "content_type_unsupported",
        StatusCode::PAYLOAD_TOO_LARGE => "body_too_large",
        _ => "body_invalid",
    };
    Problem::with_status(status, Error::mend(code, rejection.body_text()))
}

//! A JSON body, whose refusal is a problem document like every other.

use super::problem::Problem;
use crate::ca::Error;
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;

/// A body of type `T`, sent as `application/json` within the size limit.
pub(super) struct JsonBody<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(problem(&rejection)),
        }
    }
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

//! Reads request bodies within their limits of size and time, for every handler that takes one.
//!
//! The caller is authorized before its body is read. [`JsonBody`] and [`TextBody`] identify it
//! again afterwards: the client decides how long its body takes, and may be revoked or blocked in
//! between. Requests for certificates use [`read_typed`], which does not: the transactions of steps
//! 7 and 10 of the issuance cycle refuse a caller that was revoked since.
//!
//! No handler may use axum's own `String`, `Bytes` or `Json`: they have no time-out,
//! and their refusals are not problem documents.

use super::problem::Problem;
use super::{BODY_BYTES_MAX, Edge};
use crate::ca::{Code, Error};
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use hallmark_base::toml_error::plain_words::plain;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::error::Category;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

/// How long the body of a request may take from its head on.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A body of type `T`, sent as `application/json`.
pub(super) struct JsonBody<T>(pub(super) T);

/// A body of UTF-8 text, of any media type.
pub(super) struct TextBody(pub(super) String);

impl<T: DeserializeOwned> FromRequest<Edge> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, edge: &Edge) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        let bytes = read_typed(&head.headers, "application/json", body).await?;
        judge_again(&head, edge).await?;
        let parsed = serde_json::from_slice(&bytes).map(|Members(it)| it);
        parsed.map(Self).map_err(|error| invalid(&error))
    }
}

impl FromRequest<Edge> for TextBody {
    type Rejection = Problem;

    async fn from_request(request: Request, edge: &Edge) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        let bytes = read(body, BODY_BYTES_MAX).await?;
        judge_again(&head, edge).await?;
        let text = String::from_utf8(bytes.into());
        let text = text.map_err(|error| {
            let message = format!("the body is not UTF-8 text: {error}; send it as UTF-8");
            Error::invalid(Code::BodyInvalid, message)
        })?;
        Ok(Self(text))
    }
}

/// Fails if the caller was excluded since the head of its request came.
async fn judge_again(head: &Parts, edge: &Edge) -> Result<(), Problem> {
    let (api, peer) = edge.asked(&head.extensions)?;
    api.caller(&peer).await.map(drop)
}

/// Reads the body of a request whose media type must be `media_type`.
pub(super) async fn read_typed(
    headers: &HeaderMap,
    media_type: &str,
    body: Body,
) -> Result<Bytes, Problem> {
    read_typed_up_to(BODY_BYTES_MAX, headers, media_type, body).await
}

/// The same with another limit, in bytes.
pub(super) async fn read_typed_up_to(
    limit: usize,
    headers: &HeaderMap,
    media_type: &str,
    body: Body,
) -> Result<Bytes, Problem> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let given = content_type
        .and_then(|value| value.split(';').next())
        .map(str::trim);
    if !given.is_some_and(|it| it.eq_ignore_ascii_case(media_type)) {
        let error = Error::invalid(Code::ContentTypeUnsupported, format!("send {media_type}"));
        return Err(Problem::with_status(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            error,
        ));
    }
    read(body, limit).await
}

/// Reads a body of any media type.
pub(super) async fn read(body: Body, limit: usize) -> Result<Bytes, Problem> {
    let read = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, limit));
    let read = read.await.map_err(|_| too_slow())?;
    read.map_err(|_| {
        let message = format!("this request may have {limit} bytes; send less, and send it whole");
        let error = Error::invalid(Code::BodyTooLarge, message);
        Problem::with_status(StatusCode::PAYLOAD_TOO_LARGE, error)
    })
}

/// A structure that is read from a JSON object alone. Derived code also takes a list of its members
/// in their order, which no route documents.
pub(super) struct Members<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Members<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members))
            }
        }

        deserializer.deserialize_map(Object(PhantomData)).map(Self)
    }
}

/// JSON that is not what the route takes is 422; what is not JSON is 400.
fn invalid(error: &serde_json::Error) -> Problem {
    let status = match error.classify() {
        Category::Data => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::BAD_REQUEST,
    };
    Problem::with_status(
        status,
        Error::invalid(Code::BodyInvalid, why_invalid(error)),
    )
}

/// Says where and why a body is not what the route takes.
pub(super) fn why_invalid(error: &serde_json::Error) -> String {
    why_invalid_in("body", error)
}

/// The same of a part of the body; lines and columns are those of the part.
pub(super) fn why_invalid_in(part: &str, error: &serde_json::Error) -> String {
    let line = error.line();
    let column = error.column();
    match error.classify() {
        Category::Data => {
            let message = error.to_string();
            let (why, _) = message.rsplit_once(" at line ").unwrap_or((&message, ""));
            format!("the {part}, line {line}, column {column}: {}", plain(why))
        }
        Category::Eof => format!("the {part} is not JSON: it ends too early; send it whole"),
        Category::Syntax | Category::Io => {
            format!("the {part} is not JSON from line {line}, column {column} on; correct it there")
        }
    }
}

fn too_slow() -> Problem {
    let message = format!("send the whole request within {} s", BODY_TIMEOUT.as_secs());
    let error = Error::invalid(Code::BodyTooSlow, message);
    Problem::with_status(StatusCode::REQUEST_TIMEOUT, error)
}

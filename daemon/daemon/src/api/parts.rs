//! Reads the path and the query of a request. A part that does not fit gets a problem document.
//!
//! No handler may use axum's own `Path` or `Query`: their refusals are plain text.

use super::problem::Problem;
use crate::ca::{Code, Error};
use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::request::Parts;
use hallmark_base::toml_error::plain_words::plain;
use serde::de::DeserializeOwned;

/// The values in the places of a route.
pub(super) struct Path<T>(pub(super) T);

/// The parameters behind the question mark of an address.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path =
            <axum::extract::Path<T> as FromRequestParts<S>>::from_request_parts(parts, state);
        let path = path.await.map_err(|refusal| path_invalid(&refusal))?;
        Ok(Self(path.0))
    }
}

impl<T: DeserializeOwned + Send + 'static, S: Send + Sync> OptionalFromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Problem> {
        let path = <axum::extract::Path<T> as OptionalFromRequestParts<S>>::from_request_parts(
            parts, state,
        );
        let path = path.await.map_err(|refusal| path_invalid(&refusal))?;
        Ok(path.map(|path| Self(path.0)))
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::try_from_uri(&parts.uri);
        let query = query.map_err(|refusal| query_invalid(&refusal.body_text()))?;
        Ok(Self(query.0))
    }
}

fn path_invalid(refusal: &PathRejection) -> Problem {
    let PathRejection::FailedToDeserializePathParams(refusal) = refusal else {
        return Error::stop(Code::Internal, "a route has no such part").into();
    };
    let message = match refusal.kind() {
        ErrorKind::ParseErrorAtKey { value, .. }
        | ErrorKind::ParseErrorAtIndex { value, .. }
        | ErrorKind::ParseError { value, .. } => {
            format!("{value:?} in the address is no number; put the number of the object there")
        }
        ErrorKind::InvalidUtf8InPathParam { .. } => {
            "a part of the address is not UTF-8; encode it as UTF-8, then by percent signs".into()
        }
        ErrorKind::DeserializeError { value, message, .. } => {
            format!("{value:?} in the address: {}", plain(message))
        }
        ErrorKind::Message(message) => format!("a part of the address: {}", plain(message)),
        _ => "the address has other parts than this route".into(),
    };
    Error::invalid(Code::PathInvalid, message).into()
}

/// `text` has the name of a parameter before the reason, behind a beginning of its own.
fn query_invalid(text: &str) -> Problem {
    let text = text
        .rsplit_once("query string: ")
        .map_or(text, |(_, it)| it);
    let message = match text.split_once(": ") {
        Some((name, reason)) if !name.contains(' ') => {
            format!("the parameter {name} of the query: {}", plain(reason))
        }
        _ => format!("the query of the address: {}", plain(text)),
    };
    Error::invalid(Code::QueryInvalid, message).into()
}

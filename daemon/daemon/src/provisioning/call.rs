//! Describes one call of a plane, and reads its answer: path, headers, body, pages.

use super::failure::{CallError, parse_retry_after};
use crate::enrollment::etag::Etag;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::{Duration, SystemTime};

/// The longest continuation: it must fit a header.
const CONTINUATION_LENGTH_MAX: usize = 4096;

/// Everything but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Encodes `text` as one segment of a path.
pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// The body of a request.
pub(super) enum Body {
    Json(Value),
    Form {
        /// The form as it is sent.
        fields: SecretString,
        /// The field that must not be in an error or log.
        secret: SecretString,
    },
}

impl Body {
    pub(super) fn into_secret(self) -> Option<SecretString> {
        match self {
            Body::Json(_) => None,
            Body::Form { secret, .. } => Some(secret),
        }
    }
}

/// A request, before it is authorized.
pub(super) struct Call<'a> {
    pub(super) operation: String,
    pub(super) method: Method,
    pub(super) path_and_query: String,
    pub(super) if_match: Option<&'a Etag>,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) body: Option<Body>,
    pub(super) cost: u32,
    reads_only: bool,
}

impl<'a> Call<'a> {
    /// `operation` is verb and subject, for error messages.
    pub(super) fn new(method: Method, operation: String, path_and_query: String) -> Self {
        Self {
            operation,
            reads_only: method == Method::GET,
            method,
            path_and_query,
            if_match: None,
            headers: Vec::new(),
            body: None,
            cost: 1,
        }
    }

    pub(super) fn if_match(self, etag: &'a Etag) -> Self {
        let if_match = Some(etag);
        Self { if_match, ..self }
    }

    pub(super) fn body(self, body: Value) -> Self {
        let body = Some(Body::Json(body));
        Self { body, ..self }
    }

    /// Sets a form as body, with one more field that is a secret.
    pub(super) fn form(
        self,
        fields: &[(&str, &str)],
        secret_name: &str,
        secret: SecretString,
    ) -> Self {
        let mut text = format!("{secret_name}={}", segment(secret.expose_secret()));
        for (name, value) in fields {
            text.push_str(&format!("&{name}={}", segment(value)));
        }
        let fields = SecretString::from(text);
        let body = Some(Body::Form { fields, secret });
        Self { body, ..self }
    }

    pub(super) fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((HeaderName::from_static(name), value));
        self
    }

    /// Sets how many operations the service may count the call as.
    pub(super) fn cost(self, cost: u32) -> Self {
        Self { cost, ..self }
    }

    /// Marks a POST that changes nothing.
    pub(super) fn reads_only(self) -> Self {
        let reads_only = true;
        Self { reads_only, ..self }
    }

    /// Makes the call a query for a page of at most `items_max`.
    pub(super) fn page(self, items_max: usize, from: Option<&Continuation>) -> Self {
        let call = self.reads_only();
        let call = call.header("x-ms-max-item-count", items_max.to_string());
        match from {
            Some(Continuation(token)) => call.header("x-ms-continuation", token.clone()),
            None => call,
        }
    }

    /// Returns true unless the call changes nothing at the service.
    pub(super) fn writes(&self) -> bool {
        !self.reads_only
    }

    /// The answer cannot be understood, so the service may have done the operation.
    pub(super) fn unreadable(&self, problem: &str) -> CallError {
        unreadable(&self.operation, problem, self.writes())
    }
}

fn unreadable(operation: &str, problem: &str, writes: bool) -> CallError {
    CallError::Transient {
        operation: operation.to_owned(),
        reason: format!("the answer {problem}"),
        retry_after: None,
        lost_answer: writes,
    }
}

/// The service's token for the next page of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continuation(String);

/// An answer, read in whole.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Reply {
    /// Parses the body. An unexpected body counts as a lost answer: something between the daemon
    /// and the service answered, and may not do so next time.
    pub(super) fn json<T: DeserializeOwned>(&self, operation: &str) -> Result<T, CallError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| unreadable(operation, &format!("cannot be read: {error}"), true))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the token of the next page, if there is one. Fails if the token cannot be sent back:
    /// as a last page, the rest would count as missing.
    pub(super) fn continuation(&self, operation: &str) -> Result<Option<Continuation>, CallError> {
        let Some(value) = self.headers.get("x-ms-continuation") else {
            return Ok(None);
        };
        match value.to_str() {
            Ok("") => Ok(None),
            Ok(token) if token.len() <= CONTINUATION_LENGTH_MAX => {
                Ok(Some(Continuation(token.to_owned())))
            }
            _ => {
                let problem = "has a continuation that cannot be sent back";
                Err(unreadable(operation, problem, false))
            }
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        parse_retry_after(self.header("retry-after")?, SystemTime::now())
    }
}

//! One HTTP exchange without HTTP: what the planes get and what they give.
//!
//! Planes are plain functions from a [`Call`] to a [`Reply`]. They know no sockets and no
//! framework.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::http::{HeaderMap, Method};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use crate::certificate::Certificate;

/// Longest body that is read at all. The planes' own limits are lower.
pub(crate) const BODY_LENGTH_MAX: usize = 1024 * 1024;
/// Most path segments; the resource manager's longest address has eleven.
const SEGMENTS_MAX: usize = 16;

/// A request, read whole.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Host header without its port, lower case.
    pub(crate) host: String,
    /// The path as it stood on the wire.
    pub(crate) path: String,
    /// The path's parts, percent-decoded, without empty ones: a trailing slash does not matter.
    pub(crate) segments: Vec<String>,
    /// The query's fields, percent-decoded, keys in lower case.
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// The certificates of the TLS handshake, leaf first. `Err` if they cannot be read.
    pub(crate) presented: Result<Vec<Certificate>, crate::certificate::Unreadable>,
}

impl Call {
    /// A header's text; none if it is absent or not text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The path's parts in lower case, to match known words against: SDKs write them in several
    /// ways (contract section 2).
    pub(crate) fn shape(&self) -> Vec<String> {
        let lower = |part: &String| part.to_ascii_lowercase();
        self.segments.iter().map(lower).collect()
    }

    /// The part at `index` as the client wrote it. Call it for a part that the shape has.
    pub(crate) fn segment(&self, index: usize) -> &str {
        self.segments.get(index).map_or("", String::as_str)
    }

    /// The body as a JSON object; an empty body is an empty object.
    pub(crate) fn json_object(&self) -> Option<Map<String, Value>> {
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Some(Map::new());
        }
        serde_json::from_slice(&self.body).ok()
    }
}

/// The parts of a path, decoded. None if there are too many or one is not UTF-8.
pub(crate) fn segments(path: &str) -> Option<Vec<String>> {
    let parts = path.split('/').filter(|part| !part.is_empty());
    let decoded: Option<Vec<String>> = parts.take(SEGMENTS_MAX + 1).map(decoded).collect();
    decoded.filter(|parts| parts.len() <= SEGMENTS_MAX)
}

/// The fields of a query or a form, decoded; of fields given twice, the last one.
pub(crate) fn fields(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter_map(|field| {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        let value = value.replace('+', " ");
        Some((decoded(name)?.to_ascii_lowercase(), decoded(&value)?))
    });
    pairs.filter(|(name, _)| !name.is_empty()).collect()
}

fn decoded(text: &str) -> Option<String> {
    Some(percent_decode_str(text).decode_utf8().ok()?.into_owned())
}

/// An answer, not yet written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(Cow<'static, str>, String)>,
    pub(crate) body: Option<Value>,
}

impl Reply {
    /// An answer with a JSON body.
    pub(crate) fn json(status: u16, body: impl Into<Value>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Some(body.into()),
        }
    }

    pub(crate) fn empty() -> Self {
        Self {
            status: 204,
            headers: Vec::new(),
            body: None,
        }
    }

    /// The same answer with one more header.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_trailing_slash_and_escapes_are_tolerated() {
        assert_eq!(segments("/enrollments/").unwrap(), ["enrollments"]);
        assert_eq!(
            segments("/enrollments/a%3Ab").unwrap(),
            ["enrollments", "a:b"]
        );
        assert_eq!(segments("/%FF"), None);
        assert_eq!(segments(&"/a".repeat(17)), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in ".{0,300}") {
            let _ = segments(&text);
            let _ = fields(&text);
        }
    }
}

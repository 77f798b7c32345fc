//! The request log and the counters: the requests that a client really sent, for a test to read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use serde::Serialize;
use serde_json::Value;

/// Most requests that are kept; older ones are dropped, counters go on.
const REQUESTS_MAX: usize = 10_000;
/// Longest body that is kept with its request.
const BODY_LENGTH_MAX: usize = 100 * 1024;

/// One request and its outcome.
#[derive(Clone, Debug, Serialize)]
pub struct LoggedRequest {
    /// Counts from 1, also over dropped entries.
    pub sequence: u64,
    /// Emulator time, RFC 3339.
    pub at: String,
    pub transport: &'static str,
    /// Name of the operation, e.g. `individual.put`; `unknown` for an address that is not served.
    pub operation: &'static str,
    pub method: String,
    /// `Host` header without port.
    pub host: String,
    /// Path as it was sent.
    pub path: String,
    /// `If-Match`, if there was one.
    pub if_match: Option<String>,
    /// `traceparent`, if there was one.
    pub traceparent: Option<String>,
    /// `tracestate`, if there was one.
    pub tracestate: Option<String>,
    /// Body, if it is JSON and not too long.
    pub body: Option<Value>,
    /// SHA-256 thumbprint of the leaf that was presented.
    pub client: Option<String>,
    /// Status that was answered; none if the connection was cut or the request still hangs.
    pub status: Option<u16>,
    /// The fault that was applied.
    pub fault: Option<&'static str>,
}

/// How often an operation was asked for, and how it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    pub total: u64,
    pub succeeded: u64,
    /// Answers of 400 and above.
    pub refused: u64,
}

/// The log of one emulator.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    requests: VecDeque<LoggedRequest>,
    counts: BTreeMap<&'static str, Count>,
    next: u64,
}

impl Journal {
    /// Note that a request arrived. Returns its number, for [`Journal::end`].
    pub(crate) fn begin(&self, mut request: LoggedRequest) -> u64 {
        let mut inner = crate::lock(&self.inner);
        inner.next += 1;
        request.sequence = inner.next;
        inner.counts.entry(request.operation).or_default().total += 1;
        if inner.requests.len() == REQUESTS_MAX {
            inner.requests.pop_front();
        }
        inner.requests.push_back(request);
        inner.next
    }

    /// Note how the request ended.
    pub(crate) fn end(&self, sequence: u64, status: Option<u16>, fault: Option<&'static str>) {
        let mut inner = crate::lock(&self.inner);
        let found = inner
            .requests
            .iter_mut()
            .rev()
            .find(|own| own.sequence == sequence);
        let Some(request) = found else {
            return;
        };
        request.status = status;
        request.fault = fault;
        let operation = request.operation;
        let count = inner.counts.entry(operation).or_default();
        match status {
            Some(status) if status < 400 => count.succeeded += 1,
            Some(_) => count.refused += 1,
            None => {}
        }
    }

    /// Requests with a greater number, oldest first.
    pub(crate) fn since(&self, sequence: u64) -> Vec<LoggedRequest> {
        let inner = crate::lock(&self.inner);
        let newer = inner.requests.iter().filter(|own| own.sequence > sequence);
        newer.cloned().collect()
    }

    pub(crate) fn counts(&self) -> BTreeMap<&'static str, Count> {
        crate::lock(&self.inner).counts.clone()
    }

    /// Forget requests and counters; numbers go on.
    pub(crate) fn clear(&self) {
        let mut inner = crate::lock(&self.inner);
        inner.requests.clear();
        inner.counts.clear();
    }
}

/// A body as the log keeps it.
pub(crate) fn kept_body(body: &[u8]) -> Option<Value> {
    if body.is_empty() || body.len() > BODY_LENGTH_MAX {
        return None;
    }
    serde_json::from_slice(body).ok()
}

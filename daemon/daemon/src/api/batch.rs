//! `POST /v1/certificates:batch`: many requests for leaves in one body, each with its own answer.
//!
//! An item passes the same issuance cycle as a request of its own: permission, record, refusal,
//! journal entry and idempotency are per item, and no item depends on another one. The answer is
//! 200 once the body is a batch; each item has the status that `/v1/certificates` would give it.
//!
//! A batch takes one of few permits before its body is read, because bodies and answers are large.

use super::asks::Asks;
use super::body::{Members, read_typed_up_to, why_invalid_in};
use super::certificates::Answer;
use super::problem::{Document, Problem, Refusals};
use super::server::STOP_RETRY_AFTER_SECONDS;
use crate::ca::authorize::Issue;
use crate::ca::issuer::issue::{IssueRequest, Issued};
use crate::ca::{Code, Error};
use crate::request_task;
use crate::trace;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// The most items of one batch.
const BATCH_ITEMS_MAX: usize = 256;
/// The largest body of a batch, in bytes.
pub(super) const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Batches of one class of clients that may be in work at once.
const BATCHES_IN_FLIGHT_MAX: usize = 8;
/// Items of all those batches that may be in the application at once.
const ITEMS_IN_FLIGHT_MAX: usize = 128;
/// How long a batch waits for its permit.
const PERMIT_WAIT: Duration = Duration::from_secs(5);
/// Items of one batch that are in work at once, at its beginning. A slow token signs these within
/// the deadline of one signature.
const WINDOW_BEGIN: usize = 8;
/// The same at most, while items take less than [`QUICK`].
const WINDOW_MAX: usize = 64;
/// An item that takes no longer lets its batch have one more item in work.
const QUICK: Duration = Duration::from_millis(250);

/// The permits for batches of one class of clients.
pub(super) struct Batches {
    batches: Semaphore,
    items: Semaphore,
}

impl Batches {
    pub(super) fn new() -> Self {
        Self {
            batches: Semaphore::new(BATCHES_IN_FLIGHT_MAX),
            items: Semaphore::new(ITEMS_IN_FLIGHT_MAX),
        }
    }

    /// Ends when no batch is in work.
    pub(super) async fn is_idle(&self) {
        let all = u32::try_from(BATCHES_IN_FLIGHT_MAX).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let _ = self.batches.acquire_many(all).await;
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Batch<'a> {
    #[serde(borrow)]
    #[schemars(with = "Vec<Item>", length(min = 1, max = 256))]
    items: Vec<&'a RawValue>,
}

/// A request as `/v1/certificates` takes it, with the idempotency key in it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Item {
    profile: String,
    registration_id: String,
    csr: String,
    #[serde(default)]
    idempotency_key: Option<String>,
    #[serde(default)]
    r#move: bool,
}

/// The answer of one item.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum ItemAnswer<'a> {
    Issued {
        status: u16,
        /// The answer of `/v1/certificates`.
        issued: Answer,
    },
    Refused {
        status: u16,
        problem: Document<'a>,
        /// In seconds, where `/v1/certificates` answers with the header of that name.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after: Option<u32>,
    },
}

#[derive(Serialize, JsonSchema)]
pub(super) struct BatchAnswer<'a> {
    /// In the order of the request's items.
    items: Vec<ItemAnswer<'a>>,
}

type Outcome = Result<Issued, Problem>;

pub(super) async fn issue(
    asks: Asks<Issue>,
    headers: HeaderMap,
    request: Request<Body>,
) -> Result<Response, Problem> {
    asks.permission.refuse_grants()?;
    let shared = Arc::clone(&asks.api.shared);
    let batches = shared.in_flight.batches(&asks.peer);
    let permit = tokio::time::timeout(PERMIT_WAIT, batches.batches.acquire()).await;
    let _permit = permit.ok().and_then(Result::ok).ok_or_else(|| {
        asks.count_overload();
        let message = "as many batches are in work as may be; send it again";
        Error::later(1, Code::TooManyRequestsInFlight, message)
    })?;
    let body = request.into_body();
    let body = read_typed_up_to(BATCH_BYTES_MAX, &headers, "application/json", body).await?;
    let items = read_items(&body)?;
    drop(body);
    Ok(answered(asks.issue_each(items).await))
}

/// Reads a batch, within its limits. An item that is no request for a certificate is refused alone.
fn read_items(body: &[u8]) -> Result<Vec<Result<IssueRequest, Problem>>, Problem> {
    let Members(batch): Members<Batch<'_>> = serde_json::from_slice(body)
        .map_err(|error| Error::invalid(Code::BodyInvalid, why_invalid_in("body", &error)))?;
    let count = batch.items.len();
    if count == 0 {
        let message = "the batch has no item; send 1 or more in `items`";
        return Err(Error::invalid(Code::BatchEmpty, message).into());
    }
    if count > BATCH_ITEMS_MAX {
        let message =
            format!("the batch has {count} items, and may have {BATCH_ITEMS_MAX}; send several");
        let error = Error::invalid(Code::BatchTooLarge, message);
        return Err(Problem::with_status(StatusCode::PAYLOAD_TOO_LARGE, error));
    }
    let mut keys = BTreeMap::new();
    let items = batch.items.into_iter().enumerate();
    Ok(items
        .map(|(index, item)| {
            let request = read_item(item)?;
            // With both in work, it would be chance which of them is the repeat.
            let first = *keys.entry(request.idempotency_key.clone()).or_insert(index);
            if first == index {
                return Ok(request);
            }
            let message = format!(
                "items {first} and {index} of the batch (from 0) have the same idempotency key; \
                 give each item a key of its own"
            );
            let error = Error::conflict(Code::IdempotencyKeyReused, message);
            Err(Problem::from(error).about(&request.registration_id, &request.profile))
        })
        .collect())
}

fn read_item(item: &RawValue) -> Result<IssueRequest, Problem> {
    let Members(item): Members<Item> = serde_json::from_str(item.get())
        .map_err(|error| Error::invalid(Code::BodyInvalid, why_invalid_in("item", &error)))?;
    if item.idempotency_key.is_none() {
        let message = "give the item an `idempotency_key` (a UUID): the repeat of a lost answer is \
                       then not a second certificate";
        let error = Error::invalid(Code::IdempotencyKeyRequired, message);
        return Err(Problem::from(error).about(&item.registration_id, &item.profile));
    }
    Ok(IssueRequest {
        profile: item.profile,
        registration_id: item.registration_id,
        csr: item.csr.into_bytes(),
        generated: None,
        idempotency_key: item.idempotency_key,
        moves: item.r#move,
    })
}

impl Asks<Issue> {
    /// Runs the cycle for each item, several at once. The outcomes have the order of the items.
    async fn issue_each(self, items: Vec<Result<IssueRequest, Problem>>) -> Vec<Outcome> {
        let asks = Arc::new(self);
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(items.len());
        let mut waiting = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            // Replaced by the outcome of the item's task, unless that panics.
            let refused = item.map(|request| waiting.push((index, request)));
            outcomes.push(Err(refused.err().unwrap_or_else(unfinished)));
        }
        let mut waiting = waiting.into_iter();
        let mut in_work = FuturesUnordered::new();
        let mut window = WINDOW_BEGIN;
        loop {
            let room = window.saturating_sub(in_work.len());
            for (index, request) in waiting.by_ref().take(room) {
                let asks = Arc::clone(&asks);
                let issued = async move { (index, asks.issue_item(&request).await) };
                in_work.push(request_task::spawn(trace::scope(trace::current(), issued)));
            }
            let Some(ended) = in_work.next().await else {
                return outcomes;
            };
            let Ok((index, (outcome, time))) = ended else {
                continue;
            };
            outcomes[index] = outcome;
            if time <= QUICK {
                window = WINDOW_MAX.min(window + 1);
            }
        }
    }

    /// One item, and how long it was in the application. At a stop, items that were not begun stay
    /// so: the answer must be sent in time.
    async fn issue_item(&self, request: &IssueRequest) -> (Outcome, Duration) {
        let shared = &self.api.shared;
        // The semaphore is never closed.
        let _permit = shared.in_flight.batches(&self.peer).items.acquire().await;
        if *shared.stop.borrow() {
            let message = "the daemon stops, and nothing was begun; send the item again";
            let error = Error::later(STOP_RETRY_AFTER_SECONDS, Code::Stopping, message);
            return (Err(error.into()), Duration::MAX);
        }
        let begun = Instant::now();
        let outcome = self.run_cycle(request).await;
        (outcome, begun.elapsed())
    }
}

fn unfinished() -> Problem {
    Error::stop(Code::Internal, "the item failed; the log says why").into()
}

/// The answer, with the refusals for the journal.
fn answered(outcomes: Vec<Outcome>) -> Response {
    let mut problems = Vec::new();
    let outcomes: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| {
            outcome.map_err(|problem| {
                problem.log();
                problems.push(problem);
                problems.len() - 1
            })
        })
        .collect();
    let items = outcomes.into_iter().map(|outcome| match outcome {
        Ok(issued) => ItemAnswer::Issued {
            status: StatusCode::CREATED.as_u16(),
            issued: issued.into(),
        },
        Err(number) => {
            let problem: &Problem = &problems[number];
            ItemAnswer::Refused {
                status: problem.status().as_u16(),
                problem: problem.document(),
                retry_after: problem.retry_after(),
            }
        }
    });
    let answer = Json(BatchAnswer {
        items: items.collect(),
    })
    .into_response();
    (Extension(Refusals::of(problems)), answer).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn item(key: &str) -> Value {
        json!({
            "profile": "device", "registration_id": "pump-7", "csr": "x", "idempotency_key": key,
        })
    }

    fn read(items: impl Into<Value>) -> Result<Vec<Result<IssueRequest, Problem>>, Problem> {
        let items: Value = items.into();
        read_items(json!({ "items": items }).to_string().as_bytes())
    }

    fn code<T>(refused: &Result<T, Problem>) -> Option<Code> {
        refused.as_ref().err().map(|it| it.error().code)
    }

    #[test]
    fn a_batch_has_one_to_256_items() {
        let of = |count: usize| {
            read(
                (0..count)
                    .map(|it| item(&it.to_string()))
                    .collect::<Value>(),
            )
        };
        assert_eq!(code(&of(0)), Some(Code::BatchEmpty));
        assert_eq!(of(1).unwrap().len(), 1);
        assert_eq!(of(256).unwrap().len(), 256);
        let refused = of(257).unwrap_err();
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(refused.error().code, Code::BatchTooLarge);
    }

    #[test]
    fn a_broken_item_is_refused_alone() {
        let mut more = item("a");
        more["validity"] = "100y".into();
        let mut keyless = item("b");
        keyless["idempotency_key"].take();
        let list = json!(["device", "pump-7", "x", "d"]);
        let sent = json!([7, list, {}, more, keyless, item("c"), item("c")]);
        let outcomes = read(sent).unwrap();
        let codes: Vec<_> = outcomes.iter().map(code).collect();
        let broken = Some(Code::BodyInvalid);
        let unnamed = Some(Code::IdempotencyKeyRequired);
        let reused = Some(Code::IdempotencyKeyReused);
        assert_eq!(
            codes,
            [broken, broken, broken, broken, unnamed, None, reused]
        );
        let problem = outcomes[6].as_ref().unwrap_err();
        assert!(
            problem.error().message.contains("items 5 and 6"),
            "{problem:?}"
        );
    }

    #[test]
    fn a_body_that_is_no_batch_is_refused_as_a_whole() {
        for body in [
            "",
            "[]",
            "[[]]",
            "{}",
            "{\"items\":7}",
            "{\"items\":[],\"more\":1}",
            "{\"items\":[1,",
        ] {
            assert_eq!(
                code(&read_items(body.as_bytes())),
                Some(Code::BodyInvalid),
                "{body}"
            );
        }
    }

    /// JSON of any shape, deep and broad.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        let name = "profile|registration_id|csr|idempotency_key|move|[a-z]{0,3}";
        leaf.prop_recursive(3, 24, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(name, inner, 0..6)
                    .prop_map(|it| Value::Object(it.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_octets_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_items(&body);
        }

        /// Each item has an outcome, and one that is accepted is as it was sent.
        #[test]
        fn each_item_is_read_or_refused(items in prop::collection::vec(
            prop_oneof![any_json(), "[a-c]{0,2}".prop_map(|key| item(&key))], 1..20,
        )) {
            let outcomes = read(items.clone()).unwrap();
            prop_assert_eq!(outcomes.len(), items.len());
            let mut keys = std::collections::BTreeSet::new();
            for (sent, outcome) in items.iter().zip(outcomes) {
                let Ok(request) = outcome else { continue };
                prop_assert_eq!(&sent["registration_id"], &request.registration_id);
                prop_assert_eq!(sent["csr"].as_str().unwrap().as_bytes(), request.csr);
                let key = request.idempotency_key.unwrap();
                prop_assert_eq!(&sent["idempotency_key"], &key);
                prop_assert!(keys.insert(key));
            }
        }

        /// A batch that was cut off or damaged on its way is never read as another one.
        #[test]
        fn a_batch_that_is_cut_off_is_refused(end in 0usize..300) {
            let body = json!({ "items": [item("a"), item("b")] }).to_string();
            prop_assume!(end < body.len());
            prop_assert!(read_items(&body.as_bytes()[..end]).is_err());
        }
    }
}

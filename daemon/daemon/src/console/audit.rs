//! Searches, verifies and exports the audit journal.

use super::components::{self, At};
use super::refused::Refused;
use super::table::{File, PAGE_ROWS, query};
use super::visit::{Frame, Visit, page};
use askama::Template;
use axum::extract::Query;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The criteria, as the form has them.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    device: String,
    authority: String,
    caller: String,
    since: String,
    before: String,
}

impl Filter {
    fn query(&self) -> String {
        query(&[
            ("device", self.device.trim()),
            ("authority", self.authority.trim()),
            ("caller", self.caller.trim()),
            ("since", self.since.trim()),
        ])
    }
}

/// Actions after which something is accepted no more.
const EXCLUDES: [&str; 5] = [
    "block.started",
    "certificate.held",
    "certificate.revoked",
    "credential.revoked",
    "roll.excluded",
];

/// An entry of the journal.
#[derive(Deserialize, Serialize)]
pub(super) struct Entry {
    pub(super) sequence: i64,
    pub(super) at: i64,
    pub(super) actor: String,
    pub(super) action: String,
    pub(super) subject: String,
    pub(super) detail: Map<String, Value>,
    hash: String,
}

impl Entry {
    /// When it was made.
    pub(super) fn time(&self) -> At {
        At(crate::unix_seconds::UnixSeconds::new(self.at))
    }

    /// The severity that the action is shown with.
    pub(super) fn severity(&self) -> &'static str {
        let action = self.action.as_str();
        if action.ends_with(".refused") {
            return "attention";
        }
        if EXCLUDES.contains(&action) {
            return "critical";
        }
        ""
    }

    /// Its members that say something, in their order.
    pub(super) fn members(&self) -> impl Iterator<Item = (&str, String)> {
        let is_empty = |value: &Value| match value {
            Value::Null => true,
            Value::Array(values) => values.is_empty(),
            _ => false,
        };
        let said = self.detail.iter().filter(move |it| !is_empty(it.1));
        said.map(|(name, value)| {
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            (name.as_str(), text)
        })
    }
}

/// The result of a verification of the hash chain.
#[derive(Deserialize)]
struct Verdict {
    entries: i64,
    last_hash: String,
    broken_at: Option<i64>,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct Page {
    frame: Frame,
    filter: Filter,
    entries: Vec<Entry>,
    why_none: String,
    next: Option<String>,
}

#[derive(Template)]
#[template(path = "audit_verification.html")]
struct Verification {
    frame: Frame,
    verdict: Verdict,
}

/// Shows entries, the newest first.
pub(super) async fn list(visit: Visit, Query(filter): Query<Filter>) -> Result<Response, Refused> {
    let criteria = filter.query();
    let before = query(&[("before", &filter.before)]);
    let path = format!("/v1/audit?last={PAGE_ROWS}&{criteria}&{before}");
    let read: Result<Vec<Entry>, Refused> = visit.get(&path).await;
    let (mut entries, why_none) = match read {
        Ok(entries) => (entries, String::new()),
        Err(refused) if refused.is_of_input() => (Vec::new(), refused.detail()),
        Err(refused) => return Err(refused),
    };
    entries.reverse();
    let full = entries.len() >= PAGE_ROWS;
    let last = entries.last().filter(|it| full && it.sequence > 1);
    page(&Page {
        frame: visit.frame("Audit"),
        next: last.map(|it| format!("?{criteria}&before={}", it.sequence)),
        filter,
        entries,
        why_none,
    })
}

/// Verifies the hash chain, which takes longer with each entry.
pub(super) async fn verify(visit: Visit) -> Result<Response, Refused> {
    let verdict = visit.get("/v1/audit/verification").await?;
    page(&Verification {
        frame: visit.frame("Audit"),
        verdict,
    })
}

/// Writes the journal as lines of JSON, the oldest first, with the criteria of the list.
pub(super) async fn export(
    visit: Visit,
    Query(filter): Query<Filter>,
) -> Result<Response, Refused> {
    let file = File::<Entry> {
        name: "audit.ndjson",
        content_type: "application/x-ndjson",
        head: "",
        path: format!("/v1/audit?{}", filter.query()),
        line: |entry| serde_json::to_string(entry).unwrap_or_default() + "\n",
        after: |entry| entry.sequence.to_string(),
    };
    file.write(visit).await
}

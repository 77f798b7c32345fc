//! Shows requests that wait for the approval of a second person, takes an approver's signature, and
//! does what was approved.
//!
//! A signature is made outside the browser, which has no access to the key of its certificate. An
//! approved request is sent again as its document says it: the API compares, as for a command.

use super::actions::Sent;
use super::components::{self, At, segment};
use super::refused::Refused;
use super::table::{PAGE_ROWS, query};
use super::visit::{self, Frame, Visit, page};
use askama::Template;
use axum::body::Body;
use axum::extract::{Path, Query};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::{Value, json};

const APPROVAL: HeaderName = HeaderName::from_static("hallmark-approval");

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    after: String,
}

#[derive(Deserialize)]
struct Approval {
    id: i64,
    action: String,
    state: String,
    asked_by: String,
    asked_at: At,
    expires_at: At,
    sha256: String,
    document: String,
    approved_by: Option<String>,
    approved_at: Option<At>,
    rejected_by: Option<String>,
    used_at: Option<At>,
}

/// The request of the caller, as the document says it.
#[derive(Deserialize)]
struct Document {
    method: String,
    path: String,
    body: Value,
}

#[derive(Deserialize)]
pub(super) struct Signature {
    signature: String,
    #[serde(default)]
    certificate: String,
}

/// A form with a button alone.
#[derive(Deserialize)]
pub(super) struct Button {}

#[derive(Template)]
#[template(path = "approvals.html")]
struct List {
    frame: Frame,
    rows: Vec<Approval>,
    next: Option<String>,
}

#[derive(Template)]
#[template(path = "approval.html")]
struct One {
    frame: Frame,
    request: Approval,
}

impl Approval {
    fn severity(&self) -> &'static str {
        match self.state.as_str() {
            "waiting" | "approved" => "attention",
            "used" => "good",
            _ => "",
        }
    }

    /// Whether it is the caller's own to do.
    fn is_of(&self, caller: &str) -> bool {
        self.asked_by == caller
    }
}

/// Shows a page of the list.
pub(super) async fn list(visit: Visit, Query(which): Query<Which>) -> Result<Response, Refused> {
    let after = query(&[("after", &which.after)]);
    let path = format!("/v1/approvals?limit={PAGE_ROWS}&{after}");
    let (rows, next) = visit.list(&path).await?;
    page(&List {
        frame: visit.frame("Approvals"),
        rows,
        next: next.map(|it| query(&[("after", &it)])),
    })
}

/// Shows one request with its document.
pub(super) async fn show(visit: Visit, Path(id): Path<String>) -> Result<Response, Refused> {
    page(&One {
        request: visit.get(&address(&id)).await?,
        frame: visit.frame("Approvals"),
    })
}

/// Writes the bytes that are signed into a file.
pub(super) async fn document(visit: Visit, Path(id): Path<String>) -> Result<Response, Refused> {
    let request: Approval = visit.get(&address(&id)).await?;
    let name = format!("attachment; filename=\"request-{}.txt\"", request.id);
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_DISPOSITION, name),
    ];
    Ok((headers, request.document).into_response())
}

/// Sends the signature of an approver.
pub(super) async fn sign(
    Path(id): Path<String>,
    Sent { visit, form }: Sent<Signature>,
) -> Result<Response, Refused> {
    let certificate = form.certificate.trim();
    let body = json!({
        "signature": form.signature.trim(),
        "certificate": (!certificate.is_empty()).then_some(certificate),
    });
    visit
        .change(
            Method::POST,
            &format!("{}/signature", address(&id)),
            Some(body),
            &shown(&id),
        )
        .await
}

/// Rejects a request.
pub(super) async fn reject(
    Path(id): Path<String>,
    Sent { visit, .. }: Sent<Button>,
) -> Result<Response, Refused> {
    visit
        .change(
            Method::POST,
            &format!("{}/rejection", address(&id)),
            Some(json!({})),
            &shown(&id),
        )
        .await
}

/// Does what was approved.
pub(super) async fn perform(
    Path(id): Path<String>,
    Sent { visit, .. }: Sent<Button>,
) -> Result<Response, Refused> {
    let approved: Approval = visit.get(&address(&id)).await?;
    let (_, document) = approved.document.split_once('\n').unwrap_or_default();
    let unreadable = |error: &dyn ToString| Refused::unreadable("the document", &error.to_string());
    let asked: Document = serde_json::from_str(document).map_err(|error| unreadable(&error))?;
    let mut request = visit::get(&asked.path);
    *request.method_mut() = asked.method.parse().map_err(|error| unreadable(&error))?;
    let headers = request.headers_mut();
    headers.insert(APPROVAL, HeaderValue::from(approved.id));
    let json = HeaderValue::from_static("application/json");
    headers.insert(CONTENT_TYPE, json);
    *request.body_mut() = Body::from(asked.sent());
    Refused::unless_success(visit.ask(request).await).await?;
    Ok(Redirect::to(&shown(&id)).into_response())
}

impl Document {
    /// The body as the caller sent it.
    fn sent(&self) -> String {
        match (&self.body, &self.body["lines"]) {
            (_, Value::Array(lines)) => {
                let lines = lines.iter().map(|it| it.as_str().unwrap_or_default());
                lines.collect::<Vec<_>>().join("\n")
            }
            (Value::Null, _) => "{}".to_owned(),
            (body, _) => body.to_string(),
        }
    }
}

fn address(id: &str) -> String {
    format!("/v1/approvals/{}", segment(id))
}

fn shown(id: &str) -> String {
    format!("/console/approvals/{}", segment(id))
}

//! Shows what provisioning services are to hold beside what they were observed to hold.

use super::components::{self, At};
use super::refused::Refused;
use super::table::{PAGE_ROWS, query};
use super::visit::{Frame, Visit, page};
use askama::Template;
use axum::extract::Query;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    after: String,
    /// Of the enrollments that are not on record.
    unknown_after: String,
}

#[derive(Deserialize)]
pub(super) struct Enrollment {
    pub(super) provisioning: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) status: String,
    pub(super) state: String,
    pub(super) primary: Option<String>,
    pub(super) secondary: Option<String>,
    pub(super) observed_at: Option<At>,
    observed: Option<Value>,
    drift: Option<Value>,
    pending: Option<Pending>,
}

/// A change that a service does not show yet.
#[derive(Deserialize)]
struct Pending {
    cause: String,
    since: At,
    due_at: At,
    attempts: i64,
    last_error: Option<String>,
    parked: bool,
}

#[derive(Deserialize)]
struct Change {
    provisioning: String,
    name: String,
    #[serde(flatten)]
    pending: Pending,
}

#[derive(Deserialize)]
struct CaCertificate {
    provisioning: String,
    name: String,
    state: String,
    observed_at: Option<At>,
    reason: Option<String>,
}

/// An enrollment at a service that is not on record.
#[derive(Deserialize)]
struct Unknown {
    provisioning: String,
    kind: String,
    name: String,
    status: String,
    observed_at: At,
}

/// The severity of the state of an enrollment or CA certificate.
pub(super) fn severity(state: &str) -> &'static str {
    match state {
        "in step" | "verified" => "good",
        "pending" | "being removed" | "waits for a certificate" => "",
        "drifted" | "parked" => "critical",
        _ => "attention",
    }
}

impl Enrollment {
    pub(super) fn severity(&self) -> &'static str {
        severity(&self.state)
    }

    /// The hub and the identity, from the registration record at the service.
    pub(super) fn registration(&self) -> Option<String> {
        let record = self.observed.as_ref()?.get("registrationState")?;
        let status = record.get("status")?.as_str()?;
        let hub = record.get("assignedHub").and_then(|it| it.as_str());
        let id = record.get("deviceId").and_then(|it| it.as_str());
        Some(match (hub, id) {
            (Some(hub), Some(id)) => format!("{status} to {hub} as {id}"),
            _ => status.to_owned(),
        })
    }

    /// Returns the observed content of a slot: a thumbprint, or the name of a CA certificate.
    fn observed_slot(&self, slot: &str) -> Option<&str> {
        let attestation = self.observed.as_ref()?.get("attestation")?.get("x509")?;
        let held = |kind: &str| attestation.get(kind)?.get(slot);
        let info = held("clientCertificates").or_else(|| held("signingCertificates"));
        let thumbprint = info.and_then(|it| it.get("info")?.get("sha256Thumbprint")?.as_str());
        thumbprint.or_else(|| held("caReferences")?.as_str())
    }

    fn observed_status(&self) -> Option<&str> {
        self.observed.as_ref()?.get("provisioningStatus")?.as_str()
    }

    /// The difference that another program has made, for reading.
    fn difference(&self) -> Option<String> {
        let drift = self.drift.as_ref()?;
        Some(format!("{drift:#}"))
    }
}

impl CaCertificate {
    fn severity(&self) -> &'static str {
        severity(&self.state)
    }
}

#[derive(Template)]
#[template(path = "cloud.html")]
struct Page {
    frame: Frame,
    ca_certificates: Vec<CaCertificate>,
    changes: Vec<Change>,
    unknown: Vec<Unknown>,
    next_unknown: Option<String>,
    enrollments: Vec<Enrollment>,
    next: Option<String>,
}

/// Shows the page.
pub(super) async fn show(visit: Visit, Query(which): Query<Which>) -> Result<Response, Refused> {
    let Which {
        after,
        unknown_after,
    } = which;
    let from = query(&[("after", &after)]);
    let path = format!("/v1/enrollments?limit={PAGE_ROWS}&{from}");
    let (enrollments, next) = visit.list(&path).await?;
    let from = query(&[("after", &unknown_after)]);
    let path = format!("/v1/enrollments?unknown=true&limit={PAGE_ROWS}&{from}");
    let (unknown, next_unknown) = visit.list(&path).await?;
    let page_of = |after: &str, unknown_after: &str| {
        query(&[("after", after), ("unknown_after", unknown_after)])
    };
    page(&Page {
        frame: visit.frame("Cloud"),
        ca_certificates: visit.get("/v1/ca-certificates").await?,
        changes: visit.get("/v1/push").await?,
        unknown,
        next_unknown: next_unknown.map(|it| page_of(&after, &it)),
        enrollments,
        next: next.map(|it| page_of(&it, &unknown_after)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;
    use axum::extract::RawQuery;
    use axum::http::header::LINK;
    use axum::response::IntoResponse;
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::json;

    /// One row of each list, behind which there are more.
    async fn enrollments(RawQuery(query): RawQuery) -> Response {
        let query = query.unwrap_or_default();
        let after = if query.contains("unknown=true") { 8 } else { 9 };
        let link = format!("</v1/enrollments?{query}&after={after}>; rel=\"next\"");
        let row = json!({
            "provisioning": "dps", "kind": "group", "name": "g", "status": "enabled",
            "state": "in step", "observed_at": "2026-01-01T00:00:00Z",
        });
        ([(LINK, link)], Json(json!([row]))).into_response()
    }

    #[test]
    fn each_list_goes_on_where_it_is_and_keeps_the_page_of_the_other() {
        let api = Router::new()
            .route("/v1/enrollments", get(enrollments))
            .route("/v1/push", get(|| async { Json(json!([])) }))
            .route("/v1/ca-certificates", get(|| async { Json(json!([])) }));
        let which = Which {
            after: "3".into(),
            unknown_after: "4".into(),
        };
        let html = pollster::block_on(async {
            let page = show(Visit::of_test(api), Query(which)).await.unwrap();
            to_bytes(page.into_body(), 100_000).await.unwrap()
        });
        let html = String::from_utf8(html.to_vec()).unwrap();
        for next in ["after=9&#38;unknown_after=4", "after=3&#38;unknown_after=8"] {
            let link = format!("href=\"/console/cloud?{next}\"");
            assert!(html.contains(&link), "{link}: {html}");
        }
    }
}

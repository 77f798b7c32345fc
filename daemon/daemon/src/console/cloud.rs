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
}

#[derive(Deserialize)]
struct Enrollment {
    provisioning: String,
    kind: String,
    name: String,
    status: String,
    state: String,
    primary: Option<String>,
    secondary: Option<String>,
    observed_at: Option<At>,
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
    fn severity(&self) -> &'static str {
        severity(&self.state)
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
    enrollments: Vec<Enrollment>,
    next: Option<String>,
}

/// Shows the page.
pub(super) async fn show(visit: Visit, Query(which): Query<Which>) -> Result<Response, Refused> {
    let after = query(&[("after", &which.after)]);
    let path = format!("/v1/enrollments?limit={PAGE_ROWS}&{after}");
    let (enrollments, next) = visit.list(&path).await?;
    let path = format!("/v1/enrollments?unknown=true&limit={PAGE_ROWS}");
    page(&Page {
        frame: visit.frame("Cloud"),
        ca_certificates: visit.get("/v1/ca-certificates").await?,
        changes: visit.get("/v1/push").await?,
        unknown: visit.get(&path).await?,
        enrollments,
        next: next.map(|it| query(&[("after", &it)])),
    })
}

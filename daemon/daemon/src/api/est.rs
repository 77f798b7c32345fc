//! Serves `/.well-known/est/…`: EST (RFC 7030 as RFC 8951 clarifies it), with or without a label.
//!
//! This file has the envelope only: base64 in, base64 CMS out. Permissions and problem documents
//! are those of `/v1/certificates`. A request that cannot be answered now gets 503 with
//! `Retry-After`: 202 would promise that the request is kept.

use super::asks::Asks;
use super::body::read_typed;
use super::parts::Path;
use super::problem::Problem;
use super::{Api, Edge};
use crate::ca::authorize::Issue;
use crate::ca::est::EstRequest;
use crate::ca::issuer::issue::IssueRequest;
use crate::ca::{CertificateAuthority, Code, Error};
use crate::x509::certificate::Certificate;
use crate::x509::requested_names::UnprovenCsr;
use crate::x509::{certs_only, csr_attributes};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use axum::http::{HeaderValue, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::fmt::Display;

/// RFC 7030 4.1.3, and 4.2.3 where a certificate was issued.
const AUTHORITIES: &str = "application/pkcs7-mime";
const ISSUED: &str = "application/pkcs7-mime; smime-type=certs-only";
const CSR_ATTRIBUTES: &str = "application/csrattrs";
const REQUEST: &str = "application/pkcs10";

/// RFC 8951 has no use for it; clients from before look for it.
const TRANSFER_ENCODING: HeaderName = HeaderName::from_static("content-transfer-encoding");

/// A label is a profile.
type Label = Option<Path<String>>;

pub(super) fn routes() -> Router<Edge> {
    let bases = ["/.well-known/est", "/.well-known/est/{label}"];
    // Some clients put a slash behind the operation.
    let ends = bases.into_iter().flat_map(|base| [(base, ""), (base, "/")]);
    ends.fold(Router::new(), |router, (base, end)| {
        router
            .route(&format!("{base}/cacerts{end}"), get(authorities))
            .route(&format!("{base}/csrattrs{end}"), get(attributes))
            .route(&format!("{base}/simpleenroll{end}"), post(enroll))
            .route(&format!("{base}/simplereenroll{end}"), post(reenroll))
    })
}

/// Open to all: a client calls this to learn its trust anchor (RFC 7030, section 4.1.2).
async fn authorities(State(api): State<Api>, label: Label) -> Result<Response, Problem> {
    let ca = &api.ca;
    let profile = ca.est().profile(named(&label))?;
    let certificates = ca.est().authorities(profile)?;
    let certificates: Vec<&Certificate> = certificates.iter().map(|it| &it.certificate).collect();
    Ok(answer(
        ca,
        AUTHORITIES,
        certs_only::to_base64(&certificates).map_err(unencodable)?,
    ))
}

/// For everybody (RFC 7030 4.5.1).
async fn attributes(State(api): State<Api>, label: Label) -> Result<Response, Problem> {
    let ca = &api.ca;
    let profile = ca.est().profile(named(&label))?;
    let attributes = csr_attributes::to_base64(&profile.certificate).map_err(unencodable)?;
    Ok(answer(ca, CSR_ATTRIBUTES, attributes))
}

async fn enroll(
    asks: Asks<Issue>,
    label: Label,
    request: Request<Body>,
) -> Result<Response, Problem> {
    asks.issue_by_est(label, request, false).await
}

async fn reenroll(
    asks: Asks<Issue>,
    label: Label,
    request: Request<Body>,
) -> Result<Response, Problem> {
    asks.issue_by_est(label, request, true).await
}

impl Asks<Issue> {
    async fn issue_by_est(
        self,
        label: Label,
        request: Request<Body>,
        renews: bool,
    ) -> Result<Response, Problem> {
        let (head, body) = request.into_parts();
        let csr = read_typed(&head.headers, REQUEST, body).await?;
        let asked = EstRequest {
            label: named(&label).map(str::to_owned),
            csr: csr.into(),
            presented: self.peer.presented(),
            renews,
        };
        let asked = match self.read_est(asked.clone()).await {
            Ok(asked) => asked,
            Err(problem) => return Err(about(problem, &asked)),
        };
        let issued = self.issue(&asked).await?;
        let message = certs_only::to_base64(&[&issued.certificate]).map_err(unencodable)?;
        Ok(answer(&self.api.ca, ISSUED, message))
    }

    /// Turns an EST request into one of the issuance cycle.
    async fn read_est(&self, request: EstRequest) -> Result<IssueRequest, Problem> {
        let permission = self.permission.clone();
        let read = move |ca: &CertificateAuthority| ca.est().read_request(&permission, &request);
        self.api.application(read).await
    }
}

/// Adds who was refused, as far as the request says so.
fn about(problem: Problem, asked: &EstRequest) -> Problem {
    let requested = UnprovenCsr::read(&asked.csr).ok();
    let subject = requested.as_ref().and_then(|it| it.names.common_name());
    let profile = asked.label.as_deref().unwrap_or_default();
    problem.about(subject.unwrap_or_default(), profile)
}

/// The profile that an address names. Clients that join a base and an operation by two slashes name
/// none.
fn named(label: &Label) -> Option<&str> {
    let label = label.as_ref().map(|Path(label)| label.as_str());
    label.filter(|it| !it.is_empty())
}

fn answer(ca: &CertificateAuthority, content_type: &'static str, mut base64: String) -> Response {
    if !ca.est().settings().line_breaks {
        base64.retain(|it| it != '\n');
        // strongSwan reads it with the newline, and OpenSSL not without.
        base64.push('\n');
    }
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("base64"));
    (headers, base64).into_response()
}

fn unencodable(error: impl Display) -> Error {
    Error::stop(Code::AnswerUnencodable, error.to_string())
}

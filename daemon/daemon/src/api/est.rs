//! Serves `/.well-known/est/…`: EST (RFC 7030 as RFC 8951 clarifies it), with or without a label.
//!
//! This file has the envelope only: base64 in, base64 CMS out. Permissions and problem documents
//! are those of `/v1/certificates`. A request that cannot be answered now gets 503 with
//! `Retry-After`: 202 would promise that the request is kept.

use super::Edge;
use super::asks::{Asks, Open};
use super::body::read_typed;
use super::generated_keys::{is_not_kept, secret_body};
use super::parts::Path;
use super::problem::Problem;
use crate::ca::authorize::Issue;
use crate::ca::est::EstRequest;
use crate::ca::issuer::issue::{IssueRequest, Issued};
use crate::ca::{CertificateAuthority, Code, Error};
use crate::x509::certificate::Certificate;
use crate::x509::requested_names::UnprovenCsr;
use crate::x509::{certs_only, csr_attributes};
use axum::Router;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use axum::http::{HeaderValue, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::fmt::Display;
use zeroize::Zeroizing;

/// RFC 7030 4.1.3, and 4.2.3 where a certificate was issued.
pub(super) const AUTHORITIES: &str = "application/pkcs7-mime";
pub(super) const ISSUED: &str = "application/pkcs7-mime; smime-type=certs-only";
pub(super) const CSR_ATTRIBUTES: &str = "application/csrattrs";
pub(super) const REQUEST: &str = "application/pkcs10";

/// RFC 7030 4.4.2. No line of base64 begins with two hyphens.
const BOUNDARY: &str = "hallmark-key-and-certificate";
pub(super) const WITH_KEY: &str = "multipart/mixed; boundary=hallmark-key-and-certificate";
const PRIVATE_KEY: &str = "application/pkcs8";

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
            .route(&format!("{base}/serverkeygen{end}"), post(generate))
    })
}

/// Open to all: a client calls this to learn its trust anchor (RFC 7030, section 4.1.2).
pub(super) async fn authorities(Open(api): Open, label: Label) -> Result<Response, Problem> {
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
pub(super) async fn attributes(Open(api): Open, label: Label) -> Result<Response, Problem> {
    let ca = &api.ca;
    let profile = ca.est().profile(named(&label))?;
    let attributes = csr_attributes::to_base64(&profile.certificate).map_err(unencodable)?;
    Ok(answer(ca, CSR_ATTRIBUTES, attributes))
}

pub(super) async fn enroll(
    asks: Asks<Issue>,
    label: Label,
    request: Request<Body>,
) -> Result<Response, Problem> {
    asks.issue_by_est(label, request, false).await
}

pub(super) async fn reenroll(
    asks: Asks<Issue>,
    label: Label,
    request: Request<Body>,
) -> Result<Response, Problem> {
    asks.issue_by_est(label, request, true).await
}

/// RFC 7030 4.4. The key comes back as it is: TLS protects it. Its CSR is for the names alone. Each
/// request is a new one, because the key of an earlier answer is not kept.
pub(super) async fn generate(
    asks: Asks<Issue>,
    label: Label,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let received = asks.receive(label, request, false).await?;
    let mut asked = asks.read_est(&received).await?;
    let csr = UnprovenCsr::read(&received.csr)
        .map_err(|refusal| Error::invalid(refusal.code(), refusal.to_string()))?;
    asked.idempotency_key = None;
    let about = |problem: Problem| problem.about(&asked.registration_id, &asked.profile);
    if csr.wants_encrypted_key() {
        let message = "the CSR wants the key encrypted for another key (RFC 7030, 4.4.1), which is \
                       not done here: leave this attribute out";
        return Err(about(
            Error::invalid(Code::KeyGenerationInvalid, message).into(),
        ));
    }
    let turn = asks.turn().await.map_err(about)?;
    let key = asks.generated_key(&asked, None).await.map_err(about)?;
    drop(turn);
    asked.generated = Some(key.public_key().clone());
    let issued = asks.issue(&asked).await?;
    let message = certs_only::to_base64(&[&issued.certificate]).map_err(unencodable)?;
    let pkcs8 = key.base64_lines();
    Ok(with_key(&pkcs8, &message))
}

impl Asks<Issue> {
    async fn issue_by_est(
        self,
        label: Label,
        request: Request<Body>,
        renews: bool,
    ) -> Result<Response, Problem> {
        let request = self.receive(label, request, renews).await?;
        let issued = self.issue_for_est(&request).await?;
        let message = certs_only::to_base64(&[&issued.certificate]).map_err(unencodable)?;
        Ok(answer(&self.api.ca, ISSUED, message))
    }

    /// The cycle by the idempotency key of a first request, which needs no look into the store.
    /// Where the store then has another key, it runs once more by that.
    async fn issue_for_est(&self, request: &EstRequest) -> Result<Issued, Problem> {
        let first = self.api.ca.est().first_request(&self.permission, request);
        let first = first.map_err(|error| about(error.into(), request))?;
        let Some(first) = first else {
            return self.issue(&self.read_est(request).await?).await;
        };
        let issued = self.issue(&first).await;
        if issued.as_ref().is_ok_and(|it| !it.is_repeat) {
            return issued;
        }
        let read = self.read_est(request).await?;
        if read.idempotency_key == first.idempotency_key {
            return issued;
        }
        self.issue(&read).await
    }

    /// Reads a request.
    async fn receive(
        &self,
        label: Label,
        request: Request<Body>,
        renews: bool,
    ) -> Result<EstRequest, Problem> {
        let (head, body) = request.into_parts();
        let csr = read_typed(&head.headers, REQUEST, body).await?;
        Ok(EstRequest {
            label: named(&label).map(str::to_owned),
            csr: csr.into(),
            presented: self.peer.presented(),
            renews,
        })
    }

    /// Turns an EST request into one of the issuance cycle.
    async fn read_est(&self, request: &EstRequest) -> Result<IssueRequest, Problem> {
        let permission = self.permission.clone();
        let asked = request.clone();
        let read = move |ca: &CertificateAuthority| ca.est().read_request(&permission, &asked);
        let read = self.api.application(read).await;
        read.map_err(|problem| about(problem, request))
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

/// The answer of RFC 7030 4.4.2: the key, then its certificate.
fn with_key(pkcs8: &str, certificate: &str) -> Response {
    let head = |media: &str| {
        format!(
            "--{BOUNDARY}\r\nContent-Type: {media}\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        )
    };
    let key = head(PRIVATE_KEY);
    let leaf = head(ISSUED);
    let end = format!("\r\n--{BOUNDARY}--\r\n");
    let parts = [&*key, pkcs8, "\r\n", &*leaf, certificate, &*end];
    // `concat` allocates once, so that no copy is left behind.
    let body = secret_body(Zeroizing::new(parts.concat().into_bytes()));
    let content_type = HeaderValue::from_static(WITH_KEY);
    let mut response = ([(CONTENT_TYPE, content_type)], body).into_response();
    is_not_kept(&mut response);
    response
}

fn unencodable(error: impl Display) -> Error {
    Error::stop(Code::AnswerUnencodable, error.to_string())
}

//! Serves `/ocsp/{authority}`: OCSP over HTTP (RFC 6960 appendix A, RFC 5019), to all, over every
//! listener.
//!
//! No caller is identified. A kept answer comes from memory; others take a permit of their own, so
//! that clients that ask for signatures take none of the API's.

use super::asks::Open;
use super::body::read_typed_up_to;
use super::parts::Path;
use super::problem::Problem;
use super::published::{etag, is_known, system_time};
use super::{Api, Edge};
use crate::ca::ocsp::KeptAnswer;
use crate::ca::{Code, Error};
use crate::enrollment::thumbprint::Thumbprint;
use crate::measured;
use crate::x509::ocsp::request::REQUEST_BYTES_MAX;
use crate::x509::ocsp::{CertificateStatus, ErrorStatus, StatusRequest};
use axum::Router;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, LAST_MODIFIED};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::sync::Arc;

/// How long caches may keep an answer, in seconds: the certificate may be revoked before.
const AGE_SECONDS_MAX: i64 = 3_600;

/// Base64 of a request in an address. Some clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const CONTENT_TYPE_ASKED: &str = "application/ocsp-request";
const CONTENT_TYPE_ANSWERED: &str = "application/ocsp-response";

pub(super) fn routes() -> Router<Edge> {
    Router::new()
        .route("/ocsp/{authority}", post(by_post))
        .route("/ocsp/{authority}/{*request}", get(by_get))
}

/// The request is the body.
pub(super) async fn by_post(
    Open(api): Open,
    Path(authority): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    offers(&api, &authority)?;
    let der = read_typed_up_to(REQUEST_BYTES_MAX, &headers, CONTENT_TYPE_ASKED, body).await?;
    Ok(answer(&api, authority, &der, &HeaderMap::new()).await)
}

/// The request is a part of the address: base64, and then encoded by percent signs.
pub(super) async fn by_get(
    Open(api): Open,
    Path((authority, request)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    offers(&api, &authority)?;
    let der = BASE64.decode(request).unwrap_or_default();
    Ok(answer(&api, authority, &der, &headers).await)
}

fn offers(api: &Api, authority: &str) -> Result<(), Problem> {
    if api.ca.ocsp().answers_for(authority) {
        return Ok(());
    }
    let message = "no OCSP requests are answered under this name; it is an authority of [ocsp]";
    Err(Error::missing(Code::NotPublished, message).into())
}

async fn answer(api: &Api, authority: String, der: &[u8], asked: &HeaderMap) -> Response {
    let request = match StatusRequest::parse(der) {
        Ok(request) => request,
        Err(refusal) => {
            tracing::debug!(authority, %refusal, "OCSP request refused");
            return without_signature(ErrorStatus::MalformedRequest);
        }
    };
    let answered = match api.ca.ocsp().kept(&authority, &request) {
        Some(kept) => Ok(kept),
        None => {
            let permitted = api.for_ocsp();
            let asked = permitted.visit(move |ca| ca.ocsp().answer(&authority, &request));
            asked.await.unwrap_or(Err(ErrorStatus::TryLater))
        }
    };
    match answered {
        Ok(answer) => signed(api, answer, asked),
        Err(status) => without_signature(status),
    }
}

/// An answer without a signature may be another one in a second.
fn without_signature(status: ErrorStatus) -> Response {
    measured::ocsp_answer(match status {
        ErrorStatus::MalformedRequest => "malformed_request",
        ErrorStatus::InternalError => "internal_error",
        ErrorStatus::TryLater => "try_later",
        ErrorStatus::Unauthorized => "unauthorized",
    });
    let headers = [
        (CONTENT_TYPE, CONTENT_TYPE_ANSWERED),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, status.der()).into_response()
}

/// RFC 5019 section 6.2. An answer for one client alone, and one that may change with the next
/// certificate that is issued, are not for caches.
fn signed(api: &Api, answer: Arc<KeptAnswer>, asked: &HeaderMap) -> Response {
    for status in &answer.statuses {
        measured::ocsp_answer(match status {
            CertificateStatus::Good => "good",
            CertificateStatus::Revoked { .. } => "revoked",
            CertificateStatus::Unknown => "unknown",
        });
    }
    let content_type = [(CONTENT_TYPE, CONTENT_TYPE_ANSWERED)];
    if !answer.is_for_all {
        let headers = [(CACHE_CONTROL, "no-store")];
        return (content_type, headers, answer.der.to_vec()).into_response();
    }
    let tag = etag(*Thumbprint::of(&answer.der).as_bytes());
    // Less than the whole rest: the answer has to hold when it leaves the cache.
    let age = (answer.next_update - api.ca.now() - 1).clamp(0, AGE_SECONDS_MAX);
    let modified = system_time(answer.this_update);
    // The next answer may be signed in the same second, so by its date it is not known.
    let known = is_known(asked, &tag, None);
    let headers = [
        (ETAG, tag),
        (LAST_MODIFIED, httpdate::fmt_http_date(modified)),
        (
            EXPIRES,
            httpdate::fmt_http_date(system_time(answer.next_update)),
        ),
        (
            CACHE_CONTROL,
            format!("max-age={age}, public, no-transform, must-revalidate"),
        ),
    ];
    if known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (content_type, headers, answer.der.to_vec()).into_response()
}

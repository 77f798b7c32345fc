//! `POST /v1/certificates`: a leaf for a device, a station, an operator or a server.

use super::body::{BODY_TIMEOUT, too_slow};
use super::caller::Peer;
use super::problem::Problem;
use super::{Api, BODY_BYTES_MAX};
use crate::ca::authorize::{Authorized, Issue};
use crate::ca::est::EstRequest;
use crate::ca::hierarchy::ChainLink;
use crate::ca::issue::{IssueRequest, Issued};
use crate::ca::{Error, rfc3339};
use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, body};
use serde::{Deserialize, Serialize, Serializer};
use std::sync::Arc;

/// The request's body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    /// The profile's name.
    profile: String,
    /// The registration id.
    registration_id: String,
    /// PKCS #10 as PEM, or base64 of DER.
    csr: String,
    /// Of an operator: a registered device may get another profile.
    #[serde(default)]
    r#move: bool,
}

/// The answer's body.
#[derive(Serialize)]
pub(super) struct Answer {
    registration_id: String,
    profile: String,
    /// Upper hex.
    serial: String,
    /// Upper hex SHA-256 of the certificate.
    thumbprint: String,
    /// RFC 3339.
    not_before: String,
    /// RFC 3339.
    not_after: String,
    /// PEM.
    certificate: String,
    /// PEM, the issuer first, up to and including the certificate that is verified in the
    /// provisioning service. Devices present the certificate followed by all of these.
    #[serde(serialize_with = "pem_of_each")]
    chain: Vec<Arc<ChainLink>>,
    /// Provisioning services that are yet to be told; the old certificate stays good meanwhile.
    pending: Vec<String>,
}

fn pem_of_each<S: Serializer>(chain: &[Arc<ChainLink>], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(chain.iter().map(|link| &link.pem_json))
}

impl From<Issued> for Answer {
    fn from(issued: Issued) -> Self {
        let certificate = issued.certificate;
        Self {
            registration_id: issued.subject,
            profile: issued.profile,
            serial: certificate.serial().to_string(),
            thumbprint: hex::encode_upper(certificate.sha256()),
            not_before: rfc3339(certificate.not_before()),
            not_after: rfc3339(certificate.not_after()),
            certificate: certificate.to_pem(),
            chain: issued.chain,
            pending: issued.pending,
        }
    }
}

pub(super) async fn issue(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    request: Request<Body>,
) -> Response {
    let asked = read(&peer, &headers, request.into_body()).await;
    match api.issue(peer, asked.map(Asked::Issue)).await {
        Ok(issued) => (StatusCode::CREATED, Json(Answer::from(issued))).into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// A request for a certificate, by either interface.
pub(super) enum Asked {
    Issue(IssueRequest),
    Est(EstRequest),
}

impl Api {
    /// The whole cycle, in a task of its own. Who asks is judged before what was asked, and a
    /// refusal by either is audited here; one by the cycle itself is audited there.
    pub(super) async fn issue(
        &self,
        peer: Peer,
        request: Result<Asked, Problem>,
    ) -> Result<Issued, Problem> {
        let permit = self.admit()?;
        let api = self.clone();
        let cycle = tokio::spawn(async move {
            let _permit = permit;
            api.run_cycle(&peer, request).await
        });
        cycle
            .await
            .map_err(|_| Error::stop("internal", "the request failed; the log says why"))?
    }

    async fn run_cycle(
        &self,
        peer: &Peer,
        request: Result<Asked, Problem>,
    ) -> Result<Issued, Problem> {
        // 1. Who asks, and what they may.
        let caller = match self.caller(peer).await {
            Ok(caller) => caller,
            Err(problem) => {
                if problem.error().is_refusal() {
                    self.ca.record_refused_stranger(problem.error()).await;
                }
                return Err(problem);
            }
        };
        let name = caller.to_string();
        let permission = match Authorized::<Issue>::to_issue(caller) {
            Ok(permission) => permission,
            Err(error) => return Err(self.audited(&name, error.into()).await),
        };
        let request = match request {
            Ok(Asked::Est(request)) => self.read_est(permission.caller(), request).await,
            Ok(Asked::Issue(request)) => Ok(request),
            Err(problem) => Err(problem),
        };
        let request = match request {
            Ok(request) => request,
            Err(problem) => return Err(self.audited(&name, problem).await),
        };
        Ok(self.ca.issue(&permission, &request).await?)
    }

    /// Writes down a refusal. It stands, whether or not it could be written down.
    async fn audited(&self, actor: &str, problem: Problem) -> Problem {
        let error = problem.error();
        if error.is_refusal() {
            self.ca.record_refused(actor, "", "", error).await;
        }
        problem
    }
}

/// The body of a request of this media type, within its limits.
pub(super) async fn read_body(
    headers: &HeaderMap,
    media_type: &str,
    body: Body,
) -> Result<Bytes, Problem> {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let said = content_type
        .and_then(|value| value.split(';').next())
        .map(str::trim);
    if !said.is_some_and(|it| it.eq_ignore_ascii_case(media_type)) {
        let error = Error::mend("content_type_unsupported", format!("send {media_type}"));
        return Err(Problem::with_status(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            error,
        ));
    }
    let body = tokio::time::timeout(BODY_TIMEOUT, body::to_bytes(body, BODY_BYTES_MAX));
    let body = body.await.map_err(|_| too_slow())?;
    body.map_err(|_| {
        let message = format!("a request has at most {BODY_BYTES_MAX} bytes, sent whole");
        let error = Error::mend("body_too_large", message);
        Problem::with_status(StatusCode::PAYLOAD_TOO_LARGE, error)
    })
}

/// Step 2 of the issuance cycle: the request, within its limits.
async fn read(peer: &Peer, headers: &HeaderMap, body: Body) -> Result<IssueRequest, Problem> {
    let body = read_body(headers, "application/json", body).await?;
    let ask: Ask = serde_json::from_slice(&body).map_err(|error| {
        Error::mend(
            "body_invalid",
            format!("the body is not as /v1/certificates has it: {error}"),
        )
    })?;
    let idempotency_key = headers
        .get("idempotency-key")
        .map(|value| value.to_str().map(str::to_owned))
        .transpose()
        .map_err(|_| Error::mend("idempotency_key_invalid", "an idempotency key is ASCII"))?;
    if idempotency_key.is_none() && matches!(peer, Peer::Network { .. }) {
        return Err(Error::mend(
            "idempotency_key_required",
            "send an Idempotency-Key (a UUID): the repeat of a lost answer is then not a second \
             certificate",
        )
        .into());
    }
    Ok(IssueRequest {
        profile: ask.profile,
        registration_id: ask.registration_id,
        csr: ask.csr.into_bytes(),
        idempotency_key,
        moves: ask.r#move,
    })
}

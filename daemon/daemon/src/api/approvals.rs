//! Serves `/v1/approvals`: requests that wait for the approval of a second person.

use super::asks::Asks;
use super::body::JsonBody;
use super::pagination;
use super::parts::{Path, Query};
use super::problem::Problem;
use crate::ca::approval::document::{DOMAIN, signed_bytes};
use crate::ca::authorize::{Approve, Inspect};
use crate::ca::{Code, Error};
use crate::ids::ApprovalId;
use crate::store::ApprovalRow;
use crate::unix_seconds::UnixSeconds;
use crate::x509::bundle::parse_first;
use axum::Json;
use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A request for an approval, and what became of it.
#[derive(Serialize, JsonSchema)]
pub(super) struct Approval {
    id: ApprovalId,
    /// The name of the action in `[approval] actions`.
    action: String,
    state: &'static str,
    asked_by: String,
    asked_at: String,
    /// The end of the request, and of the approval.
    expires_at: String,
    /// Hex SHA-256 of the signed bytes.
    sha256: String,
    /// The bytes that are signed, as text.
    document: String,
    approved_by: Option<String>,
    approved_at: Option<String>,
    /// Hex SHA-256 of the approver's certificate.
    certificate: Option<String>,
    /// Base64.
    signature: Option<String>,
    rejected_by: Option<String>,
    used_at: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Page {
    after: Option<ApprovalId>,
    limit: Option<u32>,
    /// Leaves out what was decided or has ended.
    #[serde(default)]
    waiting: bool,
}

/// The signature of an approver.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Signature {
    /// Base64, over the bytes of the document.
    signature: String,
    /// The approver's certificate: PEM, or base64 of DER. By default the caller's own.
    certificate: Option<String>,
}

/// Nothing needs to be said.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rejection {}

impl Approval {
    fn new(row: ApprovalRow, now: UnixSeconds) -> Self {
        let state = row.state(now).name();
        let signed = row.signed;
        Self {
            id: row.id,
            action: row.action,
            state,
            asked_by: row.asked_by,
            asked_at: row.asked_at.to_string(),
            expires_at: row.expires_at.to_string(),
            sha256: hex::encode(row.sha256),
            document: format!("{DOMAIN}{}", row.document),
            approved_by: signed.as_ref().map(|it| it.by.clone()),
            approved_at: row.signed_at.map(|it| it.to_string()),
            certificate: signed.as_ref().map(|it| hex::encode_upper(it.certificate)),
            signature: signed.as_ref().map(|it| STANDARD.encode(&it.signature)),
            rejected_by: row.rejected_by,
            used_at: row.used_at.map(|it| it.to_string()),
        }
    }
}

pub(super) async fn list(
    Asks { api, .. }: Asks<Inspect>,
    Query(page): Query<Page>,
) -> Result<(HeaderMap, Json<Vec<Approval>>), Problem> {
    let limit = pagination::rows(page.limit);
    let waiting = page.waiting;
    let rows = api.application(move |ca| {
        let rows = if waiting {
            // There are few: so many fit one page.
            ca.approvals().waiting()?
        } else {
            ca.store().approvals(page.after, limit)?
        };
        let now = ca.now();
        let rows = rows.into_iter().map(|it| Approval::new(it, now));
        Ok(rows.collect())
    });
    let path = format!("/v1/approvals?waiting={waiting}");
    Ok(pagination::page(&path, rows.await?, limit, |it| it.id))
}

pub(super) async fn show(
    Asks { api, .. }: Asks<Inspect>,
    Path(id): Path<ApprovalId>,
) -> Result<Json<Approval>, Problem> {
    let shown = api.application(move |ca| Ok(Approval::new(ca.store().approval(id)?, ca.now())));
    Ok(Json(shown.await?))
}

/// The bytes that are signed.
pub(super) async fn document(
    Asks { api, .. }: Asks<Inspect>,
    Path(id): Path<ApprovalId>,
) -> Result<String, Problem> {
    let row = api.application(move |ca| Ok(ca.store().approval(id)?));
    let bytes = signed_bytes(&row.await?.document);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) async fn sign(
    Asks {
        api, permission, ..
    }: Asks<Approve>,
    Path(id): Path<ApprovalId>,
    JsonBody(sent): JsonBody<Signature>,
) -> Result<Json<Approval>, Problem> {
    let lines = sent.signature.split_ascii_whitespace();
    let signature = STANDARD.decode(lines.collect::<String>()).map_err(|_| {
        let message = "the signature is not base64; write it by `openssl base64 -A`";
        Error::invalid(Code::ApprovalInvalid, message)
    })?;
    let certificate = sent.certificate.map(|text| {
        let certificate = parse_first(text.as_bytes()).map_err(|error| {
            let message = format!("send the certificate as PEM or base64 of DER: {error}");
            Error::invalid(Code::CertificateMalformed, message)
        })?;
        Ok::<_, Error>(certificate.der().clone())
    });
    let certificate = certificate.transpose()?;
    let approved = api.application(move |ca| {
        let certificate = certificate.as_deref();
        let approvals = ca.approvals();
        let row = approvals.approve(&permission, id, certificate, signature)?;
        Ok(Approval::new(row, ca.now()))
    });
    Ok(Json(approved.await?))
}

pub(super) async fn reject(
    Asks {
        api, permission, ..
    }: Asks<Approve>,
    Path(id): Path<ApprovalId>,
    JsonBody(Rejection {}): JsonBody<Rejection>,
) -> Result<Json<Approval>, Problem> {
    let rejected = api.application(move |ca| {
        let row = ca.approvals().reject(&permission, id)?;
        Ok(Approval::new(row, ca.now()))
    });
    Ok(Json(rejected.await?))
}

//! Serves `/v1/authorities/{name}/subordinates`: certificates of authorities elsewhere.

use super::asks::Asks;
use super::body::JsonBody;
use super::caller::Peer;
use super::certificates::{idempotency_key, pem_of_each};
use super::parts::Path;
use super::problem::Problem;
use crate::ca::Error;
use crate::ca::authorize::{Inspect, Operate};
use crate::ca::hierarchy::ChainLink;
use crate::ca::issuer::subordinate::{SignedSubordinate, SubordinateRequest};
use crate::ids::GenerationNumber;
use crate::store::CertificateRow;
use crate::x509::revocation::RevocationReason;
use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    profile: String,
    /// PKCS #10 as PEM, or base64 of DER.
    csr: String,
    /// The common name that the request must have.
    common_name: Option<String>,
    /// A shorter validity than the profile's.
    days: Option<u32>,
    /// The holder has a new key.
    #[serde(default)]
    rekey: bool,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "IssuedSubordinate")]
pub(super) struct Answer {
    /// The common name, or the whole subject where it has no single one.
    subject: String,
    profile: String,
    /// The authority that signed, and which generation of it.
    authority: String,
    generation: GenerationNumber,
    serial: String,
    /// Upper hex SHA-256 of the certificate.
    thumbprint: String,
    not_before: String,
    not_after: String,
    path_length: Option<u8>,
    /// The certificate as PEM.
    certificate: String,
    /// PEM, the issuer first, up to the self-signed certificate.
    #[serde(serialize_with = "pem_of_each")]
    #[schemars(with = "Vec<String>")]
    chain: Vec<Arc<ChainLink>>,
    /// The serial number of the certificate with the same key that this one follows.
    renews: Option<String>,
    /// The serial numbers of valid certificates with the same subject and other keys.
    beside: Vec<String>,
    dropped_names: Vec<String>,
    dropped_extensions: Vec<String>,
}

impl From<SignedSubordinate> for Answer {
    fn from(signed: SignedSubordinate) -> Self {
        let certificate = signed.issued.certificate;
        Self {
            subject: signed.issued.subject,
            profile: signed.issued.profile,
            authority: signed.authority,
            generation: signed.generation,
            serial: certificate.serial().to_string(),
            thumbprint: hex::encode_upper(certificate.sha256()),
            not_before: certificate.not_before().to_string(),
            not_after: certificate.not_after().to_string(),
            path_length: certificate.path_length(),
            certificate: certificate.to_pem(),
            chain: signed.above,
            renews: signed.renews,
            beside: signed.beside,
            dropped_names: signed.issued.dropped_names,
            dropped_extensions: signed.dropped_extensions,
        }
    }
}

/// A subordinate certificate in a list.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ListedSubordinate")]
pub(super) struct Row {
    serial: String,
    thumbprint: String,
    subject: String,
    profile: String,
    not_before: String,
    not_after: String,
    revoked_at: Option<String>,
    revocation_reason: Option<&'static str>,
}

impl From<CertificateRow> for Row {
    fn from(row: CertificateRow) -> Self {
        Self {
            serial: hex::encode_upper(&row.serial),
            thumbprint: hex::encode_upper(row.sha256),
            subject: row.subject,
            profile: row.profile,
            not_before: row.not_before.to_string(),
            not_after: row.not_after.to_string(),
            revoked_at: row.revoked_at.map(|it| it.to_string()),
            revocation_reason: row.revocation_reason.map(RevocationReason::name),
        }
    }
}

pub(super) async fn sign(
    Asks {
        api,
        peer,
        permission,
        ..
    }: Asks<Operate>,
    Path(name): Path<String>,
    headers: HeaderMap,
    JsonBody(ask): JsonBody<Ask>,
) -> Result<(StatusCode, Json<Answer>), Problem> {
    let is_remote = matches!(peer, Peer::Network { .. });
    let request = SubordinateRequest {
        authority: name,
        profile: ask.profile,
        csr: ask.csr.into_bytes(),
        common_name: ask.common_name,
        days: ask.days,
        rekey: ask.rekey,
        idempotency_key: idempotency_key(&headers, is_remote)?,
    };
    let authority = request.authority.clone();
    let profile = request.profile.clone();
    let signed = api.application(move |ca| ca.issuer().sign_subordinate(&permission, &request));
    let signed = signed
        .await
        .map_err(|problem| problem.about(&authority, &profile))?;
    Ok((StatusCode::CREATED, Json(Answer::from(signed))))
}

pub(super) async fn list(
    Asks { api, .. }: Asks<Inspect>,
    Path(name): Path<String>,
) -> Result<Json<Vec<Row>>, Problem> {
    let rows = api.application(move |ca| {
        let rows = ca.issuer().subordinates(&name)?;
        Ok::<_, Error>(rows.into_iter().map(Row::from).collect())
    });
    Ok(Json(rows.await?))
}

//! `/v1/certificates`: requests for leaves, and the certificates that were issued.

use super::asks::Asks;
use super::body::{Members, read_typed, why_invalid};
use super::caller::Peer;
use super::generated_keys::Generate;
use super::parts::{Path, Query};
use super::problem::Problem;
use crate::ca::authorize::{Fetch, Issue};
use crate::ca::exclusion::certificate_name::CertificateName;
use crate::ca::exclusion::former::ONLY_ITS_SERIAL;
use crate::ca::explain::{Explained, Explanation};
use crate::ca::hierarchy::ChainLink;
use crate::ca::issuer::fetch::Fetched;
use crate::ca::issuer::former::FormerRow;
use crate::ca::issuer::issue::{IssueRequest, Issued};
use crate::ca::profile::Role;
use crate::ca::{Code, Error};
use crate::ids::GenerationNumber;
use crate::measured::{self, Outcome, Stage, StageClock};
use crate::x509::certificate::render_pem;
use crate::x509::revocation::RevocationReason;
use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use std::sync::Arc;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    profile: String,
    registration_id: String,
    /// PKCS #10 as PEM, or base64 of DER.
    #[serde(default)]
    csr: Option<String>,
    /// The daemon makes the key pair; the CSR is then left out, or gives names alone.
    #[serde(default)]
    generate: Option<Generate>,
    /// Of an operator: a registered device may get another profile.
    #[serde(default)]
    r#move: bool,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Issued")]
pub(super) struct Answer {
    registration_id: String,
    profile: String,
    serial: String,
    /// Upper hex SHA-256 of the certificate.
    thumbprint: String,
    not_before: String,
    not_after: String,
    /// The leaf as PEM.
    certificate: String,
    /// PEM, the issuer first, up to and including the certificate that is verified in the
    /// provisioning service. Devices present the certificate followed by all of these.
    #[serde(serialize_with = "pem_of_each")]
    #[schemars(with = "Vec<String>")]
    chain: Vec<Arc<ChainLink>>,
    /// Provisioning services that do not have the certificate yet; they accept the previous one.
    pending: Vec<String>,
    /// Names in the CSR that the profile does not certify.
    dropped_names: Vec<String>,
}

pub(super) fn pem_of_each<S: Serializer>(
    chain: &[Arc<ChainLink>],
    to: S,
) -> Result<S::Ok, S::Error> {
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
            not_before: certificate.not_before().to_string(),
            not_after: certificate.not_after().to_string(),
            certificate: certificate.to_pem(),
            chain: issued.chain,
            pending: issued.pending,
            dropped_names: issued.dropped_names,
        }
    }
}

/// A certificate that was issued before. Of one that is known by its serial number alone, what is
/// unknown is null.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Certificate")]
pub(super) struct Found {
    /// Its common name; a device's registration id.
    subject: Option<String>,
    profile: Option<String>,
    role: Option<Role>,
    serial: String,
    thumbprint: Option<String>,
    /// The authority that issued it, and which generation of it.
    authority: Option<String>,
    generation: Option<GenerationNumber>,
    not_before: Option<String>,
    not_after: Option<String>,
    revoked_at: Option<String>,
    revocation_reason: Option<&'static str>,
    certificate: Option<String>,
    #[serde(serialize_with = "pem_of_each")]
    #[schemars(with = "Vec<String>")]
    chain: Vec<Arc<ChainLink>>,
    /// For callers that may fetch all certificates: what is on record of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Explanation>,
    /// Sentences for the operator.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notices: Vec<&'static str>,
}

impl From<Explained> for Found {
    fn from(explained: Explained) -> Self {
        match explained {
            Explained::Certificate(it) => Self::new(it.0, it.1),
            Explained::SerialAlone(former) => Self::of_serial(former),
        }
    }
}

impl Found {
    fn of_serial(row: FormerRow) -> Self {
        let it = row.certificate;
        let (authority, generation) = row.issuer;
        Self {
            subject: it.subject,
            profile: None,
            role: None,
            serial: hex::encode_upper(&it.serial),
            thumbprint: None,
            authority: Some(authority),
            generation: Some(generation),
            not_before: None,
            not_after: it.not_after.map(|it| it.to_string()),
            revoked_at: it.revoked.map(|(since, _)| since.to_string()),
            revocation_reason: it.revoked.map(|(_, reason)| reason.name()),
            certificate: None,
            chain: Vec::new(),
            record: None,
            notices: vec![ONLY_ITS_SERIAL],
        }
    }

    fn new(fetched: Fetched, record: Option<Explanation>) -> Self {
        let row = fetched.certificate;
        let (authority, generation) = fetched.issuer.unzip();
        Self {
            subject: Some(row.subject),
            profile: Some(row.profile),
            role: row.role,
            serial: hex::encode_upper(&row.serial),
            thumbprint: Some(hex::encode_upper(row.sha256)),
            authority,
            generation,
            not_before: Some(row.not_before.to_string()),
            not_after: Some(row.not_after.to_string()),
            revoked_at: row.revoked_at.map(|it| it.to_string()),
            revocation_reason: row.revocation_reason.map(RevocationReason::name),
            certificate: Some(render_pem(&row.der)),
            chain: fetched.chain,
            record,
            notices: Vec::new(),
        }
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct By {
    authority: Option<String>,
}

pub(super) async fn show(
    Asks {
        api, permission, ..
    }: Asks<Fetch>,
    Path(digits): Path<String>,
    Query(by): Query<By>,
) -> Result<Json<Found>, Problem> {
    let name = CertificateName::of_digits(&digits, by.authority)?;
    let explained = api
        .application(move |ca| ca.explain(&permission, &name))
        .await?;
    Ok(Json(Found::from(explained)))
}

pub(super) async fn issue(
    asks: Asks<Issue>,
    headers: HeaderMap,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (asked, generate) = read(&asks.peer, &headers, request.into_body()).await?;
    if let Some(generate) = generate {
        return asks.issue_with_key(asked, generate).await;
    }
    let issued = asks.issue(&asked).await?;
    let mut clock = StageClock::begin();
    let answer = (StatusCode::CREATED, Json(Answer::from(issued))).into_response();
    clock.ends(Stage::Answer);
    Ok(answer)
}

impl Asks<Issue> {
    /// The whole cycle. The layer `api::refusals` has it run to its end, and audits its refusals.
    pub(super) async fn issue(&self, request: &IssueRequest) -> Result<Issued, Problem> {
        let permit = self.api.take_permit().await;
        let _permit = permit.inspect_err(|_| self.count_overload())?;
        self.run_cycle(request).await
    }

    /// Counts a request that was not begun because of the load as failed.
    pub(super) fn count_overload(&self) {
        measured::issuance(self.since, Outcome::Failed);
    }

    /// The same, with the permit of the caller.
    pub(super) async fn run_cycle(&self, request: &IssueRequest) -> Result<Issued, Problem> {
        let begun = measured::leaves_queue(self.since);
        let issuer = self.api.ca.issuer();
        let issued = issuer.issue_certificate(&self.permission, request).await;
        measured::issuance(
            begun,
            match &issued {
                Ok(_) => Outcome::Issued,
                Err(error) if error.is_refusal() => Outcome::Refused,
                Err(_) => Outcome::Failed,
            },
        );
        issued
            .map_err(|error| Problem::from(error).about(&request.registration_id, &request.profile))
    }
}

/// Step 2 of the issuance cycle: the request, within its limits.
async fn read(
    peer: &Peer,
    headers: &HeaderMap,
    body: Body,
) -> Result<(IssueRequest, Option<Generate>), Problem> {
    let body = read_typed(headers, "application/json", body).await?;
    let Members(ask): Members<Ask> = serde_json::from_slice(&body)
        .map_err(|error| Error::invalid(Code::BodyInvalid, why_invalid(&error)))?;
    if ask.csr.is_none() && ask.generate.is_none() {
        let message =
            "the body has no `csr`; send one, or `generate` for a key that the daemon makes";
        return Err(Error::invalid(Code::BodyInvalid, message).into());
    }
    let idempotency_key = idempotency_key(headers, matches!(peer, Peer::Network { .. }))?;
    let request = IssueRequest {
        profile: ask.profile,
        registration_id: ask.registration_id,
        csr: ask.csr.unwrap_or_default().into_bytes(),
        generated: None,
        idempotency_key,
        moves: ask.r#move,
    };
    Ok((request, ask.generate))
}

/// Returns the caller's name for the request, which callers over the network must send.
pub(super) fn idempotency_key(
    headers: &HeaderMap,
    is_required: bool,
) -> Result<Option<String>, Error> {
    let key = headers
        .get("idempotency-key")
        .map(|value| value.to_str().map(str::to_owned))
        .transpose()
        .map_err(|_| Error::invalid(Code::IdempotencyKeyInvalid, "an idempotency key is ASCII"))?;
    if key.is_none() && is_required {
        return Err(Error::invalid(
            Code::IdempotencyKeyRequired,
            "send an Idempotency-Key (a UUID): the repeat of a lost answer is then not a second \
             certificate",
        ));
    }
    Ok(key)
}

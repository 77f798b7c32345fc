//! Serves `/v1/authorities`: the generations of every authority, with key and issuer.

use super::asks::Asks;
use super::body::JsonBody;
use super::parts::Path;
use super::problem::Problem;
use crate::ca::authorize::{Inspect, Operate};
use crate::ca::exclusion::block::ActiveBlock;
use crate::ca::external::PendingAuthority;
use crate::ca::hierarchy::{ChainLink, Generation};
use crate::ca::issuer::cross::CrossStatus;
use crate::ca::{CertificateAuthority, Code, Error};
use crate::crl_number::CrlNumber;
use crate::ids::GenerationNumber;
use crate::store::{BlockKind, GenerationState};
use axum::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Generation")]
pub(super) struct Authority {
    name: String,
    generation: GenerationNumber,
    serving: bool,
    state: GenerationState,
    subject: String,
    issuer: String,
    serial: String,
    thumbprint: String,
    not_before: String,
    not_after: String,
    /// When it stops to sign leaves, by its policy.
    signs_until: String,
    path_length: Option<u8>,
    key_type: crate::x509::key::KeyType,
    token: String,
    key_label: String,
    spki_sha256: String,
    revoked_at: Option<String>,
    /// The block that excludes what is below it.
    blocked: Option<ActiveBlock>,
    crl_number: Option<CrlNumber>,
    crl_next_update: Option<String>,
    crl_entries: Option<i64>,
    /// The certificate as PEM.
    certificate: String,
    /// The certificates above that of an external authority, its issuer's first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    foreign: Vec<Foreign>,
    /// The certificates of a root's key by other generations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cross_certificates: Vec<CrossStatus>,
    /// Why a root that was rolled has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_cross_certificates: Option<String>,
}

/// A certificate above an external authority.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CertificateAbove")]
struct Foreign {
    subject: String,
    thumbprint: String,
    not_after: String,
    /// The certificate as PEM.
    certificate: String,
}

/// A generation as it is shown.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "AnyGeneration")]
pub(super) enum Shown {
    Certified(Box<Authority>),
    Pending(PendingAuthority),
}

impl From<&Arc<ChainLink>> for Foreign {
    fn from(link: &Arc<ChainLink>) -> Self {
        let certificate = &link.certificate;
        Self {
            subject: certificate.subject(),
            thumbprint: hex::encode_upper(certificate.sha256()),
            not_after: certificate.not_after().to_string(),
            certificate: link.pem.clone(),
        }
    }
}

impl Authority {
    fn new(ca: &CertificateAuthority, generation: &Generation) -> Result<Self, Error> {
        let kind = BlockKind::Generation;
        let name = &generation.authority;
        let blocked = ca
            .store()
            .active_block(kind, name, Some(generation.number))?;
        let certificate = &generation.certificate;
        let list = ca.crls().summary(generation);
        Ok(Self {
            blocked: blocked.map(ActiveBlock::from),
            name: generation.authority.clone(),
            generation: generation.number,
            serving: generation.serving,
            state: generation.state,
            subject: certificate.subject(),
            issuer: certificate.issuer(),
            serial: certificate.serial().to_string(),
            thumbprint: hex::encode_upper(certificate.sha256()),
            not_before: certificate.not_before().to_string(),
            not_after: certificate.not_after().to_string(),
            signs_until: ca.rollovers().window_end(generation).to_string(),
            path_length: certificate.path_length(),
            key_type: generation.public_key.key_type(),
            token: generation.token.clone(),
            key_label: generation.key.label.clone(),
            spki_sha256: hex::encode(generation.public_key.sha256()),
            revoked_at: generation.revoked_at.map(|it| it.to_string()),
            crl_number: list.map(|list| list.number),
            crl_next_update: list.map(|list| list.next_update.to_string()),
            crl_entries: list.map(|list| list.entries),
            certificate: generation.link.pem.clone(),
            foreign: generation.foreign.iter().map(Foreign::from).collect(),
            cross_certificates: ca.issuer().cross_certificates_of(generation),
            no_cross_certificates: ca.issuer().no_cross_certificates(generation),
        })
    }
}

/// Returns the generations with a certificate, issuers first, then those that wait for one: of all
/// authorities, or of `name`.
fn shown(ca: &CertificateAuthority, name: Option<&str>) -> Result<Vec<Shown>, Error> {
    let is_meant = |authority: &str| name.is_none_or(|name| name == authority);
    let hierarchy = ca.hierarchy();
    let certified = hierarchy.iter().filter(|it| is_meant(&it.authority));
    let certified = certified.map(|it| Ok(Shown::Certified(Box::new(Authority::new(ca, it)?))));
    let pending = ca
        .ceremonies()
        .pending()?
        .into_iter()
        .filter(|it| is_meant(&it.name))
        .map(|it| Ok(Shown::Pending(it)));
    certified.chain(pending).collect()
}

pub(super) async fn list(Asks { api, .. }: Asks<Inspect>) -> Result<Json<Vec<Shown>>, Problem> {
    let all = api.application(|ca| shown(ca, None));
    Ok(Json(all.await?))
}

pub(super) async fn show(
    Asks { api, .. }: Asks<Inspect>,
    Path(name): Path<String>,
) -> Result<Json<Vec<Shown>>, Problem> {
    let generations = api.application(move |ca| {
        let shown = shown(ca, Some(&name))?;
        if shown.is_empty() {
            let message =
                format!("there is no authority {name:?}; `hallmark authority list` shows all");
            return Err(Error::missing(Code::AuthorityUnknown, message));
        }
        Ok(shown)
    });
    Ok(Json(generations.await?))
}

/// The CSR for the external issuer of an authority.
#[derive(Serialize, JsonSchema)]
pub(super) struct CertificationRequest {
    /// The CSR as PEM.
    csr: String,
}

/// The certificate of the external issuer, and those above it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Installation {
    /// PEM: the certificate and all above it.
    certificates: String,
}

pub(super) async fn request(
    Asks {
        api, permission, ..
    }: Asks<Operate>,
    Path(name): Path<String>,
) -> Result<Json<CertificationRequest>, Problem> {
    let csr = api.application(move |ca| ca.ceremonies().request_pem(&permission, &name));
    Ok(Json(CertificationRequest { csr: csr.await? }))
}

pub(super) async fn install(
    Asks {
        api, permission, ..
    }: Asks<Operate>,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<Installation>,
) -> Result<Json<Vec<Shown>>, Problem> {
    let shown = api.application(move |ca| {
        ca.ceremonies()
            .install(&permission, &name, &body.certificates)?;
        shown(ca, Some(&name))
    });
    Ok(Json(shown.await?))
}

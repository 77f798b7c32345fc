//! `/v1/authorities`: what signs, with which key, under whom.

use super::Api;
use super::caller::Peer;
use super::problem::Problem;
use crate::ca::authorize::{Authorized, Inspect};
use crate::ca::hierarchy::Generation;
use crate::ca::{Error, rfc3339};
use crate::store::GenerationState;
use axum::Json;
use axum::extract::{Extension, Path, State};
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct Authority {
    name: String,
    generation: i64,
    serving: bool,
    state: GenerationState,
    subject: String,
    issuer: String,
    serial: String,
    thumbprint: String,
    not_before: String,
    not_after: String,
    path_length: Option<u8>,
    key_type: crate::x509::key::KeyType,
    token: String,
    key_label: String,
    spki_sha256: String,
    /// PEM.
    certificate: String,
}

impl From<&Generation> for Authority {
    fn from(generation: &Generation) -> Self {
        let certificate = &generation.certificate;
        Self {
            name: generation.authority.clone(),
            generation: generation.number,
            serving: generation.serving,
            state: generation.state,
            subject: certificate.subject(),
            issuer: certificate.issuer(),
            serial: certificate.serial().to_string(),
            thumbprint: hex::encode_upper(certificate.sha256()),
            not_before: rfc3339(certificate.not_before()),
            not_after: rfc3339(certificate.not_after()),
            path_length: certificate.path_length(),
            key_type: generation.public_key.key_type(),
            token: generation.token.clone(),
            key_label: generation.key.label.clone(),
            spki_sha256: hex::encode(generation.public_key.sha256()),
            certificate: generation.pem.clone(),
        }
    }
}

pub(super) async fn list(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
) -> Result<Json<Vec<Authority>>, Problem> {
    Authorized::<Inspect>::to_inspect(api.caller(&peer).await?)?;
    let hierarchy = api.ca.hierarchy();
    Ok(Json(
        hierarchy
            .iter()
            .map(|generation| Authority::from(generation.as_ref()))
            .collect(),
    ))
}

pub(super) async fn show(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
) -> Result<Json<Vec<Authority>>, Problem> {
    Authorized::<Inspect>::to_inspect(api.caller(&peer).await?)?;
    let hierarchy = api.ca.hierarchy();
    let generations: Vec<_> = hierarchy
        .iter()
        .filter(|generation| generation.authority == name)
        .map(|generation| Authority::from(generation.as_ref()))
        .collect();
    if generations.is_empty() {
        let message =
            format!("there is no authority {name:?}; `hallmark authority list` shows all");
        return Err(Error::missing("authority_unknown", message).into());
    }
    Ok(Json(generations))
}

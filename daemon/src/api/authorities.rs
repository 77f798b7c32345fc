//! `/v1/authorities`: what signs, with which key, under whom.

use super::Api;
use super::caller::Peer;
use super::problem::Problem;
use crate::ca::authorize::{Authorized, Inspect};
use crate::ca::block::Standing;
use crate::ca::hierarchy::Generation;
use crate::ca::{CertificateAuthority, Error, rfc3339};
use crate::store::{BlockKind, GenerationState};
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
    revoked_at: Option<String>,
    /// The block that keeps those below it out.
    blocked: Option<Standing>,
    crl_number: Option<i64>,
    crl_next_update: Option<String>,
    crl_entries: Option<i64>,
    /// PEM.
    certificate: String,
}

impl Authority {
    fn new(ca: &CertificateAuthority, generation: &Generation) -> Result<Self, Error> {
        let (kind, name) = (BlockKind::Generation, &generation.authority);
        let blocked = ca
            .store()
            .standing_block(kind, name, Some(generation.number))?;
        let certificate = &generation.certificate;
        let list = ca.crl(generation.id);
        let list = list.as_deref();
        Ok(Self {
            blocked: blocked.map(Standing::from),
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
            revoked_at: generation.revoked_at.map(rfc3339),
            crl_number: list.map(|list| list.number),
            crl_next_update: list.map(|list| rfc3339(list.next_update)),
            crl_entries: list.map(|list| list.entries),
            certificate: generation.pem.clone(),
        })
    }
}

pub(super) async fn list(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
) -> Result<Json<Vec<Authority>>, Problem> {
    Authorized::<Inspect>::to_inspect(api.caller(&peer).await?)?;
    let all = api.application(|ca| {
        let hierarchy = ca.hierarchy();
        let all = hierarchy.iter().map(|it| Authority::new(ca, it));
        all.collect()
    });
    Ok(Json(all.await?))
}

pub(super) async fn show(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
) -> Result<Json<Vec<Authority>>, Problem> {
    Authorized::<Inspect>::to_inspect(api.caller(&peer).await?)?;
    let generations = api.application(move |ca| {
        let hierarchy = ca.hierarchy();
        let own = hierarchy.iter().filter(|it| it.authority == name);
        let shown: Vec<Authority> = own
            .map(|it| Authority::new(ca, it))
            .collect::<Result<_, _>>()?;
        if shown.is_empty() {
            let message =
                format!("there is no authority {name:?}; `hallmark authority list` shows all");
            return Err(Error::missing("authority_unknown", message));
        }
        Ok(shown)
    });
    Ok(Json(generations.await?))
}

//! `/v1/rolls`: how far each replacement of a certificate is, and what it waits for.

use super::body::JsonBody;
use super::caller::Peer;
use super::problem::Problem;
use super::{Api, PAGE_ROWS_MAX};
use crate::ca::authorize::{Authorized, Inspect, Operate};
use crate::ca::{CertificateAuthority, Error, rfc3339};
use crate::store::{RollReason, RollRow, RollState, RollSubject};
use axum::Json;
use axum::extract::{Extension, Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

#[derive(Serialize)]
pub(super) struct Roll {
    id: i64,
    /// Of a leaf's roll.
    provisioning: Option<String>,
    /// Of a leaf's roll.
    registration_id: Option<String>,
    /// Of an authority's roll.
    authority: Option<String>,
    reason: RollReason,
    state: RollState,
    waits_for: String,
    old_certificate: String,
    old_not_after: String,
    new_certificate: Option<String>,
    started_by: String,
    started_at: String,
    changed_at: String,
}

impl Roll {
    pub(super) fn of(ca: &CertificateAuthority, row: RollRow) -> Result<Self, Error> {
        let waits_for = ca.roll_waits_for(&row)?;
        let (provisioning, registration_id, authority) = match row.subject {
            RollSubject::Enrollment {
                provisioning, name, ..
            } => (Some(provisioning), Some(name), None),
            RollSubject::Authority { name, .. } => (None, None, Some(name)),
        };
        Ok(Self {
            waits_for,
            id: row.id,
            provisioning,
            registration_id,
            authority,
            reason: row.reason,
            state: row.state,
            old_certificate: row.old_certificate.to_string(),
            old_not_after: rfc3339(row.old_not_after),
            new_certificate: row.new_certificate.map(|thumbprint| thumbprint.to_string()),
            started_by: row.started_by,
            started_at: rfc3339(row.started_at),
            changed_at: rfc3339(row.changed_at),
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    registration_id: String,
    reason: RollReason,
}

#[derive(Deserialize)]
pub(super) struct Which {
    #[serde(default)]
    open: bool,
}

pub(super) async fn list(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Query(which): Query<Which>,
) -> Result<Json<Vec<Roll>>, Problem> {
    Authorized::<Inspect>::to_inspect(api.caller(&peer).await?)?;
    let rolls = api.application(move |ca| {
        let rows = ca.store().rolls(which.open, PAGE_ROWS_MAX)?;
        rows.into_iter().map(|row| Roll::of(ca, row)).collect()
    });
    Ok(Json(rolls.await?))
}

pub(super) async fn show(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<i64>,
) -> Result<Json<Roll>, Problem> {
    Authorized::<Inspect>::to_inspect(api.caller(&peer).await?)?;
    Ok(Json(
        api.application(move |ca| Roll::of(ca, ca.store().roll(id)?))
            .await?,
    ))
}

pub(super) async fn start(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    JsonBody(start): JsonBody<Start>,
) -> Result<(StatusCode, Json<Vec<Roll>>), Problem> {
    let permission = Authorized::<Operate>::to_operate(api.caller(&peer).await?)?;
    let rolls = api.application(move |ca| {
        let rows = ca.start_roll(&permission, &start.registration_id, start.reason)?;
        rows.into_iter().map(|row| Roll::of(ca, row)).collect()
    });
    Ok((StatusCode::CREATED, Json(rolls.await?)))
}

pub(super) async fn abort(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<i64>,
) -> Result<Json<Roll>, Problem> {
    let permission = Authorized::<Operate>::to_operate(api.caller(&peer).await?)?;
    let roll = api.application(move |ca| Roll::of(ca, ca.abort_roll(&permission, id)?));
    Ok(Json(roll.await?))
}

//! Rolls of authorities: started, approved, and told in numbers.

use super::body::JsonBody;
use super::caller::Peer;
use super::problem::Problem;
use super::rolls::Roll;
use super::{Api, PAGE_ROWS_MAX};
use crate::ca::authorize::{Authorized, Inspect, Operate};
use crate::ca::roll::{AuthorityDetail, Reissue};
use crate::store::{DrainReport, RollReason};
use crate::x509::key::KeyType;
use crate::x509::profile::human_seconds;
use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    reason: RollReason,
    /// That of the next certificate, if it is not that of the old one.
    #[serde(deserialize_with = "human_seconds::optional", default)]
    validity: Option<u64>,
    /// Likewise.
    #[serde(default)]
    key_type: Option<KeyType>,
    /// By compromise: the number of the breached generation, if it is not the one that serves.
    #[serde(default)]
    generation: Option<i64>,
    /// Why a guard is overridden.
    #[serde(default)]
    r#override: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Approval {
    #[serde(default)]
    r#override: Option<String>,
}

/// What is left to do.
#[derive(Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    numbers: DrainReport,
    /// Devices that need a new leaf, the most urgent first.
    reissue: Vec<Reissue>,
}

pub(super) async fn start(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    JsonBody(start): JsonBody<Start>,
) -> Result<(StatusCode, Json<Vec<Roll>>), Problem> {
    let permission = Authorized::<Operate>::to_operate(api.caller(&peer).await?)?;
    let rolls = api.application(move |ca| {
        let detail = AuthorityDetail {
            validity: start.validity,
            key_type: start.key_type,
            ..AuthorityDetail::default()
        };
        let rows = match start.reason {
            RollReason::Expiry => vec![ca.start_authority_roll(&permission, &name, &detail)?],
            RollReason::Compromise => {
                let overriding = start.r#override.as_deref();
                ca.start_compromise(&permission, &name, start.generation, &detail, overriding)?
            }
        };
        rows.into_iter().map(|row| Roll::of(ca, row)).collect()
    });
    Ok((StatusCode::CREATED, Json(rolls.await?)))
}

pub(super) async fn approve(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<i64>,
    JsonBody(approval): JsonBody<Approval>,
) -> Result<Json<Roll>, Problem> {
    let permission = Authorized::<Operate>::to_operate(api.caller(&peer).await?)?;
    let roll = api.application(move |ca| {
        let row = ca.approve_roll(&permission, id, approval.r#override)?;
        Roll::of(ca, row)
    });
    Ok(Json(roll.await?))
}

/// `null` for a leaf's roll.
pub(super) async fn report(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<i64>,
) -> Result<Json<Option<Report>>, Problem> {
    Authorized::<Inspect>::to_inspect(api.caller(&peer).await?)?;
    let report = api.application(move |ca| {
        let roll = ca.store().roll(id)?;
        let Some(numbers) = ca.drain_report(&roll)? else {
            return Ok(None);
        };
        let reissue = ca.to_reissue(&roll, PAGE_ROWS_MAX)?;
        Ok(Some(Report { numbers, reissue }))
    });
    Ok(Json(report.await?))
}

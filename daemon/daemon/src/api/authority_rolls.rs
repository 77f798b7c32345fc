//! Starts, approves and reports rollovers of authorities.

use super::PAGE_ROWS_MAX;
use super::asks::Asks;
use super::body::JsonBody;
use super::problem::Problem;
use super::rolls::Roll;
use crate::ca::authorize::{Authorized, Inspect, Operate};
use crate::ca::exclusion::receipt::Receipt;
use crate::ca::roll::{AuthorityDetail, Reissue};
use crate::ca::{CertificateAuthority, Error};
use crate::ids::{GenerationNumber, RollId};
use crate::store::{DrainReport, HubCause, RollReason, RollRow};
use crate::x509::key::KeyType;
use crate::x509::profile::human_seconds;
use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    reason: RollReason,
    /// The validity of the next certificate; by default that of the old one.
    #[serde(default)]
    validity: Option<HumanSeconds>,
    #[serde(default)]
    key_type: Option<KeyType>,
    /// By compromise: the number of the compromised generation, if it is not the one that serves.
    #[serde(default)]
    generation: Option<GenerationNumber>,
    /// Why a guard is overridden.
    #[serde(default)]
    r#override: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct HumanSeconds(#[serde(with = "human_seconds")] u64);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Approval {
    #[serde(default)]
    r#override: Option<String>,
}

/// The devices that still need a new leaf.
#[derive(Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    numbers: DrainReport,
    /// Devices that need a new leaf, the most urgent first.
    reissue: Vec<Reissue>,
    /// Devices that were called, and reached at no hub.
    not_reached: Vec<String>,
}

/// The rollover that was started.
#[derive(Serialize)]
pub(super) struct Started {
    /// The authority's own first.
    rolls: Vec<Roll>,
    /// By compromise: what each place answered.
    receipt: Option<Receipt>,
}

/// By compromise, answers when every place has, or when that takes too long.
pub(super) async fn start(
    Asks {
        api, permission, ..
    }: Asks<Operate>,
    Path(name): Path<String>,
    JsonBody(start): JsonBody<Start>,
) -> Result<(StatusCode, Json<Started>), Problem> {
    let compromise = start.reason == RollReason::Compromise;
    let started = api.application(move |ca| start.begin(ca, &permission, &name));
    let ids: Vec<RollId> = started.await?.iter().map(|row| row.id).collect();
    let asked = ids.clone();
    let receipt = if compromise {
        Some(
            api.receipt(move |ca| ca.exclusions().authority_receipt(&asked))
                .await?,
        )
    } else {
        None
    };
    let rolls = api.application(move |ca| {
        ids.into_iter()
            .map(|id| Roll::of(ca, ca.store().roll(id)?))
            .collect()
    });
    let rolls = rolls.await?;
    Ok((StatusCode::CREATED, Json(Started { rolls, receipt })))
}

impl Start {
    fn begin(
        self,
        ca: &CertificateAuthority,
        permission: &Authorized<Operate>,
        name: &str,
    ) -> Result<Vec<RollRow>, Error> {
        let detail = AuthorityDetail {
            validity: self.validity.map(|it| it.0),
            key_type: self.key_type,
            ..AuthorityDetail::default()
        };
        match self.reason {
            RollReason::Expiry => Ok(vec![
                ca.rollovers()
                    .start_authority_roll(permission, name, &detail)?,
            ]),
            RollReason::Compromise => {
                let overriding = self.r#override.as_deref();
                ca.rollovers().start_authority_compromise(
                    permission,
                    name,
                    self.generation,
                    &detail,
                    overriding,
                )
            }
        }
    }
}

pub(super) async fn approve(
    Asks {
        api, permission, ..
    }: Asks<Operate>,
    Path(id): Path<RollId>,
    JsonBody(approval): JsonBody<Approval>,
) -> Result<Json<Roll>, Problem> {
    let roll = api.application(move |ca| {
        let row = ca
            .rollovers()
            .approve_roll(&permission, id, approval.r#override)?;
        Roll::of(ca, row)
    });
    Ok(Json(roll.await?))
}

/// `null` for a leaf's roll.
pub(super) async fn report(
    Asks { api, .. }: Asks<Inspect>,
    Path(id): Path<RollId>,
) -> Result<Json<Option<Report>>, Problem> {
    let report = api.application(move |ca| {
        let roll = ca.store().roll(id)?;
        let Some(numbers) = ca.rollovers().drain_report(&roll)? else {
            return Ok(None);
        };
        let reissue = ca.rollovers().to_reissue(&roll, PAGE_ROWS_MAX)?;
        let calls = HubCause::Roll(roll.id);
        let not_reached = ca.store().devices_not_reached(calls, PAGE_ROWS_MAX)?;
        Ok(Some(Report {
            numbers,
            reissue,
            not_reached,
        }))
    });
    Ok(Json(report.await?))
}

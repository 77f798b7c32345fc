//! Starts, approves and reports rollovers of authorities.

use super::PAGE_ROWS_MAX;
use super::asks::Asks;
use super::body::JsonBody;
use super::parts::Path;
use super::problem::Problem;
use super::rolls::Roll;
use crate::ca::authorize::{Authorized, Inspect, Operate};
use crate::ca::exclusion::receipt::Receipt;
use crate::ca::roll::{AuthorityDetail, CompromisedAuthority, Reissue};
use crate::ca::{CertificateAuthority, Code, Error};
use crate::ids::{GenerationNumber, RollId};
use crate::store::{DrainReport, HubCause, RollReason};
use crate::x509::key::KeyType;
use crate::x509::profile::human_seconds;
use axum::Json;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    reason: RollReason,
    /// The validity of the next certificate; by default that of the old one. It is read after the
    /// exclusion, like the type of its key.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    validity: Option<Value>,
    #[serde(default)]
    #[schemars(with = "Option<KeyType>")]
    key_type: Option<Value>,
    /// By compromise: the number of the compromised generation, if it is not the one that serves.
    #[serde(default)]
    generation: Option<GenerationNumber>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Approval {
    #[serde(default)]
    r#override: Option<String>,
}

/// The devices that still need a new leaf.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RollReport")]
pub(super) struct Report {
    #[serde(flatten)]
    numbers: DrainReport,
    /// Devices that need a new leaf, the most urgent first.
    reissue: Vec<Reissue>,
    /// Devices that were called, and reached at no hub.
    not_reached: Vec<String>,
}

/// The rollover that was started.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AuthorityRollStarted")]
pub(super) struct Started {
    /// The authority's own first.
    rolls: Vec<Roll>,
    /// By compromise: what each place answered.
    receipt: Option<Receipt>,
    /// By compromise: what could not be done as it was asked for. The exclusion is made.
    problems: Vec<NotDone>,
    /// By compromise: why a successor cannot be made yet, and what to do.
    obstacles: Vec<String>,
}

/// An error that did not keep a compromise from its exclusion.
#[derive(Serialize, JsonSchema)]
pub(super) struct NotDone {
    code: Code,
    detail: String,
}

impl From<Error> for NotDone {
    fn from(error: Error) -> Self {
        Self {
            code: error.code,
            detail: error.message,
        }
    }
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
    let CompromisedAuthority { rolls, problems } = started.await?;
    let ids: Vec<RollId> = rolls.iter().map(|row| row.id).collect();
    let asked = ids.clone();
    let receipt = if compromise {
        Some(
            api.receipt(move |ca| ca.exclusions().authority_receipt(&asked))
                .await?,
        )
    } else {
        None
    };
    let started = api.application(move |ca| {
        let rows = ids.into_iter().map(|id| Ok(ca.store().roll(id)?));
        let rows = rows.collect::<Result<Vec<_>, Error>>()?;
        let mut obstacles = Vec::new();
        if compromise {
            obstacles = ca.rollovers().obstacles(&rows)?;
        }
        let rolls = rows.into_iter().map(|row| Roll::of(ca, row));
        Ok(Started {
            rolls: rolls.collect::<Result<_, _>>()?,
            receipt,
            problems: problems.into_iter().map(NotDone::from).collect(),
            obstacles,
        })
    });
    Ok((StatusCode::CREATED, Json(started.await?)))
}

impl Start {
    fn begin(
        self,
        ca: &CertificateAuthority,
        permission: &Authorized<Operate>,
        name: &str,
    ) -> Result<CompromisedAuthority, Error> {
        let validity = read_validity(self.validity.as_ref());
        let key_type = read_key_type(self.key_type.as_ref());
        match self.reason {
            RollReason::Expiry => {
                let detail = AuthorityDetail {
                    validity: validity?,
                    key_type: key_type?,
                    ..AuthorityDetail::default()
                };
                let rollovers = ca.rollovers();
                Ok(CompromisedAuthority {
                    rolls: vec![rollovers.start_authority_roll(permission, name, &detail)?],
                    problems: Vec::new(),
                })
            }
            RollReason::Compromise => {
                let mut unusable = Vec::new();
                let detail = AuthorityDetail {
                    validity: validity.unwrap_or_else(|error| note(&mut unusable, error)),
                    key_type: key_type.unwrap_or_else(|error| note(&mut unusable, error)),
                    ..AuthorityDetail::default()
                };
                let number = self.generation;
                let mut started = ca
                    .rollovers()
                    .start_authority_compromise(permission, name, number, &detail)?;
                started.problems.extend(unusable);
                Ok(started)
            }
        }
    }
}

fn note<T>(problems: &mut Vec<Error>, error: Error) -> Option<T> {
    problems.push(error);
    None
}

fn read_validity(sent: Option<&Value>) -> Result<Option<u64>, Error> {
    let Some(sent) = sent else { return Ok(None) };
    let refused = |message| Error::invalid(Code::BodyInvalid, message);
    if !sent.is_string() {
        return Err(refused(format!(
            "validity {sent} is no duration such as \"5y\""
        )));
    }
    let read = human_seconds::deserialize(sent);
    let seconds = read.map_err(|error| refused(format!("validity: {error}")))?;
    Ok(Some(seconds))
}

fn read_key_type(sent: Option<&Value>) -> Result<Option<KeyType>, Error> {
    let Some(sent) = sent else { return Ok(None) };
    let found = sent.as_str().and_then(KeyType::from_name);
    found.map(Some).ok_or_else(|| {
        let known = KeyType::ALL.map(KeyType::name).join(", ");
        let message = format!("key_type {sent} is none of {known}");
        Error::invalid(Code::BodyInvalid, message)
    })
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

//! Serves `/v1/rolls`: the state of each rollover, and what it waits for.

use super::asks::Asks;
use super::authority_rolls::NotDone;
use super::body::JsonBody;
use super::certificates::Answer;
use super::parts::{Path, Query};
use super::problem::Problem;
use super::{Api, pagination};
use crate::ca::authorize::{Authorized, Inspect, Operate};
use crate::ca::exclusion::receipt::Receipt;
use crate::ca::roll::{EstimatedRest, LeafCompromise, NewLeaf, UnderGroup, Waits};
use crate::ca::{CertificateAuthority, Code, Error};
use crate::enrollment::roll::HubPolicy;
use crate::enrollment::slots::SlotName;
use crate::ids::RollId;
use crate::store::{HubProgress, RollReason, RollRow, RollState, RollSubject};
use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Serialize, JsonSchema)]
pub(super) struct Roll {
    id: RollId,
    /// Of a leaf's roll.
    provisioning: Option<String>,
    /// Of a leaf's roll.
    registration_id: Option<String>,
    /// Of an authority's roll.
    authority: Option<String>,
    reason: RollReason,
    state: RollState,
    waits_for: String,
    waits_for_detail: Waits,
    /// How long the rest takes, as measured; null if nothing can be said.
    estimate: Option<String>,
    /// The same for programs.
    estimate_detail: Option<EstimatedRest>,
    /// The progress of its work at the hub: identities deleted, devices notified.
    hub_progress: Option<String>,
    /// The same in numbers.
    hub: Option<HubProgress>,
    /// By which leaf the hub was last seen to know the device.
    device_seen: Option<String>,
    /// Options, evidence, and guards that were overridden.
    detail: Value,
    old_certificate: String,
    old_not_after: String,
    new_certificate: Option<String>,
    started_by: String,
    started_at: String,
    changed_at: String,
    /// By compromise, of one roll: what each place answers now.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<Receipt>,
}

impl Roll {
    pub(super) fn of(ca: &CertificateAuthority, row: RollRow) -> Result<Self, Error> {
        let hub = ca.rollovers().roll_hub_progress(&row)?;
        let hub_progress =
            hub.map(|progress| ca.rollovers().roll_hub_progress_in_words(&row, progress));
        // A rollover that cannot be read must not hide the others, so the error is shown in its
        // place.
        let outlook = ca.rollovers().roll_outlook(&row);
        let (waits_for_detail, estimate_detail) =
            outlook.unwrap_or_else(|error| (Waits::unreadable(&error), None));
        let device_seen = ca.rollovers().roll_proof(&row)?;
        let (provisioning, registration_id, authority) = match row.subject {
            RollSubject::Enrollment {
                provisioning, name, ..
            } => (Some(provisioning), Some(name), None),
            RollSubject::Authority { name, .. } => (None, None, Some(name)),
        };
        Ok(Self {
            waits_for: waits_for_detail.text.clone(),
            waits_for_detail,
            estimate: estimate_detail.as_ref().map(|it| it.text.clone()),
            estimate_detail,
            id: row.id,
            provisioning,
            registration_id,
            authority,
            reason: row.reason,
            device_seen,
            hub_progress,
            hub,
            detail: row.detail,
            state: row.state,
            old_certificate: row.old_certificate.to_string(),
            old_not_after: row.old_not_after.to_string(),
            new_certificate: row.new_certificate.map(|thumbprint| thumbprint.to_string()),
            started_by: row.started_by,
            started_at: row.started_at.to_string(),
            changed_at: row.changed_at.to_string(),
            receipt: None,
        })
    }
}

/// The request to start a rollover of a device's leaf.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    registration_id: String,
    reason: RollReason,
    /// By compromise: which slots; both if left out. It is read with the exclusion, which is of
    /// both slots if it cannot be read, like the next one.
    #[schemars(with = "Option<SlotName>")]
    slot: Option<Value>,
    /// By compromise: what becomes of the hub identity; it is deleted if that cannot be read.
    #[schemars(with = "Option<HubPolicy>")]
    hub: Option<Value>,
    /// By compromise: the request for the new leaf, and its profile, by default the device's own.
    csr: Option<String>,
    profile: Option<String>,
}

/// The rollovers that were started.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RollStarted")]
pub(super) struct Started {
    rolls: Vec<Roll>,
    /// Services that accept the device by a group: nothing changes there, and why.
    under_groups: Vec<UnderGroup>,
    /// The new leaf of a compromised device.
    certificate: Option<Answer>,
    /// By compromise: what could not be done as it was asked for. The exclusion is made.
    problems: Vec<NotDone>,
    /// Why there is no new leaf although it was asked for. The compromised one is excluded.
    not_issued: Option<String>,
    /// The same for programs.
    not_issued_code: Option<Code>,
    /// By compromise: what each place answered.
    receipt: Option<Receipt>,
}

/// Whether a guard is overridden, and why.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Abort {
    r#override: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Which {
    #[serde(default)]
    open: bool,
    after: Option<RollId>,
    limit: Option<u32>,
}

pub(super) async fn list(
    Asks { api, .. }: Asks<Inspect>,
    Query(which): Query<Which>,
) -> Result<(HeaderMap, Json<Vec<Roll>>), Problem> {
    let open = which.open;
    let limit = pagination::rows(which.limit);
    let rolls = api.application(move |ca| {
        let rows = ca.store().rolls(open, which.after, limit)?;
        rows.into_iter().map(|row| Roll::of(ca, row)).collect()
    });
    let path = format!("/v1/rolls?open={open}");
    Ok(pagination::page(&path, rolls.await?, limit, |roll| roll.id))
}

pub(super) async fn show(
    Asks { api, .. }: Asks<Inspect>,
    Path(id): Path<RollId>,
) -> Result<Json<Roll>, Problem> {
    let roll = api.application(move |ca| {
        let receipt = ca.exclusions().roll_receipt(id)?;
        let roll = Roll::of(ca, ca.store().roll(id)?)?;
        Ok(Roll { receipt, ..roll })
    });
    Ok(Json(roll.await?))
}

pub(super) async fn start(
    Asks {
        api, permission, ..
    }: Asks<Operate>,
    JsonBody(start): JsonBody<Start>,
) -> Result<(StatusCode, Json<Started>), Problem> {
    let started = match start.reason {
        RollReason::Expiry => api.start_expiry(permission, start).await?,
        RollReason::Compromise => api.start_compromise(permission, start).await?,
    };
    Ok((StatusCode::CREATED, Json(started)))
}

impl Start {
    /// Takes any request for a new leaf: it is judged after the exclusion. Notes the options that
    /// cannot be read.
    fn compromise(self, problems: &mut Vec<NotDone>) -> LeafCompromise {
        let is_asked_for = self.csr.is_some() || self.profile.is_some();
        let request = NewLeaf {
            csr: self.csr,
            profile: self.profile,
        };
        LeafCompromise {
            registration_id: self.registration_id,
            slots: read("slot", self.slot, problems)
                .map_or(SlotName::BOTH.to_vec(), |slot| vec![slot]),
            hub: read("hub", self.hub, problems).unwrap_or_default(),
            request: is_asked_for.then_some(request),
        }
    }
}

/// Reads an option of a compromise. It is noted and left out if it cannot be read.
fn read<T: DeserializeOwned>(
    name: &str,
    sent: Option<Value>,
    problems: &mut Vec<NotDone>,
) -> Option<T> {
    let sent = sent?;
    let value = serde_json::from_value(sent.clone());
    if value.is_err() {
        let message = format!("{name} {sent} is not known, and was left out");
        problems.push(Error::invalid(Code::BodyInvalid, message).into());
    }
    value.ok()
}

impl Api {
    async fn start_expiry(
        &self,
        permission: Authorized<Operate>,
        start: Start,
    ) -> Result<Started, Problem> {
        let only_by_compromise = start.slot.is_some() || start.hub.is_some() || start.csr.is_some();
        if only_by_compromise {
            let message = "slot, hub and csr are for a roll by compromise; by expiry the device's \
                           next request is waited for";
            return Err(Error::invalid(Code::BodyInvalid, message).into());
        }
        self.application(move |ca| {
            let rows = ca
                .rollovers()
                .start_leaf_roll(&permission, &start.registration_id)?;
            let rolls = rows.into_iter().map(|row| Roll::of(ca, row));
            Ok(Started {
                rolls: rolls.collect::<Result<_, _>>()?,
                under_groups: ca.rollovers().under_groups(&start.registration_id)?,
                certificate: None,
                problems: Vec::new(),
                not_issued: None,
                not_issued_code: None,
                receipt: None,
            })
        })
        .await
    }

    /// Answers when every place has, or when that takes too long.
    async fn start_compromise(
        &self,
        permission: Authorized<Operate>,
        start: Start,
    ) -> Result<Started, Problem> {
        let mut problems = Vec::new();
        let compromise = start.compromise(&mut problems);
        let hub = compromise.hub;
        let done = self
            .application(move |ca| {
                ca.rollovers()
                    .start_leaf_compromise(&permission, compromise)
            })
            .await?;
        let ids: Vec<RollId> = done.rolls.iter().map(|row| row.id).collect();
        let device = done.registration_id;
        problems.extend(done.problems.into_iter().map(NotDone::from));
        let asked = ids.clone();
        let receipt = self
            .receipt(move |ca| ca.exclusions().compromise_receipt(&device, &asked, hub))
            .await?;
        let issued = done.issued.transpose();
        let failure = issued.as_ref().err();
        let not_issued = failure.map(ToString::to_string);
        let not_issued_code = failure.map(|error| error.code);
        let rolls = self.application(move |ca| {
            ids.into_iter()
                .map(|id| Roll::of(ca, ca.store().roll(id)?))
                .collect()
        });
        Ok(Started {
            rolls: rolls.await?,
            under_groups: Vec::new(),
            certificate: issued.ok().flatten().map(Answer::from),
            problems,
            not_issued,
            not_issued_code,
            receipt: Some(receipt),
        })
    }
}

pub(super) async fn abort(
    Asks {
        api, permission, ..
    }: Asks<Operate>,
    Path(id): Path<RollId>,
    JsonBody(abort): JsonBody<Abort>,
) -> Result<Json<Roll>, Problem> {
    let roll = api.application(move |ca| {
        Roll::of(
            ca,
            ca.rollovers()
                .abort_roll(&permission, id, abort.r#override)?,
        )
    });
    Ok(Json(roll.await?))
}

//! Serves `/v1/enrollments`: the desired and the observed state at each provisioning service.

use super::asks::Asks;
use super::body::JsonBody;
use super::pagination;
use super::parts::{Path, Query};
use super::problem::Problem;
use crate::ca::authorize::{Inspect, Operate};
use crate::ca::enroll::EnrollmentRequest;
use crate::ca::exclusion::block::ActiveBlock;
use crate::ca::{Code, Error};
use crate::enrollment::record::Record;
use crate::enrollment::slots::{SlotName, Slots};
use crate::ids::EnrollmentId;
use crate::store::{EnrollmentKind, EnrollmentRow, MarkRow, UnknownEnrollment};
use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Serialize, JsonSchema)]
pub(super) struct Enrollment {
    id: EnrollmentId,
    provisioning: String,
    kind: EnrollmentKind,
    name: String,
    authority: Option<String>,
    /// The group whose device this enrollment excludes a leaf of.
    overlay_of: Option<String>,
    status: &'static str,
    slots: Slots,
    primary: Option<String>,
    secondary: Option<String>,
    /// `in step`, `pending`, `parked`, `drifted`, `waits for a certificate` or `being removed`.
    state: &'static str,
    pending: Option<Pending>,
    observed_at: Option<String>,
    observed: Option<Value>,
    /// Differences that Hallmark did not make.
    drift: Option<Value>,
}

/// An enrollment, and the blocks that have changed it.
#[derive(Serialize, JsonSchema)]
pub(super) struct EnrollmentDetail {
    #[serde(flatten)]
    enrollment: Enrollment,
    blocks: Vec<ActiveBlock>,
}

/// A change that the service does not show yet.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PendingChange")]
pub(super) struct Pending {
    cause: String,
    since: String,
    due_at: String,
    attempts: i64,
    last_error: Option<String>,
    parked: bool,
}

impl From<MarkRow> for Pending {
    fn from(mark: MarkRow) -> Self {
        Self {
            cause: mark.cause,
            since: mark.since.to_string(),
            due_at: mark.due_at.to_string(),
            attempts: mark.attempts,
            last_error: mark.last_error,
            parked: mark.parked,
        }
    }
}

impl From<EnrollmentRow> for Enrollment {
    fn from(row: EnrollmentRow) -> Self {
        let slot = |name| {
            row.slots
                .in_slot(name)
                .map(|thumbprint| thumbprint.to_string())
        };
        Self {
            primary: slot(SlotName::Primary),
            secondary: slot(SlotName::Secondary),
            state: row.state(),
            id: row.id,
            status: if row.enabled { "enabled" } else { "disabled" },
            provisioning: row.provisioning,
            kind: row.kind,
            name: row.name,
            authority: row.authority,
            overlay_of: row.overlay_of,
            slots: row.slots,
            pending: row.mark.map(Pending::from),
            observed_at: row.observed_at.map(|it| it.to_string()),
            observed: row.observed,
            drift: row.drift,
        }
    }
}

/// An enrollment at a service that is not on record.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "UnknownEnrollment")]
pub(super) struct Unknown {
    /// Orders the list.
    id: i64,
    provisioning: String,
    kind: EnrollmentKind,
    name: String,
    status: &'static str,
    primary: Option<String>,
    secondary: Option<String>,
    observed_at: String,
    observed: Value,
}

impl From<UnknownEnrollment> for Unknown {
    fn from(row: UnknownEnrollment) -> Self {
        let found = row.found;
        let slots = Record::parse(found.record.clone()).map(|it| it.thumbprints());
        let (primary, secondary) = slots.unwrap_or_default();
        Self {
            id: row.id,
            provisioning: found.provisioning,
            kind: found.kind,
            name: found.name,
            status: if found.enabled { "enabled" } else { "disabled" },
            primary: primary.map(|it| it.to_string()),
            secondary: secondary.map(|it| it.to_string()),
            observed_at: row.observed_at.to_string(),
            observed: found.record,
        }
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Page {
    after: Option<EnrollmentId>,
    limit: Option<u32>,
    /// Those at the services that are not on record, instead of those on record.
    #[serde(default)]
    unknown: bool,
    /// Of those on record the groups alone.
    #[serde(default)]
    groups: bool,
}

/// A page of one of the two lists.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "AnyEnrollment")]
pub(super) enum Listed {
    OnRecord(Box<Enrollment>),
    Unknown(Box<Unknown>),
}

impl Listed {
    fn id(&self) -> i64 {
        match self {
            Self::OnRecord(it) => it.id.get(),
            Self::Unknown(it) => it.id,
        }
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Where {
    provisioning: Option<String>,
    r#override: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct At {
    #[serde(default)]
    provisioning: Option<String>,
}

pub(super) async fn list(
    Asks { api, .. }: Asks<Inspect>,
    Query(page): Query<Page>,
) -> Result<(HeaderMap, Json<Vec<Listed>>), Problem> {
    let limit = pagination::rows(page.limit);
    let after = page.after.unwrap_or(EnrollmentId::START);
    let Page {
        unknown, groups, ..
    } = page;
    let listed = api.application(move |ca| {
        if unknown {
            let rows = ca.store().unknown_enrollments(after.get(), limit)?;
            return Ok(rows
                .into_iter()
                .map(|it| Listed::Unknown(Box::new(it.into())))
                .collect());
        }
        let rows = if groups {
            let mut rows = ca.store().groups()?;
            rows.retain(|it| it.id > after);
            rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            rows
        } else {
            ca.store().enrollments(after, limit)?
        };
        Ok(rows
            .into_iter()
            .map(|it| Listed::OnRecord(Box::new(it.into())))
            .collect())
    });
    let path = format!("/v1/enrollments?unknown={unknown}&groups={groups}");
    Ok(pagination::page(&path, listed.await?, limit, Listed::id))
}

pub(super) async fn show(
    Asks { api, .. }: Asks<Inspect>,
    Path(name): Path<String>,
) -> Result<Json<Vec<EnrollmentDetail>>, Problem> {
    let shown = api.application(move |ca| {
        let rows = ca.store().enrollments_named(&name)?;
        if rows.is_empty() {
            let message =
                format!("there is no enrollment {name:?}; `hallmark enrollment list` has all");
            return Err(Error::missing(Code::EnrollmentUnknown, message));
        }
        let detail = |row: EnrollmentRow| {
            let blocks = ca.store().blocks_of_enrollment(row.id)?;
            Ok(EnrollmentDetail {
                blocks: blocks.into_iter().map(ActiveBlock::from).collect(),
                enrollment: row.into(),
            })
        };
        rows.into_iter().map(detail).collect()
    });
    Ok(Json(shown.await?))
}

pub(super) async fn add(
    Asks {
        api, permission, ..
    }: Asks<Operate>,
    JsonBody(request): JsonBody<EnrollmentRequest>,
) -> Result<(StatusCode, Json<Enrollment>), Problem> {
    let row = api
        .application(move |ca| ca.enrollments().add_enrollment(&permission, request))
        .await?;
    Ok((StatusCode::CREATED, Json(row.into())))
}

pub(super) async fn remove(
    Asks {
        api, permission, ..
    }: Asks<Operate>,
    Path((kind, name)): Path<(EnrollmentKind, String)>,
    Query(at): Query<Where>,
) -> Result<StatusCode, Problem> {
    let remove = move |ca: &crate::ca::CertificateAuthority| {
        let service = at.provisioning.as_deref();
        ca.enrollments()
            .remove_enrollment(&permission, service, kind, &name, at.r#override)
    };
    api.application(remove).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Takes an enrollment of a service on record that a scan has found there.
pub(super) async fn adopt(
    Asks {
        api, permission, ..
    }: Asks<Operate>,
    Path((kind, name)): Path<(EnrollmentKind, String)>,
    JsonBody(at): JsonBody<At>,
) -> Result<(StatusCode, Json<Enrollment>), Problem> {
    let adopt = move |ca: &crate::ca::CertificateAuthority| {
        let service = at.provisioning.as_deref();
        ca.enrollments()
            .adopt_enrollment(&permission, service, kind, &name)
    };
    let row = api.application(adopt).await?;
    Ok((StatusCode::CREATED, Json(row.into())))
}

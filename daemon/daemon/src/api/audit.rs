//! `/v1/audit`: the journal, page by page, its checkpoints, and their verification.

use super::asks::Asks;
use super::body::JsonBody;
use super::pagination::rows;
use super::parts::Query;
use super::problem::Problem;
use crate::ca::authorize::{Inspect, Operate};
use crate::ca::checkpoint::{AuditKey, AuditVerification};
use crate::journal::checkpoints::SignedCheckpoint;
use crate::journal::finding::Finding;
use crate::moment::Moment;
use crate::store::{AuditFilter, AuditRecord};
use axum::Json;
use schemars::JsonSchema;
use serde::Deserialize;

/// The entries after one, or the last ones before one; both oldest first. Of them those that the
/// other members name.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    after: i64,
    limit: Option<u32>,
    last: Option<u32>,
    before: Option<i64>,
    device: Option<String>,
    authority: Option<String>,
    caller: Option<String>,
    since: Option<Moment>,
}

pub(super) async fn list(
    Asks { api, .. }: Asks<Inspect>,
    Query(page): Query<Page>,
) -> Result<Json<Vec<AuditRecord>>, Problem> {
    let entries = api.application(move |ca| {
        let filter = AuditFilter {
            device: page.device,
            authority: page.authority,
            caller: page.caller,
            since: page.since.map(|it| it.before(ca.now())),
        };
        let store = ca.store();
        let before = page.before.unwrap_or(i64::MAX);
        Ok(match page.last {
            Some(last) => store.audit_before(before, rows(Some(last)), &filter)?,
            None => store.audit_after(page.after, rows(page.limit), &filter)?,
        })
    });
    Ok(Json(entries.await?))
}

pub(super) async fn verify(
    Asks { api, .. }: Asks<Inspect>,
) -> Result<Json<AuditVerification>, Problem> {
    let verified = api.application(|ca| ca.issuer().verify_journal());
    Ok(Json(verified.await?))
}

/// The checkpoints after one, the oldest first.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckpointPage {
    #[serde(default)]
    after: i64,
    limit: Option<u32>,
}

pub(super) async fn checkpoints(
    Asks { api, .. }: Asks<Inspect>,
    Query(page): Query<CheckpointPage>,
) -> Result<Json<Vec<SignedCheckpoint>>, Problem> {
    let checkpoints = api.application(move |ca| {
        let store = ca.store();
        Ok(store.checkpoints_after(page.after, rows(page.limit))?)
    });
    Ok(Json(checkpoints.await?))
}

pub(super) async fn keys(Asks { api, .. }: Asks<Inspect>) -> Result<Json<Vec<AuditKey>>, Problem> {
    let keys = api.application(|ca| ca.issuer().audit_keys());
    Ok(Json(keys.await?))
}

/// Why a finding is accepted.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AcceptedFinding {
    /// In your words, for the audit journal.
    reason: String,
}

pub(super) async fn accept(
    Asks {
        api, permission, ..
    }: Asks<Operate>,
    JsonBody(body): JsonBody<AcceptedFinding>,
) -> Result<Json<Finding>, Problem> {
    let accepted = api.application(move |ca| ca.issuer().accept_journal(&permission, &body.reason));
    Ok(Json(accepted.await?))
}

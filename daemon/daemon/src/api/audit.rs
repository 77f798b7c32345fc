//! `/v1/audit`: the journal, page by page, and the check of its seals.

use super::asks::Asks;
use super::pagination::rows;
use super::parts::Query;
use super::problem::Problem;
use crate::ca::authorize::Inspect;
use crate::measured;
use crate::moment::Moment;
use crate::store::{AuditFilter, AuditRecord, AuditVerdict};
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

pub(super) async fn verify(Asks { api, .. }: Asks<Inspect>) -> Result<Json<AuditVerdict>, Problem> {
    let verified = api.application(|ca| {
        let verdict = ca.store().verify_audit()?;
        measured::audit_verified(ca.now().get(), verdict.broken_at.is_none());
        Ok(verdict)
    });
    Ok(Json(verified.await?))
}

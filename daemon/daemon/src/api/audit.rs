//! `/v1/audit`: the journal, page by page, and the check of its seals.

use super::PAGE_ROWS_MAX;
use super::asks::Asks;
use super::problem::Problem;
use crate::ca::authorize::Inspect;
use crate::store::{AuditRecord, AuditVerdict};
use axum::Json;
use axum::extract::Query;
use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    after: i64,
    limit: Option<u32>,
}

pub(super) async fn list(
    Asks { api, .. }: Asks<Inspect>,
    Query(page): Query<Page>,
) -> Result<Json<Vec<AuditRecord>>, Problem> {
    let limit = page.limit.unwrap_or(PAGE_ROWS_MAX).min(PAGE_ROWS_MAX);
    Ok(Json(
        api.application(move |ca| Ok(ca.store().audit_after(page.after, limit)?))
            .await?,
    ))
}

pub(super) async fn verify(Asks { api, .. }: Asks<Inspect>) -> Result<Json<AuditVerdict>, Problem> {
    Ok(Json(
        api.application(|ca| Ok(ca.store().verify_audit()?)).await?,
    ))
}

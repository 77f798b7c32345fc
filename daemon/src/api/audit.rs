//! `/v1/audit`: the journal, page by page, and the check of its seals.

use super::caller::Peer;
use super::problem::Problem;
use super::{Api, PAGE_ROWS_MAX};
use crate::ca::authorize::{Authorized, Inspect};
use crate::store::{AuditRecord, AuditVerdict};
use axum::Json;
use axum::extract::{Extension, Query, State};
use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    after: i64,
    limit: Option<u32>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Query(page): Query<Page>,
) -> Result<Json<Vec<AuditRecord>>, Problem> {
    Authorized::<Inspect>::to_inspect(api.caller(&peer).await?)?;
    let limit = page.limit.unwrap_or(PAGE_ROWS_MAX).min(PAGE_ROWS_MAX);
    Ok(Json(
        api.application(move |ca| Ok(ca.store().audit_after(page.after, limit)?))
            .await?,
    ))
}

pub(super) async fn verify(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
) -> Result<Json<AuditVerdict>, Problem> {
    Authorized::<Inspect>::to_inspect(api.caller(&peer).await?)?;
    Ok(Json(
        api.application(|ca| Ok(ca.store().verify_audit()?)).await?,
    ))
}

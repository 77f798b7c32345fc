//! `/v1/tokens`: what is in sight, what is on one, its check and its bench.

use super::Api;
use super::body::JsonBody;
use super::caller::Peer;
use super::problem::Problem;
use crate::ca::authorize::{Authorized, Inspect};
use crate::ca::tokens::{InSight, TokenReport};
use crate::ca::trial::{BenchRequest, TrialReport};
use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::response::Response;
use serde_json::{Value, json};

/// The refusal of those who are elsewhere, and how it begins.
const NOT_LOCAL: (&str, &str) = ("trial_not_local", "a token is tried");

pub(super) async fn list(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
) -> Result<Json<Vec<InSight>>, Problem> {
    Authorized::<Inspect>::to_inspect(api.caller(&peer).await?)?;
    Ok(Json(api.application(|ca| ca.tokens_in_sight()).await?))
}

pub(super) async fn show(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
) -> Result<Json<TokenReport>, Problem> {
    Authorized::<Inspect>::to_inspect(api.caller(&peer).await?)?;
    let report = api.application(move |ca| ca.token_report(&name));
    Ok(Json(report.await?))
}

pub(super) async fn check(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let (code, what) = NOT_LOCAL;
    let permission = api.local_operator(&peer, code, what).await?;
    Ok(api.steps(move |ca, progress| {
        let report = ca.check_token(&permission, &name, progress)?;
        Ok(finished(&report))
    }))
}

pub(super) async fn bench(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    JsonBody(request): JsonBody<BenchRequest>,
) -> Result<Response, Problem> {
    let (code, what) = NOT_LOCAL;
    let permission = api.local_operator(&peer, code, what).await?;
    Ok(api.steps(move |ca, progress| {
        let report = ca.bench_token(&permission, &name, request, progress)?;
        Ok(finished(&report))
    }))
}

fn finished(report: &TrialReport) -> Value {
    json!({ "report": report, "text": report.to_text() })
}

//! Serves `/v1/tokens`: lists tokens and their keys, checks a token, measures a token.

use super::asks::{Asks, RoutePermission};
use super::body::JsonBody;
use super::parts::Path;
use super::problem::Problem;
use crate::ca::authorize::{Authorized, Caller, Inspect, Operate};
use crate::ca::diagnostics::{BenchRequest, DiagnosticsReport};
use crate::ca::tokens::{TokenReport, VisibleSlot};
use crate::ca::{Code, Error};
use axum::Json;
use axum::response::Response;
use serde_json::{Value, json};

/// Permission to try a token.
pub(super) struct TryToken;

impl RoutePermission for TryToken {
    type Permission = Operate;

    const LOCAL_ONLY: Option<(Code, &'static str)> =
        Some((Code::TrialNotLocal, "a token is tried"));

    fn permit(caller: Caller) -> Result<Authorized<Operate>, Error> {
        Authorized::<Operate>::to_operate(caller)
    }
}

pub(super) async fn list(
    Asks { api, .. }: Asks<Inspect>,
) -> Result<Json<Vec<VisibleSlot>>, Problem> {
    Ok(Json(api.application(|ca| ca.tokens().list_slots()).await?))
}

pub(super) async fn show(
    Asks { api, .. }: Asks<Inspect>,
    Path(name): Path<String>,
) -> Result<Json<TokenReport>, Problem> {
    let report = api.application(move |ca| ca.tokens().report(&name));
    Ok(Json(report.await?))
}

pub(super) async fn check(
    Asks {
        api, permission, ..
    }: Asks<TryToken>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    Ok(api.steps(move |ca, steps| {
        let progress = |step| steps.begin(step);
        let report = ca.diagnostics().check(&permission, &name, &progress)?;
        Ok(finished(&report))
    }))
}

pub(super) async fn bench(
    Asks {
        api, permission, ..
    }: Asks<TryToken>,
    Path(name): Path<String>,
    JsonBody(request): JsonBody<BenchRequest>,
) -> Result<Response, Problem> {
    Ok(api.steps(move |ca, steps| {
        let progress = |step| steps.begin(step);
        let diagnostics = ca.diagnostics();
        let report = diagnostics.bench(&permission, &name, request, &progress)?;
        Ok(finished(&report))
    }))
}

fn finished(report: &DiagnosticsReport) -> Value {
    json!({ "report": report, "text": report.to_text() })
}

//! `POST /v1/doctor`, on the admin socket: runs the list of checks.

use super::asks::{Asks, RoutePermission};
use super::body::JsonBody;
use super::problem::Problem;
use crate::ca::authorize::{Authorized, Caller, Operate};
use crate::ca::doctor::{DoctorReport, DoctorRequest};
use crate::ca::{Code, Error};
use axum::Json;

/// Permission to run the checks: they have keys sign test messages, and call services.
pub(super) struct RunChecks;

impl RoutePermission for RunChecks {
    type Permission = Operate;

    const LOCAL_ONLY: Option<(Code, &'static str)> =
        Some((Code::TrialNotLocal, "the checks are run"));

    fn permit(caller: Caller) -> Result<Authorized<Operate>, Error> {
        Authorized::<Operate>::to_operate(caller)
    }
}

pub(super) async fn run(
    Asks {
        api, permission, ..
    }: Asks<RunChecks>,
    JsonBody(request): JsonBody<DoctorRequest>,
) -> Result<Json<DoctorReport>, Problem> {
    let at = api.shared.addresses;
    let report = api.application(move |ca| {
        let listeners = [("https", at.https), ("http", at.http)];
        ca.doctor(&permission, &request, &listeners)
    });
    Ok(Json(report.await?))
}

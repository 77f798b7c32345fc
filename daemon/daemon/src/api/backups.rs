//! `POST /v1/backups`, on the admin socket: a copy of the database, with a line of
//! JSON for each step.

use super::asks::{Asks, RoutePermission};
use super::problem::Problem;
use crate::ca::authorize::{Authorized, Caller, Operate};
use crate::ca::{Code, Error};
use axum::response::Response;
use serde_json::json;

/// Permission to make a backup.
pub(super) struct MakeBackup;

impl RoutePermission for MakeBackup {
    type Permission = Operate;

    const LOCAL_ONLY: Option<(Code, &'static str)> =
        Some((Code::BackupNotLocal, "a backup is made"));

    fn permit(caller: Caller) -> Result<Authorized<Operate>, Error> {
        Authorized::<Operate>::to_operate(caller)
    }
}

pub(super) async fn create(
    Asks {
        api, permission, ..
    }: Asks<MakeBackup>,
) -> Result<Response, Problem> {
    Ok(api.steps(move |ca, steps| {
        let report = |step, done, total| steps.bytes(step, done, total);
        let backup = ca.backups().create(&permission, &report)?;
        Ok(json!(backup))
    }))
}

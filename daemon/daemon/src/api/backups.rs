//! `POST /v1/backups`, on the admin socket: a copy of the database.

use super::asks::{Asks, RoutePermission};
use super::problem::Problem;
use crate::ca::authorize::{Authorized, Caller, Operate};
use crate::ca::backup::Backup;
use crate::ca::{Code, Error};
use axum::Json;
use axum::http::StatusCode;

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
) -> Result<(StatusCode, Json<Backup>), Problem> {
    let backup = api.application(move |ca| ca.backups().create(&permission));
    Ok((StatusCode::CREATED, Json(backup.await?)))
}

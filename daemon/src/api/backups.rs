//! `POST /v1/backups`, on the admin socket: a copy of the database.

use super::Api;
use super::caller::Peer;
use super::problem::Problem;
use crate::ca::backup::Backup;
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;

pub(super) async fn create(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
) -> Result<(StatusCode, Json<Backup>), Problem> {
    let permission = api
        .local_operator(&peer, "backup_not_local", "a backup is made")
        .await?;
    let backup = api.application(move |ca| ca.create_backup(&permission));
    Ok((StatusCode::CREATED, Json(backup.await?)))
}

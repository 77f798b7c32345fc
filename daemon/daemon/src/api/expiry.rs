//! Serves `/v1/expiry`: on which day certificates end.

use super::asks::Asks;
use super::problem::Problem;
use crate::ca::authorize::Inspect;
use crate::ca::ends::Ends;
use axum::Json;

pub(super) async fn list(Asks { api, .. }: Asks<Inspect>) -> Result<Json<Vec<Ends>>, Problem> {
    Ok(Json(api.monitored().application(|ca| ca.ends()).await?))
}

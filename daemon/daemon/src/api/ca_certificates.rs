//! Serves `/v1/ca-certificates`: which CA certificates provisioning services hold verified.

use super::asks::Asks;
use super::problem::Problem;
use crate::ca::authorize::Inspect;
use crate::ca::ca_certificates::CaCertificateStatus;
use axum::Json;

pub(super) async fn list(
    Asks { api, .. }: Asks<Inspect>,
) -> Result<Json<Vec<CaCertificateStatus>>, Problem> {
    Ok(Json(api.application(|ca| ca.ca_certificates()).await?))
}

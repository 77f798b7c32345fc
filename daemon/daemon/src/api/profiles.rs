//! Serves `/v1/profiles`: what profiles and presets would issue, without issuing it.

use super::asks::Asks;
use super::parts::{Path, Query};
use super::problem::Problem;
use crate::ca::authorize::Inspect;
use crate::ca::example::ShownProfile;
use axum::Json;
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// The preset, though a profile has the same name.
    #[serde(default)]
    preset: bool,
    /// With an example of a certificate.
    #[serde(default)]
    example: bool,
}

pub(super) async fn list(
    Asks { api, .. }: Asks<Inspect>,
) -> Result<Json<Vec<ShownProfile>>, Problem> {
    let profiles = api.application(|ca| Ok(ca.issuer().shown_profiles()));
    Ok(Json(profiles.await?))
}

pub(super) async fn show(
    Asks { api, .. }: Asks<Inspect>,
    Path(name): Path<String>,
    Query(which): Query<Which>,
) -> Result<Json<ShownProfile>, Problem> {
    let shown = api.application(move |ca| {
        ca.issuer()
            .shown_profile(&name, which.preset, which.example)
    });
    Ok(Json(shown.await?))
}

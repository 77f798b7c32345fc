//! Serves `/v1/device-credentials`: one-time credentials, by which a device requests its first
//! leaf.

use super::asks::{Asks, RoutePermission};
use super::body::JsonBody;
use super::openapi::Access;
use super::pagination;
use super::parts::{Path, Query};
use super::problem::Problem;
use crate::ca::Error;
use crate::ca::authorize::{Authorized, Caller, Inspect, Issue};
use crate::ca::device_credential::CredentialRequest;
use crate::ids::DeviceCredentialId;
use crate::store::DeviceCredentialRow;
use crate::unix_seconds::UnixSeconds;
use crate::x509::profile::human_seconds;
use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

/// Permission to let devices request a leaf.
pub(super) struct HandOver;

impl RoutePermission for HandOver {
    type Permission = Issue;

    const ACCESS: Access = Access::OperatorsAndStations;

    fn permit(caller: Caller) -> Result<Authorized<Issue>, Error> {
        Authorized::<Issue>::to_hand_over(caller)
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Make {
    registration_id: String,
    profile: Option<String>,
    /// A duration, such as 24h.
    #[serde(default, deserialize_with = "human_seconds::optional")]
    #[schemars(with = "Option<String>")]
    expires: Option<u64>,
}

/// A credential without its secret.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeviceCredential")]
pub(super) struct Credential {
    id: DeviceCredentialId,
    registration_id: String,
    profile: String,
    state: &'static str,
    made_by: String,
    made_at: String,
    expires_at: String,
    used_at: Option<String>,
    /// Wrong secrets that were sent for it.
    failures: i64,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "NewDeviceCredential")]
pub(super) struct Made {
    #[serde(flatten)]
    credential: Credential,
    /// It is in this answer alone.
    #[serde(serialize_with = "shown")]
    #[schemars(with = "String")]
    secret: SecretString,
}

fn shown<S: Serializer>(secret: &SecretString, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(secret.expose_secret())
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Page {
    after: Option<DeviceCredentialId>,
    limit: Option<u32>,
}

impl Credential {
    fn new(row: DeviceCredentialRow, now: UnixSeconds) -> Self {
        Self {
            state: row.state(now).name(),
            id: row.id,
            registration_id: row.registration_id,
            profile: row.profile,
            made_by: row.made_by,
            made_at: row.made_at.to_string(),
            expires_at: row.expires_at.to_string(),
            used_at: row.used_at.map(|it| it.to_string()),
            failures: row.failures,
        }
    }
}

pub(super) async fn list(
    Asks {
        api, permission, ..
    }: Asks<Inspect>,
    Query(page): Query<Page>,
) -> Result<(HeaderMap, Json<Vec<Credential>>), Problem> {
    let limit = pagination::rows(page.limit);
    let rows = api.application(move |ca| {
        let after = page.after.unwrap_or(DeviceCredentialId::START);
        let rows = ca.issuer().device_credentials(&permission, after, limit)?;
        let now = ca.now();
        Ok(rows
            .into_iter()
            .map(|it| Credential::new(it, now))
            .collect())
    });
    let path = "/v1/device-credentials";
    Ok(pagination::page(
        path,
        rows.await?,
        limit,
        |it: &Credential| it.id,
    ))
}

pub(super) async fn make(
    Asks {
        api, permission, ..
    }: Asks<HandOver>,
    JsonBody(make): JsonBody<Make>,
) -> Result<(StatusCode, Json<Made>), Problem> {
    let request = CredentialRequest {
        registration_id: make.registration_id,
        profile: make.profile,
        life_seconds: make.expires,
    };
    let made = api.application(move |ca| {
        let made = ca.issuer().make_device_credential(&permission, &request)?;
        Ok(Made {
            secret: made.secret,
            credential: Credential::new(made.row, ca.now()),
        })
    });
    Ok((StatusCode::CREATED, Json(made.await?)))
}

pub(super) async fn revoke(
    Asks {
        api, permission, ..
    }: Asks<HandOver>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let revoked = api.application(move |ca| ca.issuer().revoke_device_credential(&permission, &id));
    revoked.await?;
    Ok(StatusCode::NO_CONTENT)
}

//! Serves `POST /v1/certificates/holds` and `/releases`: an operator holds a certificate, or lifts
//! that hold.

use super::Api;
use super::asks::Asks;
use super::body::JsonBody;
use super::problem::Problem;
use super::revocations::{Named, cause};
use crate::ca::Error;
use crate::ca::authorize::Operate;
use crate::ca::exclusion::certificate_name::CertificateName;
use crate::ca::exclusion::holding::HeldLeaf;
use crate::ca::exclusion::receipt::Receipt;
use crate::ca::profile::Role;
use axum::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A certificate, named by exactly one of the first three, and why.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    serial: Option<String>,
    sha256: Option<String>,
    certificate: Option<String>,
    authority: Option<String>,
    #[serde(default)]
    cause: String,
}

/// The state of the certificate after the command, and whether its CRL has it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "HeldCertificate")]
pub(super) struct Held {
    serial: String,
    /// Of a certificate that is known by its serial number alone, these may be unknown.
    thumbprint: Option<String>,
    subject: Option<String>,
    profile: Option<String>,
    role: Option<Role>,
    /// Null if nothing holds it any more.
    on_hold_since: Option<String>,
    /// A sentence for each operator and block that holds it.
    held_by: Vec<String>,
    /// Whether the command has changed what holds it.
    changed: bool,
    notices: Vec<String>,
    receipt: Receipt,
}

pub(super) async fn hold(
    Asks {
        api, permission, ..
    }: Asks<Operate>,
    JsonBody(change): JsonBody<Change>,
) -> Result<Json<Held>, Problem> {
    let (name, cause) = change.read()?;
    let held = api
        .application(move |ca| ca.exclusions().hold_leaf(&permission, &name, &cause))
        .await?;
    Ok(Json(api.held(held).await?))
}

pub(super) async fn release(
    Asks {
        api, permission, ..
    }: Asks<Operate>,
    JsonBody(change): JsonBody<Change>,
) -> Result<Json<Held>, Problem> {
    let (name, cause) = change.read()?;
    let released = api
        .application(move |ca| ca.exclusions().release_leaf(&permission, &name, &cause))
        .await?;
    Ok(Json(api.held(released).await?))
}

impl Change {
    fn read(self) -> Result<(CertificateName, String), Error> {
        let cause = cause(self.cause)?;
        let named = Named {
            serial: self.serial,
            sha256: self.sha256,
            certificate: self.certificate,
            authority: self.authority,
        };
        Ok((named.name()?, cause))
    }
}

impl Api {
    /// Waits for the revocation list that says what is on record now.
    async fn held(&self, held: HeldLeaf) -> Result<Held, Problem> {
        let issuer = held.issuer;
        let since = held.since;
        let receipt = self.receipt(move |ca| ca.exclusions().hold_receipt(issuer, since));
        Ok(Held {
            receipt: receipt.await?,
            serial: hex::encode_upper(&held.serial),
            thumbprint: held.sha256.map(hex::encode_upper),
            subject: held.subject,
            profile: held.profile,
            role: held.role,
            on_hold_since: held.since.map(|it| it.to_string()),
            held_by: held.held_by,
            changed: held.changed,
            notices: held.notices,
        })
    }
}

//! `/v1/devices`: what each device holds, and where it is enrolled.

use super::asks::Asks;
use super::enrollments::Enrollment;
use super::pagination;
use super::parts::{Path, Query};
use super::problem::Problem;
use crate::ca::access::{Access, DeviceOverview};
use crate::ca::authorize::Inspect;
use crate::ca::exclusion::block::ActiveBlock;
use crate::ca::profile::Role;
use crate::ca::{Code, Error};
use crate::store::{CertificateRow, CertificateState, HubProgress};
use crate::x509::revocation::RevocationReason;
use axum::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many of a device's certificates are shown.
const CERTIFICATES_SHOWN: u32 = 20;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Page {
    #[serde(default)]
    after: String,
    limit: Option<u32>,
}

/// A device with its current leaf.
#[derive(Serialize, JsonSchema)]
pub(super) struct Device {
    registration_id: String,
    profile: String,
    /// The state of the leaf.
    state: CertificateState,
    serial: String,
    thumbprint: String,
    not_after: String,
    /// Whole days until then; negative afterwards.
    days_left: i64,
    created_at: String,
    /// The enrollments by which services decide about it, as desired.
    access: Vec<Access>,
    /// The block that excludes it: its own, or that of a generation or a group above it.
    blocked: Option<ActiveBlock>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct DeviceDetail {
    #[serde(flatten)]
    device: Device,
    certificates: Vec<Leaf>,
    enrollments: Vec<Enrollment>,
    /// How far the calls are that announce its current leaf, if a group admits it.
    notification: Option<HubProgress>,
}

#[derive(Serialize, JsonSchema)]
struct Leaf {
    serial: String,
    thumbprint: String,
    not_before: String,
    not_after: String,
    revoked_at: Option<String>,
    revocation_reason: Option<&'static str>,
}

impl From<DeviceOverview> for Device {
    fn from(it: DeviceOverview) -> Self {
        let row = it.device;
        Self {
            registration_id: row.registration_id,
            profile: row.profile,
            state: it.state,
            serial: row.serial,
            thumbprint: row.certificate.to_string(),
            not_after: row.not_after.to_string(),
            days_left: it.days_left,
            created_at: row.created_at.to_string(),
            access: it.access,
            blocked: it.blocked,
        }
    }
}

impl From<CertificateRow> for Leaf {
    fn from(row: CertificateRow) -> Self {
        Self {
            serial: hex::encode_upper(&row.serial),
            thumbprint: hex::encode_upper(row.sha256),
            not_before: row.not_before.to_string(),
            not_after: row.not_after.to_string(),
            revoked_at: row.revoked_at.map(|it| it.to_string()),
            revocation_reason: row.revocation_reason.map(RevocationReason::name),
        }
    }
}

pub(super) async fn list(
    Asks { api, .. }: Asks<Inspect>,
    Query(page): Query<Page>,
) -> Result<Json<Vec<Device>>, Problem> {
    let limit = pagination::rows(page.limit);
    let rows = api
        .application(move |ca| ca.devices(&page.after, limit))
        .await?;
    Ok(Json(rows.into_iter().map(Device::from).collect()))
}

pub(super) async fn show(
    Asks { api, .. }: Asks<Inspect>,
    Path(id): Path<String>,
) -> Result<Json<DeviceDetail>, Problem> {
    let detail = api.application(move |ca| {
        let device = ca.store().device(&id)?.ok_or_else(|| {
            let message =
                format!("there is no device {id:?}; a device is recorded with its first leaf");
            Error::missing(Code::DeviceUnknown, message)
        })?;
        let certificates = ca.store().certificates_of(&id, CERTIFICATES_SHOWN)?;
        // A station may have the same name.
        let leaves = certificates
            .into_iter()
            .filter(|it| it.role == Some(Role::Device));
        let enrollments = ca.store().enrollments_named(&id)?;
        Ok(DeviceDetail {
            device: ca.device_overview(device)?.into(),
            certificates: leaves.map(Leaf::from).collect(),
            enrollments: enrollments.into_iter().map(Enrollment::from).collect(),
            notification: ca.store().renewal_progress(&id)?,
        })
    });
    Ok(Json(detail.await?))
}

//! Answers for a revoked leaf whose device has a newer one: the services and hubs that accept it
//! still, which read no revocation list.

use super::Exclusions;
use super::place::{Place, PlaceCode};
use super::receipt::Receipt;
use crate::ca::Error;
use crate::enrollment::slots::Slots;
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::GenerationId;
use crate::store::{CertificateRow, EnrollmentKind, EnrollmentRow, StoreError};
use crate::unix_seconds::UnixSeconds;
use serde_json::json;

impl Exclusions {
    /// Returns what each place does with a revoked leaf that is in no slot of its device.
    pub fn older_leaf_receipt(
        &self,
        sha256: &[u8; 32],
        since: UnixSeconds,
    ) -> Result<Receipt, Error> {
        let row = self.store.certificate_by_sha256(sha256)?;
        let row = row.ok_or_else(|| StoreError::Missing("certificate with this SHA-256".into()))?;
        let mut places = self.revocation_receipt(row.issuer, since)?.places;
        let mut own = self.store.enrollments_named(&row.subject)?;
        own.retain(|it| it.kind == EnrollmentKind::Individual);
        places.extend(own.iter().map(|it| self.enrollment_place(it)));
        let groups = self.groups_accepting(row.issuer, &row.subject)?;
        places.extend(groups.iter().map(|group| {
            let parameters = json!({ "kind": "group", "name": group.name });
            let answer = format!("group {} accepts it until {}", group.name, row.not_after);
            let answer = with_remedy(&answer, &row);
            Place::service(
                &group.provisioning,
                PlaceCode::LeafAdmitted,
                parameters,
                answer,
            )
        }));
        let leaf = Thumbprint::from_bytes(row.sha256);
        let observed = self.store.hub_observations(&row.subject)?.into_iter();
        places.extend(
            observed
                .filter(|it| it.certificate == Some(leaf))
                .map(|it| {
                    let parameters = json!({ "device": row.subject });
                    let answer = format!("the hub knew {} by it at {}", row.subject, it.seen_at);
                    let answer = with_remedy(&answer, &row);
                    Place::hub(
                        &it.provisioning,
                        PlaceCode::LeafAdmitted,
                        parameters,
                        answer,
                    )
                }),
        );
        Ok(places.into())
    }

    /// Returns the groups that accept a device's leaf by this issuer, because they hold a
    /// certificate above it and no individual enrollment takes precedence.
    pub(in crate::ca) fn groups_accepting(
        &self,
        issuer: GenerationId,
        device: &str,
    ) -> Result<Vec<EnrollmentRow>, Error> {
        let hierarchy = self.issuer.hierarchy();
        let above: Vec<_> = hierarchy
            .upwards(issuer)
            .map(|it| it.thumbprint())
            .collect();
        let mut own = self.store.enrollments_named(device)?;
        own.retain(|it| it.kind == EnrollmentKind::Individual && it.slots != Slots::Empty);
        let mut groups = self.store.groups()?;
        groups.retain(|row| {
            let holds = row.slots.held().iter().any(|it| above.contains(it));
            // A disabled enrollment of the device takes precedence, too.
            let has_own = own.iter().any(|it| it.provisioning == row.provisioning);
            row.enabled && holds && !has_own
        });
        Ok(groups)
    }
}

fn with_remedy(answer: &str, row: &CertificateRow) -> String {
    format!(
        "{answer}; `hallmark roll start {} --reason compromise` excludes the device there, with \
         its newer leaf, until it has another one",
        row.subject
    )
}

//! Explains why the expiry of a leaf under a group changes nothing at the service.

use super::Rollovers;
use crate::ca::Error;
use crate::enrollment::record::Record;
use crate::enrollment::thumbprint::Thumbprint;
use crate::store::{EnrollmentKind, EnrollmentRow};
use schemars::JsonSchema;
use serde::Serialize;

/// Why a new leaf of this device needs no change at a service.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct UnderGroup {
    pub registration_id: String,
    pub provisioning: String,
    /// The group that accepts the device.
    pub group: String,
    /// Whether the service was observed holding what a new leaf needs.
    pub proven: bool,
    /// The authorities above a new leaf, its issuer first.
    pub chain: Vec<String>,
    /// The certificate of the chain that the group was observed holding.
    pub held: Option<String>,
    /// RFC 3339 of that look.
    pub seen_at: Option<String>,
    pub says: String,
}

impl Rollovers {
    /// Returns, for each service that accepts a device by a group only, the evidence that a new
    /// leaf relies on.
    pub fn under_groups(&self, registration_id: &str) -> Result<Vec<UnderGroup>, Error> {
        let Some(device) = self.store.device(registration_id)? else {
            return Ok(Vec::new());
        };
        let own = self.store.enrollments_named(&device.registration_id)?;
        let has_own = |service: &str| {
            own.iter().any(|row| {
                row.kind == EnrollmentKind::Individual
                    && row.provisioning == service
                    && !row.leaving
            })
        };
        let groups = self.exclusions.groups_of(&device.registration_id)?;
        let profile = self.issuer.profile(&device.profile)?;
        let hierarchy = self.issuer.hierarchy();
        let issuer = hierarchy.serving(&profile.authority);
        let chain = issuer.into_iter().flat_map(|it| hierarchy.upwards(it.id));
        let above: Vec<(Thumbprint, String)> = chain
            .map(|it| (it.thumbprint(), it.authority.clone()))
            .collect();
        let groups = groups.iter().filter(|row| !has_own(&row.provisioning));
        Ok(groups
            .map(|row| proof(&device.registration_id, row, &above))
            .collect())
    }
}

fn proof(device: &str, group: &EnrollmentRow, above: &[(Thumbprint, String)]) -> UnderGroup {
    let seen = group
        .observed
        .clone()
        .filter(|_| group.mark.is_none() && group.enabled)
        .and_then(|record| Record::parse(record).ok())
        .map(|record| record.thumbprints());
    let held = above.iter().find(|(it, _)| {
        seen.is_some_and(|(primary, secondary)| [primary, secondary].contains(&Some(*it)))
    });
    let seen_at = group.observed_at.map(|it| it.to_string());
    let service = &group.provisioning;
    let name = &group.name;
    let says = match (held, &seen_at) {
        (Some((_, authority)), Some(at)) => format!(
            "nothing has to change: {service} admits {device} by its group {name}, which was \
             observed at {at} holding the certificate of {authority}, and a new leaf is signed \
             below that; request it, and the device registers with it"
        ),
        _ => format!(
            "{service} admits {device} by its group {name}, which was not observed holding a \
             certificate above a new leaf; read `hallmark enrollment show {name}` before a \
             request"
        ),
    };
    UnderGroup {
        registration_id: device.to_owned(),
        provisioning: service.clone(),
        group: name.clone(),
        proven: held.is_some(),
        chain: above
            .iter()
            .map(|(_, authority)| authority.clone())
            .collect(),
        held: held.map(|(it, _)| it.to_string()),
        seen_at,
        says,
    }
}

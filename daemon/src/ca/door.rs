//! Doors: by which enrollments the provisioning services let a device in.
//!
//! A device's own enrollment comes first, its groups only where it has none (contract section 10).
//! It must never miss a door: a leaf that is to be shut out is shut out at each.

use super::hierarchy::Generation;
use super::{CertificateAuthority, Error};
use crate::store::{CertificateRow, Door, EnrollmentKind, EnrollmentRow};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How many of a device's leaves are looked at, newest first.
const LEAVES_MAX: u32 = 1_000;

impl CertificateAuthority {
    /// A device's leaves that have not expired, newest first.
    pub(super) fn living_leaves(&self, device: &str) -> Result<Vec<CertificateRow>, Error> {
        let now = self.now();
        let mut leaves = self.store.certificates_of(device, LEAVES_MAX)?;
        leaves.retain(|leaf| leaf.not_after >= now);
        Ok(leaves)
    }

    /// Every way by which a service lets this device in.
    pub(super) fn doors(&self, device: &str) -> Result<Vec<Door>, Error> {
        let own = self.store.enrollments_named(device)?;
        let groups = self.groups_of(device)?;
        let doors = self.provisioning.iter().filter_map(|provisioning| {
            let individual = own.iter().find(|row| {
                row.kind == EnrollmentKind::Individual && row.provisioning == *provisioning
            });
            let group = groups.iter().find(|row| row.provisioning == *provisioning);
            (individual.is_some() || group.is_some()).then(|| Door {
                provisioning: provisioning.clone(),
                individual: individual.map(|row| row.id),
                group: group.map(|row| row.name.clone()),
                clears_hub: self.hubs.contains_key(provisioning),
            })
        });
        Ok(doors.collect())
    }

    /// The groups that let a device in by one of its leaves that have not expired.
    pub(super) fn groups_of(&self, device: &str) -> Result<Vec<EnrollmentRow>, Error> {
        let mut authorities = BTreeSet::new();
        for leaf in self.living_leaves(device)? {
            let above = self.generations_above(leaf.issuer);
            authorities.extend(above.iter().map(|it| it.authority.clone()));
        }
        let mut groups = self.store.groups()?;
        groups.retain(|row| {
            let authority = row.authority.as_ref();
            authority.is_some_and(|it| authorities.contains(it))
        });
        Ok(groups)
    }

    /// A generation and all above it, up to the root.
    pub(super) fn generations_above(&self, generation: i64) -> Vec<Arc<Generation>> {
        let hierarchy = self.hierarchy();
        let chain = hierarchy.chain(generation, &BTreeSet::new());
        chain.into_iter().cloned().collect()
    }
}

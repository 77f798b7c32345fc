//! A device's leaves, the generations above one of them, and the groups that let it in by them, as
//! they are read to be shown. What shuts a device out reads its doors anew (`store::door`).

use super::hierarchy::Generation;
use super::{CertificateAuthority, Error};
use crate::store::{CertificateRow, EnrollmentRow};
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

    /// The groups that let a device in by one of its leaves that have not expired.
    pub(super) fn groups_of(&self, device: &str) -> Result<Vec<EnrollmentRow>, Error> {
        Ok(self.store.groups_letting_in(device, self.now())?)
    }

    /// A generation and all above it, up to the root.
    pub(super) fn generations_above(&self, generation: i64) -> Vec<Arc<Generation>> {
        let hierarchy = self.hierarchy();
        let chain = hierarchy.chain(generation, &BTreeSet::new());
        chain.into_iter().cloned().collect()
    }
}

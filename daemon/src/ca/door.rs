//! A device's leaves, and the groups that let it in by them, as they are read to be shown. What shuts a device out reads its doors anew (`store::door`).

use super::profile::Role;
use super::{CertificateAuthority, Error};
use crate::store::{CertificateRow, EnrollmentRow};

/// How many of a device's leaves are looked at, newest first.
const LEAVES_MAX: u32 = 1_000;

impl CertificateAuthority {
    /// A device's leaves that have not expired, newest first. A station with the same name is not
    /// counted.
    pub(super) fn living_leaves(&self, device: &str) -> Result<Vec<CertificateRow>, Error> {
        let now = self.now();
        let mut leaves = self.store.certificates_of(device, LEAVES_MAX)?;
        leaves.retain(|leaf| leaf.role == Some(Role::Device) && leaf.not_after >= now);
        Ok(leaves)
    }

    /// The groups that let a device in by one of its leaves that have not expired.
    pub(super) fn groups_of(&self, device: &str) -> Result<Vec<EnrollmentRow>, Error> {
        Ok(self.store.groups_letting_in(device, self.now())?)
    }
}

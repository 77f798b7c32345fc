//! Reads a device's valid leaves and the groups that accept them, to show them.
//!
//! An exclusion must not use these lists: the store reads again in its own transaction.

use super::profile::Role;
use super::{CertificateAuthority, Error};
use crate::store::{CertificateRow, EnrollmentRow};

/// The most leaves of a device that are read, newest first.
const LEAVES_MAX: u32 = 1_000;

impl CertificateAuthority {
    /// Returns a device's leaves that have not expired, newest first, and none of a station with
    /// the same name.
    pub(super) fn living_leaves(&self, device: &str) -> Result<Vec<CertificateRow>, Error> {
        let now = self.now();
        let mut leaves = self.store.certificates_of(device, LEAVES_MAX)?;
        leaves.retain(|leaf| leaf.role == Some(Role::Device) && leaf.not_after >= now);
        Ok(leaves)
    }

    /// Returns the groups that accept one of the device's leaves that have not expired.
    pub(super) fn groups_of(&self, device: &str) -> Result<Vec<EnrollmentRow>, Error> {
        Ok(self.store.groups_admitting(device, self.now())?)
    }
}

//! Reads a device's valid leaves and the groups that accept them, to show them.
//!
//! An exclusion must not use these lists: the store reads again in its own transaction.

use super::Exclusions;
use crate::ca::profile::Role;
use crate::ca::{Code, Error};
use crate::ids::GenerationId;
use crate::store::{CertificateRow, EnrollmentRow};

/// The most leaves of a device that are read, newest first.
const LEAVES_MAX: u32 = 1_000;

impl Exclusions {
    /// Returns a device's leaves that have not expired, newest first, and none of a station with
    /// the same name.
    pub(in crate::ca) fn living_leaves(&self, device: &str) -> Result<Vec<CertificateRow>, Error> {
        let now = self.now();
        let mut leaves = self.store.certificates_of(device, LEAVES_MAX)?;
        leaves.retain(|leaf| leaf.role == Some(Role::Device) && leaf.not_after >= now);
        Ok(leaves)
    }

    /// Returns the groups that accept one of the device's leaves that have not expired.
    pub(in crate::ca) fn groups_of(&self, device: &str) -> Result<Vec<EnrollmentRow>, Error> {
        Ok(self.store.groups_admitting(device, self.now())?)
    }

    /// Returns the registration id in the spelling on record.
    pub(in crate::ca) fn known_device(&self, registration_id: &str) -> Result<String, Error> {
        let device = self.store.device(registration_id)?.ok_or_else(|| {
            let message = format!(
                "there is no device {registration_id:?}; `hallmark device list` has all that ever \
                 got a leaf"
            );
            Error::missing(Code::DeviceUnknown, message)
        })?;
        Ok(device.registration_id)
    }

    /// Returns true if an authority above has groups: they accept every leaf below it that is not
    /// blocked.
    pub(in crate::ca) fn has_groups_above(&self, generation: GenerationId) -> Result<bool, Error> {
        let hierarchy = self.hierarchy();
        for generation in hierarchy.upwards(generation).skip(1) {
            if !self.store.groups_of(&generation.authority)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

//! Excludes one compromised certificate at the provisioning services and hubs, too.

use super::{LeafCompromise, Rollovers};
use crate::ca::Error;
use crate::ca::authorize::{Authorized, Operate};
use crate::ca::profile::Role;
use crate::enrollment::roll::HubPolicy;
use crate::enrollment::slots::SlotName;
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::RollId;
use crate::store::EnrollmentKind;

/// The result of the exclusion of a certificate at services and hubs.
#[derive(Clone, Debug)]
pub enum ExcludedCertificate {
    /// Nothing but the API and the revocation list accepts or refuses it.
    NoOtherPlace,
    /// Its device is excluded by it, now or by an earlier command.
    Excluded { device: String, rolls: Vec<RollId> },
    /// The device has a newer leaf, which an exclusion of the device would exclude as well.
    Older { device: String },
}

impl Rollovers {
    /// Excludes a device's compromised leaf where its enrollments or its group admit it. The repeat
    /// finds what the first command has begun, so it never excludes the next leaf.
    pub fn exclude_certificate(
        &self,
        permission: &Authorized<Operate>,
        sha256: [u8; 32],
    ) -> Result<ExcludedCertificate, Error> {
        let found = self.store.certificate_by_sha256(&sha256)?;
        let is_device = found.filter(|it| it.role == Some(Role::Device));
        let Some(row) = is_device.filter(|it| it.not_after >= self.issuer.now()) else {
            return Ok(ExcludedCertificate::NoOtherPlace);
        };
        let rolls = self.store.compromises_of_leaf(&row.subject, &sha256)?;
        if !rolls.is_empty() {
            let device = row.subject;
            return Ok(ExcludedCertificate::Excluded { device, rolls });
        }
        let device = self.store.device(&row.subject)?;
        let is_current = device.is_some_and(|it| *it.certificate.as_bytes() == sha256);
        let slots = self.slots_of_leaf(&row.subject, Thumbprint::from_bytes(sha256))?;
        if slots.is_empty() && !is_current {
            let device = row.subject;
            return Ok(ExcludedCertificate::Older { device });
        }
        let slots = match slots.len() {
            1 => slots,
            _ => SlotName::BOTH.into(),
        };
        let compromise = LeafCompromise {
            registration_id: row.subject,
            slots,
            hub: HubPolicy::Delete,
            request: None,
        };
        let done = self.start_leaf_compromise(permission, compromise)?;
        Ok(ExcludedCertificate::Excluded {
            device: done.registration_id,
            rolls: done.rolls.iter().map(|roll| roll.id).collect(),
        })
    }

    fn slots_of_leaf(&self, device: &str, leaf: Thumbprint) -> Result<Vec<SlotName>, Error> {
        let mut own = self.store.enrollments_named(device)?;
        own.retain(|row| row.kind == EnrollmentKind::Individual);
        let holds = |slot: &SlotName| own.iter().any(|row| row.slots.in_slot(*slot) == Some(leaf));
        Ok(SlotName::BOTH.into_iter().filter(holds).collect())
    }
}

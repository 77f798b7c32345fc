//! Reads a device's valid leaves and the groups that accept them, to show them.
//!
//! An exclusion must not use these lists: the store reads again in its own transaction.

use super::Exclusions;
use crate::ca::profile::Role;
use crate::ca::roll::{canary, certificate_in};
use crate::ca::{Code, Error};
use crate::der_bytes::Der;
use crate::enrollment::id::RegistrationId;
use crate::enrollment::record::Record;
use crate::enrollment::slots::SlotName;
use crate::ids::GenerationId;
use crate::store::{CertificateRow, EnrollmentRow};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use std::collections::BTreeSet;

/// The most leaves of a device that are read, newest first.
const LEAVES_MAX: u32 = 1_000;

impl Exclusions {
    /// Returns a device's leaves that have not expired, newest first, and none of a station with
    /// the same name.
    pub(in crate::ca) fn living_leaves(&self, device: &str) -> Result<Vec<CertificateRow>, Error> {
        let now = self.issuer.now();
        let mut leaves = self.store.certificates_of(device, LEAVES_MAX)?;
        leaves.retain(|leaf| leaf.role == Some(Role::Device) && leaf.not_after >= now);
        Ok(leaves)
    }

    /// Returns the groups that accept one of the device's leaves that have not expired.
    pub(in crate::ca) fn groups_of(&self, device: &str) -> Result<Vec<EnrollmentRow>, Error> {
        Ok(self.store.groups_admitting(device, self.issuer.now())?)
    }

    /// Returns the registration id of a device to be excluded, in the spelling on record. After a
    /// restore a device may have a leaf that is not on record; then its name is enough.
    pub(in crate::ca) fn named_device(&self, registration_id: &str) -> Result<String, Error> {
        if let Some(device) = self.store.device(registration_id)? {
            return Ok(device.registration_id);
        }
        if self.store.lost_period()?.is_none() {
            let message = format!(
                "nothing is excluded: there is no device {registration_id:?}; `hallmark device \
                 list` has all that ever got a leaf"
            );
            return Err(Error::missing(Code::DeviceUnknown, message));
        }
        RegistrationId::parse(registration_id)
            .map_err(|error| Error::invalid(error.code(), error.to_string()))?;
        canary::refuse_reserved(registration_id)?;
        Ok(registration_id.to_owned())
    }

    /// Returns a certificate for the enrollment that excludes a device without a leaf on record.
    /// Its key is dropped, so nothing can use it.
    pub(super) fn placeholder_if_needed(&self, device: &str) -> Result<Option<Der>, Error> {
        if self.store.device(device)?.is_some() {
            return Ok(None);
        }
        let failed = |error: rcgen::Error| Error::stop(Code::Internal, error.to_string());
        let key = KeyPair::generate().map_err(failed)?;
        let mut parameters = CertificateParams::default();
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, device);
        parameters.distinguished_name = subject;
        let placeholder = parameters.self_signed(&key).map_err(failed)?;
        Ok(Some(Der::from(placeholder.der().as_ref())))
    }

    /// Returns the groups, but for those that only exclude, that hold the certificate of one of
    /// these generations, or were last observed to: by a change that the service has not made they
    /// still admit.
    pub(in crate::ca) fn groups_holding(
        &self,
        generations: &BTreeSet<GenerationId>,
    ) -> Result<Vec<EnrollmentRow>, Error> {
        let hierarchy = self.issuer.hierarchy();
        let held_by = |row: &EnrollmentRow| {
            let seen = row.observed.clone();
            let seen = seen.and_then(|record| Record::parse(record).ok());
            let in_slot = |slot| certificate_in(&hierarchy, seen.as_ref()?, slot);
            let seen = SlotName::BOTH.into_iter().filter_map(in_slot);
            BTreeSet::from_iter(row.slots.held().into_iter().chain(seen))
        };
        let of_these = generations
            .iter()
            .filter_map(|id| hierarchy.generation(*id));
        let of_these = BTreeSet::from_iter(of_these.map(|it| it.thumbprint()));
        let mut groups = self.store.groups()?;
        groups.retain(|it| it.overlay_of.is_none() && !held_by(it).is_disjoint(&of_these));
        Ok(groups)
    }

    /// Returns true if an authority above has groups: they accept every leaf below it that is not
    /// blocked.
    pub(in crate::ca) fn has_groups_above(&self, generation: GenerationId) -> Result<bool, Error> {
        let hierarchy = self.issuer.hierarchy();
        for generation in hierarchy.upwards(generation).skip(1) {
            if !self.store.groups_of(&generation.authority)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

//! Decides which hub identities of an excluded device are deleted.
//!
//! A hub knows a device by the leaf of its last registration. An identity with a good leaf is of a
//! device that has been readmitted, or whose other slot is good: without it that device would lose
//! its connection for nothing. Another device's identity may have this device's registration id.

use super::Exclusions;
use crate::ca::Error;
use crate::enrollment::hub_identity::HubIdentity;
use crate::enrollment::thumbprint::Thumbprint;
use crate::store::{CertificateRow, EnrollmentKind, HubCause};

/// The device that a hub identity admits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityHolder {
    /// The device, by good leaves alone.
    GoodLeaf,
    /// The device by an excluded leaf, or by a certificate that is not on record.
    Excluded,
    /// Another device, with this registration id.
    Another(String),
}

impl Exclusions {
    /// Returns the ids that a hub may know a device by: its registration id, and the device id of
    /// its enrollment as the service was last observed to hold it.
    pub fn hub_device_ids(&self, service: &str, device: &str) -> Result<Vec<String>, Error> {
        let mut ids = vec![device.to_owned()];
        for row in self.store.enrollments_named(device)? {
            let is_its = row.kind == EnrollmentKind::Individual && row.provisioning == service;
            let observed = row.observed.filter(|_| is_its);
            let named = observed.as_ref().and_then(|it| it["deviceId"].as_str());
            ids.extend(named.filter(|it| *it != device).map(str::to_owned));
        }
        Ok(ids)
    }

    /// Returns true if the device has a leaf that `cause` does not exclude: a block has its leaves
    /// on hold, or the generation above them. A canary has none.
    pub fn has_good_leaf(&self, device: &str, cause: Option<HubCause>) -> Result<bool, Error> {
        let leaves = self.living_leaves(device)?;
        Ok(cause.is_some() && leaves.iter().any(|leaf| self.is_good(leaf)))
    }

    /// Returns the device that an identity admits, which is to be deleted for `cause`.
    pub fn identity_holder(
        &self,
        identity: &HubIdentity,
        device: &str,
        cause: Option<HubCause>,
    ) -> Result<IdentityHolder, Error> {
        let shown = identity.thumbprints();
        let mut known = Vec::new();
        for thumbprint in shown.iter().filter_map(|it| it.parse().ok()) {
            known.extend(
                self.store
                    .certificate_by_sha256(Thumbprint::as_bytes(&thumbprint))?,
            );
        }
        let is_its = |leaf: &CertificateRow| leaf.subject.eq_ignore_ascii_case(device);
        if let Some(other) = known.iter().find(|leaf| !is_its(leaf)) {
            let is_shared = known.iter().any(is_its);
            return Ok(if is_shared {
                IdentityHolder::Excluded
            } else {
                IdentityHolder::Another(other.subject.clone())
            });
        }
        let spares_good = cause.is_some();
        let all_known = !shown.is_empty() && known.len() == shown.len();
        if spares_good && all_known && known.iter().all(|leaf| self.is_good(leaf)) {
            return Ok(IdentityHolder::GoodLeaf);
        }
        Ok(IdentityHolder::Excluded)
    }

    /// Returns true if neither the leaf nor a generation above it is revoked, and it has not ended.
    fn is_good(&self, leaf: &CertificateRow) -> bool {
        let hierarchy = self.issuer.hierarchy();
        leaf.revoked_at.is_none()
            && leaf.not_after >= self.issuer.now()
            && hierarchy.revoked_above(leaf.issuer).is_none()
    }
}

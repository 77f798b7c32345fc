//! Names the configured provisioning services, and what each of them has.

use std::collections::{BTreeMap, BTreeSet};

/// The configured provisioning services.
#[derive(Clone, Debug, Default)]
pub struct Services {
    /// Their names in the configuration.
    pub names: Vec<String>,
    /// Authorities whose certificates each service verifies.
    pub verified: BTreeMap<String, BTreeSet<String>>,
    /// How often each service is compared with the record, in seconds.
    pub scan_seconds: i64,
    /// How many operations a minute each service allows.
    pub rates: BTreeMap<String, u32>,
    /// The services with a hub, and how many operations a minute it allows.
    pub hubs: BTreeMap<String, u32>,
}

impl Services {
    /// Returns true if the service `provisioning` must hold the certificates of `authority`
    /// verified.
    pub(super) fn verifies(&self, provisioning: &str, authority: &str) -> bool {
        let verified = self.verified.get(provisioning);
        verified.is_some_and(|names| names.contains(authority))
    }
}

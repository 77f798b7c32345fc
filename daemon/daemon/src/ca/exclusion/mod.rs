//! Excludes certificates and devices at every place: revocation lists, provisioning services, hubs.
//!
//! A block ([`block`]) is lifted by an operator; a compromise has successors, which `Rollovers`
//! makes after the exclusion. [`receipt`] says what each place was observed to do.

pub mod block;
pub mod certificate_name;
mod device_access;
pub mod former;
pub mod holding;
pub mod hub_identity;
mod older_leaf;
mod pending;
pub mod place;
pub mod plan;
pub mod receipt;
pub mod revoke;
mod subordinate;
mod sweep;
pub mod unfinished;

use super::crl::CrlPublisher;
use super::services::Services;
use super::{Error, Issuer};
use crate::store::Store;
use std::sync::Arc;

/// Blocks, excludes, revokes and readmits.
pub struct Exclusions {
    issuer: Arc<Issuer>,
    /// Shows whether a revocation list has what is on record.
    crls: Arc<CrlPublisher>,
    services: Arc<Services>,
    store: Store,
}

impl Exclusions {
    pub(super) fn new(
        issuer: Arc<Issuer>,
        crls: Arc<CrlPublisher>,
        services: Arc<Services>,
    ) -> Self {
        Self {
            store: issuer.store().clone(),
            issuer,
            crls,
            services,
        }
    }

    /// Records which services have a hub: one that has come deletes what exclusions in force ask
    /// for.
    pub fn record_hubs(&self) -> Result<(), Error> {
        let hubs = self.services.hubs.keys().cloned().collect();
        self.store.record_hubs(hubs, self.issuer.now())?;
        Ok(())
    }

    pub(super) fn issuer(&self) -> Arc<Issuer> {
        Arc::clone(&self.issuer)
    }

    pub(super) fn services(&self) -> Arc<Services> {
        Arc::clone(&self.services)
    }
}

//! Observes devices with an open rollover in the hub, at intervals.
//!
//! It changes nothing anywhere. An observation costs two operations, one of the service for the
//! registration record, and one of the hub that the record names; a failed observation is repeated
//! in the next round.

use super::backoff::while_the_store_fails;
use super::identity::Observed;
use super::{Reconciler, TICK};
use crate::ca::Error;
use crate::provisioning::failure::CallError;
use crate::store::HubObservation;
use futures_util::stream::{self, StreamExt};
use std::time::Duration;

/// Devices observed at once; the next ones follow.
const DEVICES_AT_ONCE: u32 = 500;
/// Observations under way at a time.
const OBSERVATIONS_IN_WORK_MAX: usize = 4;

impl Reconciler {
    /// Observes devices that roll, each once per interval.
    pub(super) async fn gather_proofs(&self) {
        if self.clients.hubs.is_empty() {
            return std::future::pending().await;
        }
        let seconds = u64::try_from(self.ca.rollovers().proof_interval_seconds()).unwrap_or(1);
        loop {
            tokio::time::sleep(Duration::from_secs(seconds).min(TICK)).await;
            while_the_store_fails(&self.ca).await;
            if let Err(error) = self.proof_round().await {
                let service = &self.name;
                tracing::warn!(service, %error, "device observation pass failed, retrying");
            }
        }
    }

    async fn proof_round(&self) -> Result<(), Error> {
        let name = self.name.clone();
        let devices = self
            .blocking(move |ca| {
                let before = ca.now() - ca.rollovers().proof_interval_seconds();
                Ok(ca
                    .store()
                    .devices_to_observe(&name, before, DEVICES_AT_ONCE)?)
            })
            .await?;
        let observed = devices
            .into_iter()
            .map(|device| self.observe_in_hub(device));
        let mut observed = stream::iter(observed).buffer_unordered(OBSERVATIONS_IN_WORK_MAX);
        while let Some(found) = observed.next().await {
            match found {
                Ok(proof) => {
                    self.blocking(move |ca| Ok(ca.store().record_hub_observation(proof)?))
                        .await?;
                    self.observed.notify_one();
                }
                Err(error) => {
                    let service = &self.name;
                    tracing::warn!(service, reason = %error, "device observation failed, retrying");
                    // A refusal of one device says nothing about the others.
                    if !matches!(error, CallError::Rejected { .. }) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    async fn observe_in_hub(&self, device: String) -> Result<HubObservation, CallError> {
        let record = self.registration(&device).await?;
        let observed = self.observe_identity(&device, record.as_ref()).await?;
        let (certificate, elsewhere) = match observed {
            Observed::Identity(identity) => (identity.and_then(|it| it.leaf()), None),
            Observed::Elsewhere(place) => (None, Some(place.hub)),
        };
        let now = self.ca.now();
        Ok(HubObservation {
            provisioning: self.name.clone(),
            device,
            certificate,
            registration: record.and_then(|it| it.status),
            elsewhere,
            since: now,
            seen_at: now,
        })
    }
}

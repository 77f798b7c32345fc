//! Registers a canary as a device under the next generation, and records the result.
//!
//! Its key is made here, in memory, and dropped after the call. The canary has the same name each
//! time, so its traces at the service and in the hub are removed before and after each attempt.

use super::backoff::{Backoff, while_the_store_fails};
use super::identity::Deleted;
use super::{DUE_INTERVAL, Failure, Reconciler, TICK, pause_seconds};
use crate::ca::roll::canary::CanaryRequest;
use crate::ca::{Code, Error};
use crate::enrollment::id::RegistrationId;
use crate::enrollment::slots::CanaryVerdict;
use crate::ids::RollId;
use crate::provisioning::device::{DeviceClient, Registration};
use crate::provisioning::failure::CallError;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rcgen::{CertificateParams, KeyPair};
use secrecy::SecretString;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How often a registration is polled before the attempt is abandoned.
const POLLS_MAX: u32 = 30;
/// Canaries that are tried at once.
const ATTEMPTS_MAX: usize = 8;
/// The shortest pause between two passes without a wake-up.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// A canary that has failed, so many times in a row, and when it is tried again.
#[derive(Clone, Copy)]
struct Failed {
    times: i64,
    again_at: Instant,
}

impl Failed {
    /// One more failure, and a longer pause.
    fn after(before: Option<Self>) -> Self {
        let times = before.map_or(0, |it| it.times) + 1;
        let pause = Duration::from_secs(pause_seconds(times - 1, None));
        Self {
            times,
            again_at: Instant::now() + pause,
        }
    }
}

impl Reconciler {
    /// Tries canaries as they fall due. Each attempt costs a signature, so failures make it slower;
    /// but those of one canary hold up no other.
    pub(super) async fn try_canaries(&self) {
        let mut failed = BTreeMap::new();
        let mut backoff = Backoff::default();
        loop {
            while_the_store_fails(&self.ca).await;
            if let Err(error) = self.canary_pass(&mut failed).await {
                tracing::error!(service = self.name, %error, "canary pass failed, retrying");
                backoff.rest().await;
                continue;
            }
            backoff.over();
            let next = failed.values().map(|it: &Failed| it.again_at).min();
            let pause = next.map_or(TICK, |at| at.saturating_duration_since(Instant::now()));
            tokio::select! {
                () = self.canary_wake.notified() => {}
                () = tokio::time::sleep(pause.clamp(PAUSE_MIN, TICK)) => {}
            }
        }
    }

    /// Every canary that is due, several at a time: one whose call hangs holds up no other.
    /// `failed` is by roll. Ends when none is due.
    async fn canary_pass(&self, failed: &mut BTreeMap<RollId, Failed>) -> Result<(), Error> {
        let mut attempts = FuturesUnordered::new();
        let mut under_way = BTreeSet::new();
        loop {
            let name = self.name.clone();
            let due = self
                .blocking(move |ca| ca.rollovers().canaries_due(&name))
                .await?;
            failed.retain(|roll, _| due.iter().any(|canary| canary.roll == *roll));
            for canary in due {
                let roll = canary.roll;
                let waits = |it: &Failed| it.again_at > Instant::now();
                let is_free =
                    under_way.len() < ATTEMPTS_MAX && !failed.get(&roll).is_some_and(waits);
                if is_free && under_way.insert(roll) {
                    attempts.push(async move { (roll, self.has_passed(&canary).await) });
                }
            }
            if attempts.is_empty() {
                return Ok(());
            }
            tokio::select! {
                Some((roll, passed)) = attempts.next() => {
                    under_way.remove(&roll);
                    let before = failed.remove(&roll);
                    if !passed? {
                        failed.insert(roll, Failed::after(before));
                    }
                }
                () = self.canary_wake.notified() => {}
                () = tokio::time::sleep(DUE_INTERVAL) => {}
            }
        }
    }

    /// Tries a canary, and writes down what became of it.
    async fn has_passed(&self, canary: &CanaryRequest) -> Result<bool, Error> {
        let verdict = match self.try_canary(canary).await {
            Ok(verdict) => verdict,
            Err(failure) => {
                self.note_failure(canary, &failure).await?;
                return Ok(false);
            }
        };
        let passed = verdict == CanaryVerdict::Passed;
        let canary = canary.clone();
        let name = self.name.clone();
        self.blocking(move |ca| ca.rollovers().record_canary(&canary, &name, verdict))
            .await?;
        Ok(passed)
    }

    /// Records why a canary could not be tried. A pause after failed signatures is not recorded:
    /// the failure before it is on record.
    async fn note_failure(&self, canary: &CanaryRequest, failure: &Failure) -> Result<(), Error> {
        let service = &self.name;
        let name = &canary.registration_id;
        tracing::warn!(
            service,
            canary = name,
            reason = %failure,
            "canary attempt failed, retrying",
        );
        if matches!(failure, Failure::Here(error) if error.code == Code::SigningPaused) {
            return Ok(());
        }
        let reason = failure.to_string();
        let canary = canary.clone();
        let service = service.clone();
        self.blocking(move |ca| {
            ca.rollovers()
                .record_canary_failure(&canary, &service, reason)
        })
        .await
    }

    async fn try_canary(&self, canary: &CanaryRequest) -> Result<CanaryVerdict, Failure> {
        let id = RegistrationId::parse(&canary.registration_id)
            .map_err(|error| Failure::Here(Error::stop(Code::Canary, error.to_string())))?;
        self.forget_canary(&id).await?;
        let (key, csr) = request().map_err(Failure::Here)?;
        let asked = canary.clone();
        let issued = self
            .blocking(move |ca| ca.rollovers().issue_canary(&asked, &csr))
            .await?;
        let identity = key + &issued.to_pem();
        let client = self.clients.device.client(&SecretString::from(identity));
        let client =
            client.map_err(|error| Failure::Here(Error::stop(Code::Canary, error.to_string())))?;
        let verdict = match registered(&client, &id).await {
            Ok(verdict) => verdict,
            Err(refused @ (CallError::Unauthorized { .. } | CallError::Rejected { .. })) => {
                CanaryVerdict::Failed(refused.to_string())
            }
            Err(other) => return Err(other.into()),
        };
        self.forget_canary(&id).await?;
        Ok(verdict)
    }

    /// Deletes the identity in the hub first: a registration record without an identity is
    /// harmless.
    async fn forget_canary(&self, id: &RegistrationId) -> Result<(), Failure> {
        if !self.clients.hubs.is_empty() {
            let canary = Deleted {
                device: id.to_string(),
                cause: None,
            };
            let answer = self.delete_identities(&canary).await?;
            if let Some((hub, device_id)) = answer.elsewhere() {
                let service = &self.name;
                tracing::warn!(
                    service,
                    hub,
                    device_id,
                    "canary left in a hub without configuration"
                );
            }
        }
        Ok(self.clients.dps.delete_registration(id).await?)
    }
}

/// A key and a request; the name is the authority's to set.
fn request() -> Result<(String, Vec<u8>), Error> {
    let failed = |error: rcgen::Error| Error::stop(Code::Canary, error.to_string());
    let key = KeyPair::generate().map_err(failed)?;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    let csr = parameters.serialize_request(&key).map_err(failed)?;
    Ok((key.serialize_pem(), csr.der().to_vec()))
}

async fn registered(
    client: &DeviceClient,
    id: &RegistrationId,
) -> Result<CanaryVerdict, CallError> {
    let mut seen = client.register(id).await?;
    for _ in 0..POLLS_MAX {
        match seen {
            Registration::Assigned { .. } => return Ok(CanaryVerdict::Passed),
            Registration::Disabled => {
                return Ok(CanaryVerdict::Failed("its enrollment is disabled".into()));
            }
            Registration::Failed { reason } => return Ok(CanaryVerdict::Failed(reason)),
            Registration::Assigning {
                operation_id,
                poll_after,
            } => {
                tokio::time::sleep(poll_after).await;
                seen = client.poll(id, &operation_id).await?;
            }
        }
    }
    Ok(CanaryVerdict::Failed("it was never assigned".into()))
}

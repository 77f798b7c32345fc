//! One turn for one CA certificate: observe, then upload, code or proof, step by step.
//!
//! A CA certificate that was verified is compared like an enrollment. Another program's change is
//! drift: policy decides whether it is repaired.

use super::{Failure, Outcome, Reconciler};
use crate::ca::{Code, Error};
use crate::enrollment::ca_certificate::{ObservedCaCertificate, PossessionProof, Step, next_step};
use crate::enrollment::ca_drift::{CaCertificateDrift, drift};
use crate::enrollment::desired::SlotCertificate;
use crate::enrollment::etag::Etag;
use crate::enrollment::plan::DriftPolicy;
use crate::ids::GenerationId;
use crate::provisioning::arm::ArmClient;
use crate::provisioning::failure::CallError;
use crate::store::{CaCertificateRow, Observation};

impl Reconciler {
    pub(super) async fn ca_certificate_turn(
        &self,
        row: CaCertificateRow,
    ) -> Result<Outcome, Failure> {
        let Some(arm) = &self.clients.arm else {
            let reason = "no [provisioning.arm] is configured to verify CA certificates with";
            return Ok(Outcome::Parked(reason.into()));
        };
        let certificate = SlotCertificate::new(row.certificate.clone());
        let observed = self.observe_ca_certificate(arm, &row).await?;
        if row.removed {
            let observed = observed.filter(|it| it.is(&certificate));
            return self.removal_turn(arm, &row, observed).await;
        }
        let policy = self.ca_drift_policy(&row);
        self.log_drift(&row, drift(&certificate, &row.proof, observed.as_ref()));
        match next_step(&certificate, &row.proof, observed.as_ref(), policy) {
            Step::Done => {
                self.advance(&row, row.proof.clone().verified()).await?;
                Ok(Outcome::Done(Observation::Verified))
            }
            Step::Upload { replaces } => {
                arm.put(&row.name, &certificate, replaces.as_ref()).await?;
                self.advance(&row, row.proof.clone().uploaded()).await?;
                Ok(Outcome::Again)
            }
            Step::RequestCode { etag } => {
                // Each step of the proof changes the ETag; the next turn reads it.
                let (code, _etag) = arm.generate_verification_code(&row.name, &etag).await?;
                let proof = row.proof.clone().code_received(code).map_err(refused)?;
                self.advance(&row, proof).await?;
                self.observed.notify_one();
                Ok(Outcome::Signature)
            }
            Step::Sign { .. } => {
                self.observed.notify_one();
                Ok(Outcome::Signature)
            }
            Step::Verify {
                etag,
                verification_certificate,
            } => {
                self.prove(arm, &row, &verification_certificate, &etag)
                    .await
            }
            Step::Drift(drift) => Ok(drifted(&drift)),
            Step::Park(reason) => Ok(Outcome::Parked(reason.to_string())),
        }
    }

    /// Reads the certificate under the name of `row`, and records it. Only the complete list shows
    /// that there is none: a proxy, or a service that is not found, answers 404 for the name, too.
    async fn observe_ca_certificate(
        &self,
        arm: &ArmClient,
        row: &CaCertificateRow,
    ) -> Result<Option<ObservedCaCertificate>, Failure> {
        let found = match arm.get(&row.name).await? {
            Some(found) => Some(found),
            None => {
                let named = |name: &str| name.eq_ignore_ascii_case(&row.name);
                let listed = arm.list().await?;
                listed.into_iter().find(|it| named(&it.name))
            }
        };
        let observed = found.map(|it| it.certificate);
        let id = row.id;
        let seen = observed.clone();
        let record = move |ca: &crate::ca::CertificateAuthority| {
            Ok(ca.store().observe_ca_certificate(id, seen, ca.now())?)
        };
        self.blocking(record).await?;
        Ok(observed)
    }

    /// Deletes a certificate of ours that is not wanted any more. `observed` is `None` also if
    /// another certificate has the name: it belongs to another program.
    async fn removal_turn(
        &self,
        arm: &ArmClient,
        row: &CaCertificateRow,
        observed: Option<ObservedCaCertificate>,
    ) -> Result<Outcome, Failure> {
        let Some(observed) = observed else {
            return Ok(Outcome::Done(Observation::Gone));
        };
        if let Some(drift) = &row.drift
            && self.ca_drift_policy(row) == DriftPolicy::Report
            && !self.is_excluded(row.generation).await?
        {
            return Ok(drifted(drift));
        }
        arm.delete(&row.name, &observed.etag).await?;
        Ok(Outcome::Again)
    }

    /// A certificate that is missing since a restore may have been deleted in the lost period, as
    /// that of a compromised authority: it is not uploaded again before an operator says so.
    fn ca_drift_policy(&self, row: &CaCertificateRow) -> DriftPolicy {
        if row.restored {
            DriftPolicy::Report
        } else {
            self.drift
        }
    }

    /// Returns true if the generation is excluded: its CA certificate is deleted against any
    /// policy, because the service admits devices by it.
    async fn is_excluded(&self, generation: GenerationId) -> Result<bool, Error> {
        self.blocking(move |ca| Ok(ca.hierarchy().revoked_above(generation).is_some()))
            .await
    }

    async fn prove(
        &self,
        arm: &ArmClient,
        row: &CaCertificateRow,
        verification_certificate: &SlotCertificate,
        etag: &Etag,
    ) -> Result<Outcome, Failure> {
        match arm.verify(&row.name, verification_certificate, etag).await {
            Ok(_) => Ok(Outcome::Again),
            // The certificate is recorded as refused, or it would be sent again for ever. The next
            // turn requests another code.
            Err(rejected @ CallError::Rejected { .. }) => {
                let proof = row.proof.clone().refused(rejected.to_string());
                self.advance(row, proof.map_err(refused)?).await?;
                Ok(Outcome::Again)
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Logs a change by another program once, and again when it is repaired.
    fn log_drift(&self, row: &CaCertificateRow, drift: Option<CaCertificateDrift>) {
        let repaired = self.ca_drift_policy(row) == DriftPolicy::Repair;
        if let Some(drift) = drift
            && (repaired || row.drift.as_ref() != Some(&drift))
        {
            let service = &self.name;
            let certificate = &row.name;
            tracing::warn!(
                service,
                certificate,
                %drift,
                repaired,
                "CA certificate was changed outside Hallmark"
            );
        }
    }

    async fn advance(&self, row: &CaCertificateRow, to: PossessionProof) -> Result<(), Failure> {
        let id = row.id;
        let from = row.proof.clone();
        if from != to {
            self.blocking(move |ca| Ok(ca.store().advance_proof(id, from, to)?))
                .await?;
        }
        Ok(())
    }
}

fn refused(refusal: impl std::fmt::Display) -> Failure {
    Failure::Here(Error::stop(Code::PossessionRefused, refusal.to_string()))
}

fn drifted(drift: &CaCertificateDrift) -> Outcome {
    Outcome::Done(Observation::Drifted {
        record: None,
        drift: serde_json::to_value(drift).unwrap_or_default(),
    })
}

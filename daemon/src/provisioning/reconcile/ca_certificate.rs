//! One look at one CA certificate: upload, code, proof, step by step.

use super::{Failure, Outcome, Reconciler};
use crate::ca::{Code, Error};
use crate::enrollment::ca_certificate::{ObservedCaCertificate, PossessionProof, Step, next_step};
use crate::enrollment::desired::SlotCertificate;
use crate::enrollment::thumbprint::Sha1Thumbprint;
use crate::provisioning::failure::CallError;
use crate::store::{CaCertificateRow, Observation};

impl Reconciler {
    pub(super) async fn look_at_ca_certificate(
        &self,
        row: CaCertificateRow,
    ) -> Result<Outcome, Failure> {
        let Some(arm) = &self.clients.arm else {
            let reason = "no [provisioning.arm] is configured to verify CA certificates with";
            return Ok(Outcome::Parked(reason.into()));
        };
        let certificate = SlotCertificate::new(row.certificate.clone());
        let observed = arm.get(&row.name).await?.map(|named| named.certificate);
        if row.removed {
            // Another certificate under this name belongs to another program: it is not deleted.
            let ours =
                |it: &ObservedCaCertificate| it.thumbprint == Sha1Thumbprint::of(certificate.der());
            let Some(observed) = observed.filter(ours) else {
                return Ok(Outcome::Done(Observation::Gone));
            };
            arm.delete(&row.name, &observed.etag).await?;
            return Ok(Outcome::Again);
        }
        match next_step(&certificate, &row.proof, observed.as_ref()) {
            Step::Done => {
                self.advance(&row, row.proof.clone().verified()).await?;
                Ok(Outcome::Done(Observation::Verified))
            }
            Step::Upload => {
                arm.put(&row.name, &certificate, None).await?;
                self.advance(&row, row.proof.clone().uploaded()).await?;
                Ok(Outcome::Again)
            }
            Step::RequestCode { etag } => {
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
                match arm
                    .verify(&row.name, &verification_certificate, &etag)
                    .await
                {
                    Ok(_) => Ok(Outcome::Again),
                    Err(rejected @ CallError::Rejected { .. }) => {
                        let proof = row.proof.clone().refused(rejected.to_string());
                        self.advance(&row, proof.map_err(refused)?).await?;
                        Ok(Outcome::Again)
                    }
                    Err(other) => Err(other.into()),
                }
            }
            Step::Park(reason) => Ok(Outcome::Parked(reason.to_string())),
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

//! A roll in words: what it waits for, and what is left to do.

use super::super::Error;
use super::waits::{WaitCode, Waits, coded};
use super::{AuthorityDetail, CanaryFailure, EstimatedRest, Rollovers};
use crate::enrollment::authority_roll::{Evidence, Step, Wait, next_step};
use crate::enrollment::refusal::Reason;
use crate::enrollment::roll::RollReason;
use crate::ids::EnrollmentId;
use crate::store::{DrainReport, HubCause, HubProgress, RollRow, RollState, RollSubject};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

impl Rollovers {
    /// The last look at the device of a leaf's roll in its hub, in words.
    pub fn roll_proof(&self, roll: &RollRow) -> Result<Option<String>, Error> {
        let RollSubject::Enrollment {
            provisioning, name, ..
        } = &roll.subject
        else {
            return Ok(None);
        };
        let Some(proof) = self.store.hub_observation(provisioning, name)? else {
            return Ok(None);
        };
        if let Some(hub) = proof.elsewhere {
            let observed = proof.seen_at.to_string();
            return Ok(Some(format!(
                "in {hub}, which is not configured, observed {observed}"
            )));
        }
        let on = match proof.certificate {
            None => "has no identity in the hub".to_owned(),
            Some(it) if Some(it) == roll.new_certificate => "on its new leaf".into(),
            Some(it) if it == roll.old_certificate => "on its old leaf".into(),
            Some(it) => format!("on another leaf, {it}"),
        };
        let since = proof.since.to_string();
        let observed = proof.seen_at.to_string();
        Ok(Some(format!("{on} since {since}, observed {observed}")))
    }

    /// How far a roll's work at the hub is, if it has any.
    pub fn roll_hub_progress(&self, roll: &RollRow) -> Result<Option<HubProgress>, Error> {
        let progress = self.store.hub_progress(HubCause::Roll(roll.id), None)?;
        Ok((progress.total > 0).then_some(progress))
    }

    /// The same in words.
    pub fn roll_hub_progress_in_words(&self, roll: &RollRow, progress: HubProgress) -> String {
        let service = match &roll.subject {
            RollSubject::Enrollment { provisioning, .. } => provisioning.as_str(),
            RollSubject::Authority { .. } => self.slowest_hub(),
        };
        let exclusions = &self.exclusions;
        exclusions.hub_progress_in_words(service, progress)
    }

    /// Where work at several hubs ends last.
    fn slowest_hub(&self) -> &str {
        let slowest = self.services.hubs.iter().min_by_key(|(_, rate)| **rate);
        slowest.map_or("", |(name, _)| name)
    }

    /// Returns what a rollover waits for.
    pub fn roll_waits_for(&self, roll: &RollRow) -> Result<Waits, Error> {
        let RollSubject::Enrollment {
            id,
            provisioning,
            name,
        } = &roll.subject
        else {
            let evidence = self.authority_evidence(roll, self.issuer.now())?;
            return self.authority_roll_waits_for(roll, &evidence);
        };
        let at_service = json!({ "provisioning": provisioning });
        Ok(match roll.state {
            RollState::Staged if self.holds_both(*id)? => {
                let text = format!("{provisioning} to be seen holding both certificates");
                Waits::new(WaitCode::BothSlotsObserved, at_service, text)
            }
            // A block has taken one of two staged certificates out of its slot.
            RollState::Staged | RollState::Draining => {
                let not_after = roll.old_not_after.to_string();
                let text = format!("the old certificate to expire at {not_after}");
                let parameters = json!({ "not_after": not_after });
                Waits::new(WaitCode::OldCertificateExpired, parameters, text)
            }
            RollState::Excluding => {
                let text = self
                    .exclusions
                    .enrollment_place(&self.store.enrollment(*id)?)
                    .answer;
                Waits::new(WaitCode::ServiceExcludes, at_service, text)
            }
            RollState::Clearing => {
                let places = self
                    .exclusions
                    .hub_places(&[HubCause::Roll(roll.id)], provisioning)?;
                let answers: Vec<_> = places.into_iter().map(|it| it.answer).collect();
                let text = format!(
                    "the hub of {provisioning} to answer that the identity of {name} is deleted: \
                     {}",
                    answers.join("; ")
                );
                Waits::new(WaitCode::HubIdentitiesDeleted, at_service, text)
            }
            RollState::Reissuing if roll.new_certificate.is_some() => {
                let text = self
                    .exclusions
                    .enrollment_place(&self.store.enrollment(*id)?)
                    .answer;
                Waits::new(WaitCode::ServiceInStep, at_service, text)
            }
            RollState::Requested | RollState::Reissuing => {
                let text = format!("a request for a certificate of {name} with a new key");
                let parameters = json!({ "registration_id": name });
                Waits::new(WaitCode::CertificateRequested, parameters, text)
            }
            RollState::Done | RollState::Aborted => Waits::nothing(),
        })
    }

    fn holds_both(&self, enrollment: EnrollmentId) -> Result<bool, Error> {
        Ok(self.store.enrollment(enrollment)?.slots.held().len() > 1)
    }

    /// Returns what a rollover waits for, and how long its rest takes, if anything can be said.
    pub fn roll_outlook(&self, roll: &RollRow) -> Result<(Waits, Option<EstimatedRest>), Error> {
        if let RollSubject::Enrollment { provisioning, .. } = &roll.subject {
            let rest = self.rest_of_leaf(roll, provisioning)?;
            return Ok((self.roll_waits_for(roll)?, rest));
        }
        let evidence = self.authority_evidence(roll, self.issuer.now())?;
        let waits = self.authority_roll_waits_for(roll, &evidence)?;
        let rest = match next_step(roll.state, &evidence) {
            Ok(_) => None,
            Err(wait) => self.rest_of_authority(roll, &evidence, &wait)?,
        };
        Ok((waits, rest))
    }

    fn authority_roll_waits_for(
        &self,
        roll: &RollRow,
        evidence: &Evidence,
    ) -> Result<Waits, Error> {
        let detail = AuthorityDetail::of(roll)?;
        let failure = detail.failure.clone();
        let replacement = evidence.replacement();
        let mut waits = match next_step(roll.state, evidence) {
            Ok(Step::Make) => Waits::step(WaitCode::NewGeneration, failure.as_deref()),
            Ok(_) => Waits::step(WaitCode::NextStep, failure.as_deref()),
            Err(wait @ Wait::Hub(_)) => {
                let progress = self.roll_hub_progress(roll)?.unwrap_or_default();
                let progress = self.roll_hub_progress_in_words(roll, progress);
                coded(&wait).and(&format!(": {progress}"))
            }
            Err(wait @ (Wait::Verification(_) | Wait::Deletion)) => {
                self.and_ca_certificates(coded(&wait), &wait, evidence)?
            }
            Err(wait @ Wait::Below(_)) => self.and_obstacles_below(coded(&wait), evidence)?,
            Err(wait) => {
                let waits = self.canary_failure(&wait, roll, &detail);
                self.and_blocks(waits.unwrap_or_else(|| coded(&wait)), roll, evidence)?
            }
        };
        // The successor is made while the compromised generation is excluded.
        if roll.reason == RollReason::Compromise && replacement == Ok(Step::Make) {
            let making = Waits::step(WaitCode::NewGeneration, failure.as_deref());
            if roll.state == RollState::Reissuing {
                return Ok(making);
            }
            waits = waits.and(&format!("; and {}", making.text));
            waits.parameters["also"] = json!(making.code);
        }
        Ok(waits)
    }

    /// Appends why an authority below cannot be rolled, and what to do.
    fn and_obstacles_below(&self, mut waits: Waits, evidence: &Evidence) -> Result<Waits, Error> {
        let hierarchy = self.issuer.hierarchy();
        for name in &evidence.behind {
            let is_rolled = self.store.open_authority_roll(name)?.is_some();
            let Some(old) = hierarchy.serving(name).filter(|_| !is_rolled) else {
                continue;
            };
            let detail = AuthorityDetail::default();
            if let Err(error) = self.check_certificate(old, &detail, RollReason::Expiry) {
                waits = waits.and(&format!("; {name} cannot be rolled: {}", error.message));
            }
        }
        Ok(waits)
    }

    /// Returns what a rollover waits for if its canary cannot be tried.
    fn canary_failure(
        &self,
        wait: &Wait,
        roll: &RollRow,
        detail: &AuthorityDetail,
    ) -> Option<Waits> {
        let Wait::Group {
            provisioning,
            name,
            reason: Reason::CanaryPending,
        } = wait
        else {
            return None;
        };
        let failure = if self.services.names.contains(provisioning) {
            detail.canary_failures.get(provisioning)?.clone()
        } else {
            CanaryFailure {
                reason: format!("no [[provisioning]] {provisioning} is configured"),
                since: roll.changed_at,
            }
        };
        Some(Waits::canary(provisioning, name, &failure))
    }

    /// Adds the blocks that keep the canary of a staged generation out: no canary passes a disabled
    /// group, so the rollover waits until the blocks are lifted.
    fn and_blocks(
        &self,
        mut waits: Waits,
        roll: &RollRow,
        evidence: &Evidence,
    ) -> Result<Waits, Error> {
        if roll.state != RollState::Staged {
            return Ok(waits);
        }
        let mut blocks = Vec::new();
        for group in evidence.groups.iter().filter(|it| !it.enabled) {
            for block in self.store.blocks_of_enrollment(group.id)? {
                let kind = block.kind.name();
                waits = waits.and(&format!(
                    "; its canary waits until the block of {kind} {} is lifted, for it cannot pass \
                     group {} at {} before",
                    block.name, group.name, group.provisioning
                ));
                blocks.push(
                    json!({ "kind": kind, "name": block.name, "group": group.name,
                    "provisioning": group.provisioning }),
                );
            }
        }
        if !blocks.is_empty() {
            waits.parameters["blocks"] = blocks.into();
        }
        Ok(waits)
    }

    /// The numbers of an authority's roll.
    pub fn drain_report(&self, roll: &RollRow) -> Result<Option<DrainReport>, Error> {
        let RollSubject::Authority { .. } = &roll.subject else {
            return Ok(None);
        };
        let [old, new] = self.generations_of(roll)?;
        let now = self.issuer.now();
        let silent = now - self.authority_policy.silent_seconds;
        let report = self
            .store
            .drain_report(&old, &new, now, roll.old_not_after, silent)?;
        Ok(Some(report))
    }

    /// Devices whose current leaf is under the old generation, the most urgent first, at most
    /// `limit`.
    pub fn to_reissue(&self, roll: &RollRow, limit: u32) -> Result<Vec<Reissue>, Error> {
        let generations = self.to_replace(roll)?;
        let devices = self
            .store
            .devices_to_reissue(&generations, self.issuer.now(), limit)?;
        let devices = devices.into_iter().map(|device| Reissue {
            registration_id: device.registration_id,
            not_after: device.not_after.to_string(),
        });
        Ok(devices.collect())
    }
}

/// A device that needs a new leaf.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Reissue {
    pub registration_id: String,
    /// RFC 3339: the end of its leaf.
    pub not_after: String,
}

//! A roll in words: what it waits for, and what is left to do.

use super::super::receipt::service_place;
use super::super::{CertificateAuthority, Error, rfc3339};
use super::AuthorityDetail;
use crate::enrollment::authority_roll::{Evidence, Step, Wait, next_step};
use crate::enrollment::roll::RollReason;
use crate::store::{DrainReport, HubCause, HubProgress, RollRow, RollState, RollSubject};
use serde::Serialize;

impl CertificateAuthority {
    /// The last look at the device of a leaf's roll in its hub, in words.
    pub fn roll_proof(&self, roll: &RollRow) -> Result<Option<String>, Error> {
        let RollSubject::Enrollment {
            provisioning, name, ..
        } = &roll.subject
        else {
            return Ok(None);
        };
        let Some(proof) = self.store.proof(provisioning, name)? else {
            return Ok(None);
        };
        let on = match proof.certificate {
            None => "has no identity in the hub".to_owned(),
            Some(it) if Some(it) == roll.new_certificate => "on its new leaf".into(),
            Some(it) if it == roll.old_certificate => "on its old leaf".into(),
            Some(it) => format!("on another leaf, {it}"),
        };
        let (since, seen) = (rfc3339(proof.since), rfc3339(proof.seen_at));
        Ok(Some(format!("{on} since {since}, seen {seen}")))
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
        self.hub_progress_in_words(service, progress)
    }

    /// Where work at several hubs ends last.
    fn slowest_hub(&self) -> &str {
        let slowest = self.hubs.iter().min_by_key(|(_, rate)| **rate);
        slowest.map_or("", |(name, _)| name)
    }

    /// In words, what a roll waits for.
    pub fn roll_waits_for(&self, roll: &RollRow) -> Result<String, Error> {
        let RollSubject::Enrollment {
            id,
            provisioning,
            name,
        } = &roll.subject
        else {
            return self.authority_roll_waits_for(roll);
        };
        Ok(match roll.state {
            RollState::Staged => format!("{provisioning} to be seen holding both certificates"),
            RollState::Draining => {
                let end = rfc3339(roll.old_not_after);
                format!("the old certificate to expire at {end}")
            }
            RollState::ShuttingOut => service_place(&self.store.enrollment(*id)?).answer,
            RollState::Clearing => {
                self.hub_place(HubCause::Roll(roll.id), provisioning)?
                    .answer
            }
            RollState::Reissuing if roll.new_certificate.is_some() => {
                service_place(&self.store.enrollment(*id)?).answer
            }
            RollState::Requested | RollState::Reissuing => {
                format!("a request for a certificate of {name} with a new key")
            }
            RollState::Done | RollState::Aborted => "nothing".into(),
        })
    }

    fn authority_roll_waits_for(&self, roll: &RollRow) -> Result<String, Error> {
        let evidence = self.authority_evidence(roll, self.now())?;
        let failure = AuthorityDetail::of(roll)?.failure;
        let due = match &failure {
            Some(failure) => format!("its next step; the last attempt failed: {failure}"),
            None => "its next step, which is due".into(),
        };
        let making = match failure {
            Some(failure) => {
                format!("a new key and certificate; the last attempt failed: {failure}")
            }
            None => "a new key and certificate".to_owned(),
        };
        let replacement = evidence.replacement();
        let waits_for = match next_step(roll.state, &evidence) {
            Ok(Step::Make) => making.clone(),
            Ok(_) => due,
            Err(Wait::Hub(open)) => {
                let progress = self.roll_hub_progress(roll)?.unwrap_or_default();
                let progress = self.roll_hub_progress_in_words(roll, progress);
                format!("hubs to delete {open} identities: {progress}")
            }
            Err(wait) => match self.canary_waits_for(roll, &evidence)? {
                Some(blocks) => format!("{wait}; {blocks}"),
                None => wait.to_string(),
            },
        };
        // A compromise is shut out while its successor is made.
        if roll.reason == RollReason::Compromise && replacement == Ok(Step::Make) {
            return Ok(match roll.state {
                RollState::Reissuing => making,
                _ => format!("{waits_for}; and {making}"),
            });
        }
        Ok(waits_for)
    }

    /// The blocks that keep the canary of a staged generation out, in words: no canary passes a
    /// disabled group, so the roll waits until they are lifted.
    fn canary_waits_for(
        &self,
        roll: &RollRow,
        evidence: &Evidence,
    ) -> Result<Option<String>, Error> {
        if roll.state != RollState::Staged {
            return Ok(None);
        }
        let mut waits = Vec::new();
        for group in evidence.groups.iter().filter(|it| !it.enabled) {
            for block in self.store.blocks_of_enrollment(group.id)? {
                waits.push(format!(
                    "its canary waits until the block of {} {} is lifted, for it cannot pass group \
                     {} at {} before",
                    block.kind.name(),
                    block.name,
                    group.name,
                    group.provisioning
                ));
            }
        }
        Ok((!waits.is_empty()).then(|| waits.join("; ")))
    }

    /// The numbers of an authority's roll.
    pub fn drain_report(&self, roll: &RollRow) -> Result<Option<DrainReport>, Error> {
        let RollSubject::Authority {
            name,
            old_generation,
            new_generation,
        } = &roll.subject
        else {
            return Ok(None);
        };
        let hierarchy = self.hierarchy();
        let generations = |id: i64| hierarchy.subtree(id).into_iter().collect::<Vec<i64>>();
        let new = new_generation.or_else(|| Some(hierarchy.serving(name)?.id));
        let new = new.filter(|id| id != old_generation);
        let new = new.map(generations).unwrap_or_default();
        let (now, old) = (self.now(), generations(*old_generation));
        let silent = now - self.authority_policy.silent_seconds;
        let report = self
            .store
            .drain_report(&old, &new, now, roll.old_not_after, silent)?;
        Ok(Some(report))
    }

    /// Devices whose current leaf is under the old generation, the most urgent first, at most
    /// `limit`.
    pub fn to_reissue(&self, roll: &RollRow, limit: u32) -> Result<Vec<Reissue>, Error> {
        let RollSubject::Authority { old_generation, .. } = roll.subject else {
            return Ok(Vec::new());
        };
        let devices = self
            .store
            .devices_to_reissue(old_generation, self.now(), limit)?;
        let devices = devices.into_iter().map(|device| Reissue {
            registration_id: device.registration_id,
            not_after: rfc3339(device.not_after),
        });
        Ok(devices.collect())
    }
}

/// A device that needs a new leaf.
#[derive(Clone, Debug, Serialize)]
pub struct Reissue {
    /// Its registration id.
    pub registration_id: String,
    /// RFC 3339: the end of its leaf.
    pub not_after: String,
}

//! A roll in words: what it waits for, and what is left to do.

use super::super::receipt::service_place;
use super::super::{CertificateAuthority, Error, rfc3339};
use crate::store::{HubCause, RollRow, RollState, RollSubject};

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

    /// How far a roll's work at the hub is, in words.
    pub fn roll_hub_progress(&self, roll: &RollRow) -> Result<Option<String>, Error> {
        let progress = self.store.hub_progress(HubCause::Roll(roll.id), None)?;
        let service = match &roll.subject {
            RollSubject::Enrollment { provisioning, .. } => provisioning.as_str(),
            RollSubject::Authority { .. } => self.slowest_hub(),
        };
        Ok((progress.total > 0).then(|| self.hub_progress_in_words(service, progress)))
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
            return Ok(format!("the next step of {}", roll.subject.name()));
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
}

//! Tests the next generation with a canary: a leaf of our own, which registers as a device would,
//! before any device needs it.
//!
//! The reconciler registers canaries. This module gives it the due canaries and their leaves, and
//! records the results. A canary is no device: it has no row and no slot. Its leaf
//! ends within the hour, and never after the generation that it tests.

use super::{AuthorityDetail, CanaryFailure, Rollovers};
use crate::ca::authorize::Caller;
use crate::ca::issuer::issue::Issued;
use crate::ca::issuer::pace::Source;
use crate::ca::profile::Role;
use crate::ca::signing_request::{LeafHolder, Signer, SigningRequest};
use crate::ca::{Code, Error};
use crate::enrollment::authority_roll::Group;
use crate::enrollment::roll::RollState;
use crate::enrollment::slots::CanaryVerdict;
use crate::ids::{GenerationId, RollId};
use crate::store::{AuditEntry, OnIssued, Purpose, RollSubject};
use crate::x509::csr::Csr;
use crate::x509::key::KeyType;
use crate::x509::profile::{End, KeyUsage, Profile, SubjectAlternativeNames};
use crate::x509::template::Values;
use serde_json::json;
use std::collections::BTreeSet;

/// The validity of a canary's leaf, in seconds, if the generation does not end before.
const VALIDITY_SECONDS: i64 = 3_600;
/// The shortest validity of a canary's leaf, in seconds: its registration takes time.
const VALIDITY_SECONDS_MIN: i64 = 60;
/// How long a canary may fail to be tried until that is an alarm, in seconds.
pub(super) const ALARM_SECONDS: i64 = 600;
/// Prefix of every canary's registration id, in any case: no device may have such an id.
const PREFIX: &str = "hallmark-canary-";
/// Longest part of an authority's name in its canary's name: a common name has 64 characters.
const NAME_CHARACTERS: usize = 24;

/// Whether a registration id could not be a canary's.
pub fn is_free(registration_id: &str) -> bool {
    let start = registration_id.get(..PREFIX.len());
    !start.is_some_and(|it| it.eq_ignore_ascii_case(PREFIX))
}

/// Refuses a registration id that could be a canary's.
pub(in crate::ca) fn refuse_reserved(registration_id: &str) -> Result<(), Error> {
    if is_free(registration_id) {
        return Ok(());
    }
    Err(Error::invalid(
        Code::RegistrationIdReserved,
        format!("registration ids that begin with {PREFIX} are this daemon's own; choose another"),
    ))
}

/// A canary that is due at a provisioning service.
#[derive(Clone, Debug)]
pub struct CanaryRequest {
    /// The roll that waits for it.
    pub roll: RollId,
    /// The generation that is to be tried.
    pub generation: GenerationId,
    /// The canary's common name.
    pub registration_id: String,
}

impl Rollovers {
    /// Canaries that a roll waits for, and whose service holds what they need.
    pub fn canaries_due(&self, provisioning: &str) -> Result<Vec<CanaryRequest>, Error> {
        let now = self.issuer.now();
        let mut due = Vec::new();
        for roll in self.store.open_authority_rolls()? {
            let RollSubject::Authority {
                name,
                new_generation: Some(generation),
                ..
            } = &roll.subject
            else {
                continue;
            };
            if roll.state != RollState::Staged {
                continue;
            }
            let evidence = match self.authority_evidence(&roll, now) {
                Ok(evidence) => evidence,
                // Its alarm says so; the canaries of others are due all the same.
                Err(error) => {
                    tracing::warn!(
                        roll = roll.id.get(),
                        code = error.code.name(),
                        %error,
                        "canary evidence unreadable",
                    );
                    continue;
                }
            };
            let here = |it: &&Group| it.provisioning == provisioning;
            let mut groups = evidence.groups.iter().filter(here).peekable();
            // A disabled group would refuse it, and that says nothing of the next generation.
            let can_pass = |group: &Group| group.enabled && group.awaits_canary();
            if groups.peek().is_some() && groups.all(can_pass) {
                due.push(CanaryRequest {
                    roll: roll.id,
                    generation: *generation,
                    registration_id: canary_name(name, *generation),
                });
            }
        }
        Ok(due)
    }

    /// The canary's leaf, by the generation that is to be tried; through the issuance cycle like
    /// any other.
    pub fn issue_canary(&self, canary: &CanaryRequest, csr: &[u8]) -> Result<Issued, Error> {
        let csr = Csr::parse(csr).map_err(|r| Error::invalid(r.code(), r.to_string()))?;
        let hierarchy = self.issuer.hierarchy();
        let generation = hierarchy.generation(canary.generation).cloned();
        drop(hierarchy);
        let generation = generation
            .ok_or_else(|| Error::conflict(Code::StateConflict, "the generation is gone"))?;
        let left = generation.certificate.not_after() - self.issuer.now();
        if left < VALIDITY_SECONDS_MIN {
            let message = format!(
                "the next certificate of {} ends at {}, too early for a canary: abort the roll, \
                 and start it with a longer --validity",
                generation.authority,
                generation.certificate.not_after()
            );
            return Err(Error::conflict(Code::OutlivesIssuer, message));
        }
        let validity = VALIDITY_SECONDS.min(left).unsigned_abs();
        let profile = self.canary_profile(&generation.authority, validity);
        // Like those of the devices, for the name constraints.
        let subject = profile.subject.fill_in_part(&Values {
            id: &canary.registration_id,
            line: &generation.authority,
            station: None,
            now: self.issuer.now(),
            csr: None,
        });
        let subject =
            subject.map_err(|error| Error::invalid(Code::NameInvalid, error.to_string()))?;
        pollster::block_on(self.issuer.certify(SigningRequest {
            source: Source::Canary(canary.roll),
            signer: Signer::from(generation.as_ref()),
            purpose: Purpose::Leaf,
            profile_name: "canary",
            subject: subject.into(),
            profile: &profile,
            public_key: csr.public_key(),
            caller: Caller::Daemon.to_string(),
            holder: LeafHolder::none(),
            on_issued: OnIssued::Alone,
        }))
    }

    /// The profile of a device below the authority, but for at most `validity` seconds and for any
    /// key.
    fn canary_profile(&self, authority: &str, validity: u64) -> Profile {
        let hierarchy = self.issuer.hierarchy();
        let below = |name: &str| {
            let serving = hierarchy.serving(name);
            serving.is_some_and(|it| hierarchy.upwards(it.id).any(|it| it.authority == authority))
        };
        let mut devices = self
            .issuer
            .profiles()
            .values()
            .filter(|it| it.role == Role::Device && below(&it.authority));
        let like = devices.next().map(|it| it.certificate.clone());
        let like = like.unwrap_or_else(Profile::verification);
        Profile {
            validity_seconds: like.validity_seconds.min(validity),
            end: End::AfterValidity,
            key_types: BTreeSet::from(KeyType::ALL),
            key_usage: BTreeSet::from([KeyUsage::DigitalSignature]),
            subject_alternative_names: SubjectAlternativeNames::default(),
            ..like
        }
    }

    /// Records the result of a canary.
    pub fn record_canary(
        &self,
        canary: &CanaryRequest,
        provisioning: &str,
        verdict: CanaryVerdict,
    ) -> Result<(), Error> {
        let roll = self.store.roll(canary.roll)?;
        let mut detail = AuthorityDetail::of(&roll)?;
        let known = detail
            .canary
            .insert(provisioning.to_owned(), verdict.clone());
        let was_tried = detail.canary_failures.remove(provisioning).is_none();
        if known.as_ref() == Some(&verdict) && was_tried {
            return Ok(());
        }
        let entry = AuditEntry {
            at: self.issuer.now(),
            actor: Caller::Daemon.to_string(),
            action: "roll.canary",
            subject: roll.subject.name().to_owned(),
            detail: json!({
                "roll": roll.id, "provisioning": provisioning, "verdict": verdict,
                "registration_id": canary.registration_id,
            }),
        };
        self.store
            .amend_roll(&roll, detail.to_value()?, Some(entry))?;
        self.issuer.wake();
        Ok(())
    }
}

impl Rollovers {
    /// Records why a canary could not be tried, and since when.
    pub fn record_canary_failure(
        &self,
        canary: &CanaryRequest,
        provisioning: &str,
        reason: String,
    ) -> Result<(), Error> {
        let roll = self.store.roll(canary.roll)?;
        let mut detail = AuthorityDetail::of(&roll)?;
        let known = detail.canary_failures.get(provisioning);
        if known.is_some_and(|it| it.reason == reason) {
            return Ok(());
        }
        let since = known.map_or(self.issuer.now(), |it| it.since);
        let failure = CanaryFailure { reason, since };
        detail
            .canary_failures
            .insert(provisioning.to_owned(), failure);
        self.store.amend_roll(&roll, detail.to_value()?, None)?;
        self.issuer.wake();
        Ok(())
    }
}

/// The same for each attempt, and another one for each generation: its row id is in it.
fn canary_name(authority: &str, generation: GenerationId) -> String {
    let plain = |it: char| if it.is_ascii_alphanumeric() { it } else { '-' };
    let name: String = authority.chars().take(NAME_CHARACTERS).map(plain).collect();
    format!("{PREFIX}{name}-{generation}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrollment::id::RegistrationId;

    #[test]
    fn each_generation_has_a_canary_of_its_own_that_no_device_is_called_by() {
        let long = "a line whose name is very long, and ends with ";
        let names = [
            canary_name(&format!("{long}1"), GenerationId::new(7)),
            canary_name(&format!("{long}2"), GenerationId::new(8)),
            canary_name(&"ü".repeat(200), GenerationId::new(i64::MAX)),
        ];
        assert_ne!(names[0], names[1]);
        for name in &names {
            assert!(RegistrationId::parse(name).is_ok(), "{name}");
            assert!(refuse_reserved(&name.to_uppercase()).is_err());
        }
        assert!(refuse_reserved("hallmark-canary").is_ok());
        assert!(
            refuse_reserved("press-7").is_ok() && refuse_reserved("ü".repeat(20).as_str()).is_ok()
        );
    }
}

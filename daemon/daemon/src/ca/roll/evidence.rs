//! Gathers the evidence about an authority's rollover; `enrollment` judges it.

use super::super::authority_policy::ApprovalStep;
use super::super::hierarchy::{Generation, Hierarchy};
use super::super::{Code, Error};
use super::Rollovers;
use super::leaf::expiry;
use crate::enrollment::authority_roll::{Evidence, Group};
use crate::enrollment::record::{ObservedSlot, Record};
use crate::enrollment::roll::{RollReason, RollState};
use crate::enrollment::slots::{CanaryVerdict, CutOverEvidence, RetireEvidence, SlotName};
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::GenerationId;
use crate::store::{EnrollmentRow, HubCause, RollRow, RollSubject};
use crate::unix_seconds::UnixSeconds;
use crate::x509::key::KeyType;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Options and evidence of an authority's roll, as `detail` holds them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorityDetail {
    /// The validity of the next certificate in seconds, if it is not that of the old one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validity: Option<u64>,
    /// The kind of the next key, if it is not that of the old one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_type: Option<KeyType>,
    /// By compromise: the generations whose identities the rollovers below delete. It is recorded
    /// when they begin, so no later rollover below is taken for one of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub cleared_below: BTreeSet<GenerationId>,
    /// The result of the canary, by provisioning service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub canary: BTreeMap<String, CanaryVerdict>,
    /// Why the canary could not be tried the last time, by provisioning service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub canary_failures: BTreeMap<String, CanaryFailure>,
    /// The steps that an operator approved.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub approved: BTreeMap<ApprovalStep, Approval>,
    /// Why the next generation could not be made, or its key did not sign, the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Why a canary could not be tried. It says nothing about the next certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanaryFailure {
    /// The reason of the last attempt.
    pub reason: String,
    /// Time of the first attempt that failed without one in between that did not, in Unix seconds.
    pub since: UnixSeconds,
}

/// An operator's approval of a step.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    pub by: String,
    /// Time of the evidence, in Unix seconds.
    pub at: UnixSeconds,
    /// Why the step is made although its guard does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overriding: Option<String>,
}

impl AuthorityDetail {
    /// The evidence for `roll`.
    pub fn of(roll: &RollRow) -> Result<Self, Error> {
        serde_json::from_value(roll.detail.clone()).map_err(|error| {
            Error::stop(Code::StoreUnreadable, format!("roll {}: {error}", roll.id))
        })
    }

    /// As the store keeps them.
    pub fn to_value(&self) -> Result<Value, Error> {
        serde_json::to_value(self).map_err(|error| Error::stop(Code::Internal, error.to_string()))
    }

    /// Services that refused the canary, and why.
    pub(super) fn refused_canaries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.canary.iter().filter_map(|(service, it)| match it {
            CanaryVerdict::Failed(reason) => Some((service.as_str(), reason.as_str())),
            _ => None,
        })
    }

    fn overrides(&self, step: ApprovalStep) -> bool {
        let approval = self.approved.get(&step);
        approval.is_some_and(|approval| approval.overriding.is_some())
    }
}

impl Rollovers {
    pub(super) fn authority_evidence(
        &self,
        roll: &RollRow,
        now: UnixSeconds,
    ) -> Result<Evidence, Error> {
        let RollSubject::Authority {
            name,
            old_generation,
            new_generation,
        } = &roll.subject
        else {
            return Err(Error::stop(
                Code::Internal,
                "a leaf's roll has other evidence",
            ));
        };
        let detail = AuthorityDetail::of(roll)?;
        let hierarchy = self.issuer.hierarchy();
        let next = next_generation(&hierarchy, name, *old_generation, *new_generation);
        let mut certificates = self.store.ca_certificates()?;
        // Nothing is deleted at a service that is not configured.
        certificates.retain(|it| self.services.names.contains(&it.provisioning));
        // In a compromise also those of generations below that do not roll for it: a group by
        // reference may hold nothing else.
        let mut leaving = self.to_replace(roll)?;
        leaving.push(*old_generation);
        let held = certificates
            .iter()
            .filter(|it| leaving.contains(&it.generation));
        let verified = |service: &String| {
            certificates.iter().any(|it| {
                Some(it.generation) == next.map(|next| next.id)
                    && it.provisioning == *service
                    && it.mark.is_none()
                    && it.is_verified()
            })
        };
        let wanting = self
            .services
            .verified
            .iter()
            .filter(|(_, names)| names.contains(name));
        let unverified = wanting.map(|(service, _)| service.clone());
        let policy = &self.authority_policy;
        let approved =
            |step| !policy.approve.contains(&step) || detail.approved.contains_key(&step);
        let (leaving_groups, groups): (Vec<_>, Vec<_>) = self
            .store
            .groups_of(name)?
            .into_iter()
            .partition(|it| it.leaving);
        let compromised = compromised(&hierarchy, roll, name);
        let mut others_open = self.individuals_open(roll, now)?;
        others_open.extend(self.leaving_open(&leaving_groups, &compromised));
        others_open.extend(self.groups_below_open(roll, name)?);
        let hub = self.store.hub_progress(HubCause::Roll(roll.id), None)?;
        Ok(Evidence {
            reason: roll.reason,
            old: roll.old_certificate,
            compromised,
            next: next.map(|next| next.thumbprint()),
            next_serves: next.is_some_and(|next| next.serving),
            unverified: unverified.filter(|it| !verified(it)).collect(),
            groups: groups
                .iter()
                .map(|row| known_group(&hierarchy, row, roll.reason, &detail))
                .map(|group| self.waited_for(group, roll.reason))
                .collect(),
            cut_over_approved: approved(ApprovalStep::CutOver),
            retirement_approved: approved(ApprovalStep::Retire),
            retirement: self.authority_retirement(roll, *old_generation, &detail, now)?,
            above_admits: self.above_admits(roll)?,
            behind: behind(&hierarchy, name),
            accepted_above: self.accepted_above(roll, *old_generation, &detail, now)?,
            ca_certificates: held.clone().count() as u64,
            ca_certificates_leaving: held.filter(|it| it.removed).count() as u64,
            hub_open: u64::try_from(hub.open()).unwrap_or(0),
            to_reissue: self.store.devices_under(&self.to_replace(roll)?, now)?,
            blocks_open: self.blocks_open(name, roll.old_certificate)?,
            others_open,
            without_room: self.without_room(roll, *old_generation)?,
            old_blocked: self.store.blocked_above(*old_generation)?.is_some(),
            next_blocked: self.is_blocked(next)?,
        })
    }

    fn is_blocked(&self, next: Option<&Generation>) -> Result<bool, Error> {
        match next {
            Some(next) => Ok(self.store.blocked_above(next.id)?.is_some()),
            None => Ok(false),
        }
    }

    /// In a compromise, lists the individual enrollments of devices below that may admit them at
    /// the configured services: they take precedence over the groups.
    fn individuals_open(&self, roll: &RollRow, now: UnixSeconds) -> Result<Vec<String>, Error> {
        let RollSubject::Authority { old_generation, .. } = roll.subject else {
            return Ok(Vec::new());
        };
        if roll.reason != RollReason::Compromise {
            return Ok(Vec::new());
        }
        let below = self.issuer.hierarchy().subtree(old_generation);
        let mut individuals = self.store.individuals_below(&below, now)?;
        individuals.retain(|it| self.services.names.contains(&it.provisioning));
        let mut open = Vec::new();
        for it in individuals {
            let service = &it.provisioning;
            if it.pending > 0 {
                open.push(format!(
                    "{} individual enrollments at {service}",
                    it.pending
                ));
            }
            let stuck = it.stuck.iter();
            open.extend(stuck.map(|it| format!("individual enrollment {} at {service}", it.name)));
        }
        Ok(open)
    }

    /// In a compromise, lists the groups of authorities below that the configured services are not
    /// observed to have as desired, and that may admit by a compromised certificate. The groups of
    /// authorities that roll for the compromise are waited for there.
    fn groups_below_open(&self, roll: &RollRow, name: &str) -> Result<Vec<String>, Error> {
        if roll.reason != RollReason::Compromise {
            return Ok(Vec::new());
        }
        let generations = BTreeSet::from_iter(self.to_replace(roll)?);
        let mut open = self.exclusions.groups_holding(&generations)?;
        open.retain(|it| {
            let is_below = it.authority.as_deref() != Some(name);
            let is_open = it.mark.is_some() || it.drift.is_some();
            is_below && is_open && self.services.names.contains(&it.provisioning)
        });
        Ok(open
            .iter()
            .map(|it| format!("group {} at {}", it.name, it.provisioning))
            .collect())
    }

    /// Lists the groups with a compromised certificate that are being removed. They get no
    /// successor, and admit devices until the configured services were observed without them.
    fn leaving_open(&self, groups: &[EnrollmentRow], compromised: &[Thumbprint]) -> Vec<String> {
        let is_configured = |it: &&EnrollmentRow| self.services.names.contains(&it.provisioning);
        let holds = |it: &&EnrollmentRow| {
            let held = it.slots.held();
            held.iter().any(|it| compromised.contains(it))
        };
        let open = groups.iter().filter(is_configured).filter(holds);
        open.map(|it| format!("the removal of group {} at {}", it.name, it.provisioning))
            .collect()
    }

    /// Returns the generations whose devices need new leaves: the replaced one; in a compromise
    /// also those below of authorities that get no successor, because they have a good generation.
    pub(super) fn to_replace(&self, roll: &RollRow) -> Result<Vec<GenerationId>, Error> {
        let RollSubject::Authority {
            name,
            old_generation,
            ..
        } = &roll.subject
        else {
            return Ok(Vec::new());
        };
        if roll.reason != RollReason::Compromise {
            return Ok(vec![*old_generation]);
        }
        let hierarchy = self.issuer.hierarchy();
        let mut generations = hierarchy.subtree(*old_generation);
        let own = hierarchy.iter().filter(|it| it.authority == *name);
        let excluded = own.filter(|it| hierarchy.revoked_above(it.id).is_some());
        generations.extend(excluded.map(|it| it.id));
        let mut others = self.store.open_authority_rolls()?;
        others.retain(|it| it.reason == RollReason::Compromise && it.id != roll.id);
        generations.retain(|id| {
            let authority = hierarchy.generation(*id).map(|it| it.authority.as_str());
            !others.iter().any(|it| Some(it.subject.name()) == authority)
        });
        Ok(generations.into_iter().collect())
    }

    /// A service that is not configured is never observed; a compromise does not wait for it.
    fn waited_for(&self, group: Group, reason: RollReason) -> Group {
        let is_configured = self.services.names.contains(&group.provisioning);
        Group {
            in_step: group.in_step || (reason == RollReason::Compromise && !is_configured),
            ..group
        }
    }

    /// Counts the devices that depend on the old generation through a group of an authority above.
    /// Its certificate is in force while they do, also after it has left its own slots.
    fn accepted_above(
        &self,
        roll: &RollRow,
        old: GenerationId,
        detail: &AuthorityDetail,
        now: UnixSeconds,
    ) -> Result<u64, Error> {
        let drains = roll.state == RollState::Draining && roll.reason == RollReason::Expiry;
        if !drains
            || detail.overrides(ApprovalStep::Retire)
            || !self.exclusions.has_groups_above(old)?
        {
            return Ok(0);
        }
        self.needing(old, now)
    }

    fn above_admits(&self, roll: &RollRow) -> Result<bool, Error> {
        let Some(parent) = roll.parent else {
            return Ok(false);
        };
        Ok(self.store.roll(parent)?.state == RollState::Excluding)
    }

    /// Counts the blocking groups that a service has not confirmed. Nothing is written to a service
    /// that is not configured, so its groups are not waited for.
    fn blocks_open(&self, authority: &str, old: Thumbprint) -> Result<u64, Error> {
        let blocking = self.store.blocking_groups_of(authority)?;
        let open = blocking
            .iter()
            .filter(|it| self.services.names.contains(&it.provisioning))
            .filter(|it| it.slots.held().contains(&old) && it.mark.is_some());
        Ok(open.count() as u64)
    }

    /// The evidence for the retirement: the old certificate has expired; or no device needs it any
    /// more, and policy or an operator says that this is enough.
    fn authority_retirement(
        &self,
        roll: &RollRow,
        old: GenerationId,
        detail: &AuthorityDetail,
        now: UnixSeconds,
    ) -> Result<RetireEvidence, Error> {
        let overridden = detail.overrides(ApprovalStep::Retire);
        if now > roll.old_not_after || !(self.rolling.retire_proven || overridden) {
            return Ok(expiry(roll, now));
        }
        let unproven = if overridden {
            0
        } else {
            self.needing(old, now)?
        };
        Ok(RetireEvidence::DevicesProven {
            unproven,
            early_retirement_allowed: true,
        })
    }

    /// Counts what may still need the old generation: devices, and authorities elsewhere. The
    /// devices below such an authority are not on record, so its certificate counts as one that was
    /// never seen on the new generation.
    fn needing(&self, old: GenerationId, now: UnixSeconds) -> Result<u64, Error> {
        let below: Vec<GenerationId> = self.issuer.hierarchy().subtree(old).into_iter().collect();
        let devices = self.store.devices_needing(&below, now)?;
        Ok(devices + self.store.count_subordinates(&below, now)?)
    }
}

/// The generation that replaces the old one: made for the roll, or in service already because the
/// compromised one was on its way out.
fn next_generation<'a>(
    hierarchy: &'a Hierarchy,
    authority: &str,
    old: GenerationId,
    new: Option<GenerationId>,
) -> Option<&'a Generation> {
    // A generation that was staged below a certificate which is revoked now never serves.
    let is_usable = |it: &&Arc<Generation>| it.serving || hierarchy.revoked_above(it.id).is_none();
    let made = new
        .and_then(|id| hierarchy.generation(id))
        .filter(is_usable);
    let serving = || hierarchy.serving(authority).filter(|it| it.id != old);
    made.or_else(serving).map(AsRef::as_ref)
}

/// Authorities below whose certificate is not by the generation that signs now.
fn behind(hierarchy: &Hierarchy, authority: &str) -> Vec<String> {
    let serving = hierarchy.serving(authority).map(|it| it.id);
    let children = hierarchy.children(authority).into_iter();
    children
        .filter(|it| it.parent != serving)
        .map(|it| it.authority.clone())
        .collect()
}

/// By compromise, the certificates of this authority that are worth nothing any more.
fn compromised(hierarchy: &Hierarchy, roll: &RollRow, authority: &str) -> Vec<Thumbprint> {
    if roll.reason != RollReason::Compromise {
        return Vec::new();
    }
    let own = hierarchy.iter().filter(|it| it.authority == authority);
    let void = own.filter(|it| hierarchy.revoked_above(it.id).is_some());
    void.map(|it| it.thumbprint())
        .chain([roll.old_certificate])
        .collect()
}

fn known_group(
    hierarchy: &Hierarchy,
    row: &EnrollmentRow,
    reason: RollReason,
    detail: &AuthorityDetail,
) -> Group {
    let seen = row.observed.clone().filter(|_| row.mark.is_none());
    let record = seen.and_then(|record| Record::parse(record).ok());
    let in_slot = |slot| certificate_in(hierarchy, record.as_ref()?, slot);
    // After a compromise no canary is needed: every device below is excluded already.
    let canary = if detail.overrides(ApprovalStep::CutOver) || reason == RollReason::Compromise {
        CanaryVerdict::NotNeeded
    } else {
        let verdict = detail.canary.get(&row.provisioning);
        verdict.cloned().unwrap_or(CanaryVerdict::Pending)
    };
    Group {
        id: row.id,
        provisioning: row.provisioning.clone(),
        name: row.name.clone(),
        slots: row.slots.clone(),
        enabled: row.enabled,
        in_step: row.mark.is_none() && row.drift.is_none(),
        cut_over: CutOverEvidence {
            observed_primary: in_slot(SlotName::Primary),
            observed_secondary: in_slot(SlotName::Secondary),
            canary,
        },
    }
}

/// The certificate that a slot holds, or whose CA certificate it names.
pub(in crate::ca) fn certificate_in(
    hierarchy: &Hierarchy,
    record: &Record,
    slot: SlotName,
) -> Option<Thumbprint> {
    match record.slot(record.x509_member()?, slot) {
        ObservedSlot::Certificate(thumbprint) => Some(thumbprint),
        ObservedSlot::Reference(name) => hierarchy
            .iter()
            .find(|it| it.name().eq_ignore_ascii_case(&name))
            .map(|it| it.thumbprint()),
        ObservedSlot::Empty | ObservedSlot::Unreadable => None,
    }
}

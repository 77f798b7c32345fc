//! Decides how the rollover of an authority goes on: the next step, or the reason to wait.
//!
//! Pure, like [`super::roll`], which has the states. Any number of groups at any number of services
//! may hold an authority, and all of them step together. Three things must never happen: a
//! generation signs before every service that holds its authority was observed to accept it; a
//! compromised certificate comes back; a rollover ends while an authority or a device below still
//! depends on the certificate that it removes.

use super::refusal::Reason;
use super::roll::{RollReason, RollState};
use super::slots::{CanaryVerdict, CutOverEvidence, RetireEvidence, Slots};
use super::thumbprint::Thumbprint;
use crate::ids::EnrollmentId;
use std::fmt;

/// A group of the authority, with its desired and observed state.
#[derive(Clone, Debug)]
pub struct Group {
    /// Row id of the enrollment.
    pub id: EnrollmentId,
    pub provisioning: String,
    /// The group's id there.
    pub name: String,
    pub slots: Slots,
    /// Its new desired status.
    pub enabled: bool,
    /// True if the service was observed with the desired state.
    pub in_step: bool,
    /// The observed slots, and the canary's verdict.
    pub cut_over: CutOverEvidence,
}

/// A group that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Row id of the enrollment.
    pub group: EnrollmentId,
    /// Its slots when the step was decided.
    pub from: Slots,
    pub to: Slots,
    /// Its desired status when the step was decided.
    pub was_enabled: bool,
    /// Its new desired status.
    pub enabled: bool,
}

/// The evidence about an authority's rollover.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The reason of the rollover.
    pub reason: RollReason,
    /// The certificate that is replaced.
    pub old: Thumbprint,
    /// In a compromise: this certificate, and other certificates of the authority that are revoked
    /// with it.
    pub compromised: Vec<Thumbprint>,
    /// The certificate that replaces it, once there is one.
    pub next: Option<Thumbprint>,
    /// True if the next generation signs already.
    pub next_serves: bool,
    /// Services that do not hold the next certificate verified yet.
    pub unverified: Vec<String>,
    pub groups: Vec<Group>,
    /// True if no approval for the cut-over is missing.
    pub cut_over_approved: bool,
    /// True if no approval for the retirement is missing.
    pub retirement_approved: bool,
    /// The evidence that the old certificate is no longer needed.
    pub retirement: RetireEvidence,
    /// In a compromise: true if the compromised authority above is not excluded yet.
    pub above_admits: bool,
    /// Authorities below that still sign under the old certificate.
    pub behind: Vec<String>,
    /// Devices that depend on the old certificate although it is in no slot of its own: a group of
    /// an authority above accepts their leaves.
    pub accepted_above: u64,
    /// CA certificates of the old generation that services still hold.
    pub ca_certificates: u64,
    /// Of these, those to be deleted.
    pub ca_certificates_leaving: u64,
    /// Identities that hubs still have to delete.
    pub hub_open: u64,
    /// Devices whose current leaf is below the old certificate.
    pub to_reissue: u64,
    /// Enrollments that block the old certificate, and are not confirmed yet.
    pub blocks_open: u64,
    /// In a compromise: the other enrollments by which the service may admit a device below, in
    /// words: individual ones that are not confirmed, and groups that are being removed.
    pub others_open: Vec<String>,
    /// In a compromise: services without room for the group that blocks the old certificate once
    /// the next one takes its place, at which groups above would admit it.
    pub without_room: Vec<String>,
    /// True while a block removes the old certificate from the slots.
    pub old_blocked: bool,
    /// True while a block removes the next certificate from the slots.
    pub next_blocked: bool,
}

/// The next step of an authority's rollover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the next generation.
    Make,
    /// The next certificate goes into the free slots.
    Stage(Vec<Change>),
    /// The next generation signs, and serves in the slots.
    CutOver(Vec<Change>),
    /// The successor of a compromised certificate takes the slots and signs.
    Replace(Vec<Change>),
    /// The old certificate leaves its slots.
    Retire(Vec<Change>),
    /// The old CA certificate is deleted at the services.
    Withdraw,
    /// Only the state changes.
    Enter(RollState),
}

/// The reason why an authority's rollover waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// These services do not hold the next certificate verified yet.
    Verification(Vec<String>),
    /// A group is not as the next step needs it.
    Group {
        provisioning: String,
        name: String,
        reason: Reason,
    },
    /// The service is not in the desired state.
    Service(Vec<String>),
    /// An operator's approval, for a cut-over or a retirement.
    Approval(&'static str),
    /// The old certificate's end, or the proof of every device.
    Retirement(Reason),
    /// Authorities below, to sign under the next certificate.
    Below(Vec<String>),
    /// The exclusion of the compromised authority above.
    Above,
    /// The service to delete the old CA certificate.
    Deletion,
    /// Hubs to delete so many identities.
    Hub(u64),
    /// So many devices to ask for new leaves.
    Reissue(u64),
    /// The disabled groups that block the old certificate.
    Block,
    /// These services to have room for the group that blocks the old certificate.
    GroupRoom(Vec<String>),
    /// The end of the block that excludes the next certificate.
    BlockLifted,
    /// Nothing: it is done.
    Nothing,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wait::Verification(services) => write!(
                f,
                "{} to hold the new CA certificate verified",
                services.join(", ")
            ),
            Wait::Group {
                provisioning,
                name,
                reason,
            } => write!(f, "group {name} at {provisioning}: {reason}"),
            Wait::Service(groups) => {
                write!(f, "the service to be in step with {}", groups.join(", "))
            }
            Wait::Approval(what) => {
                write!(
                    f,
                    "somebody's word for the {what} (`hallmark roll approve`)"
                )
            }
            Wait::Retirement(reason) => write!(f, "the old certificate may not go yet: {reason}"),
            Wait::Below(names) => write!(
                f,
                "authorities below to sign under the new certificate: {}",
                names.join(", ")
            ),
            Wait::Above => f.write_str("the compromised authority above to be excluded"),
            Wait::Deletion => f.write_str("the service to delete the old CA certificate"),
            Wait::Hub(open) => write!(f, "hubs to delete {open} identities"),
            Wait::Reissue(devices) => write!(f, "{devices} devices to ask for a new leaf"),
            Wait::Block => {
                f.write_str("the service to hold the old certificate in a disabled group")
            }
            Wait::GroupRoom(services) => write!(
                f,
                "room for one more group at {}, which blocks the old certificate: delete others \
                 there, then `hallmark reload`",
                services.join(", ")
            ),
            Wait::BlockLifted => f.write_str(
                "the block of the new certificate to be lifted (`hallmark block list` has all)",
            ),
            Wait::Nothing => f.write_str("nothing"),
        }
    }
}

/// Decides how the rollover of an authority goes on from `state`.
pub fn next_step(state: RollState, evidence: &Evidence) -> Result<Step, Wait> {
    match state {
        RollState::Requested => evidence.requested(),
        RollState::Staged => evidence.staged(),
        RollState::Draining => evidence.draining(),
        RollState::Excluding => evidence.excluding(),
        RollState::Clearing => evidence.clearing(),
        RollState::Reissuing => evidence.reissuing(),
        RollState::Done | RollState::Aborted => Err(Wait::Nothing),
    }
}

impl Evidence {
    fn requested(&self) -> Result<Step, Wait> {
        let next = self.published()?;
        match next {
            None => Ok(Step::Make),
            Some(next) => Ok(Step::Stage(self.stage(next)?)),
        }
    }

    /// Returns the next certificate, once every service that must know it before its use does. A
    /// service that has lost it again is waited for.
    fn published(&self) -> Result<Option<Thumbprint>, Wait> {
        match self.next {
            Some(_) if !self.unverified.is_empty() => {
                Err(Wait::Verification(self.unverified.clone()))
            }
            next => Ok(next),
        }
    }

    /// Groups that hold only the old certificate: from the start, or added since.
    fn stage(&self, next: Thumbprint) -> Result<Vec<Change>, Wait> {
        let old_only = self.groups.iter().filter(|group| {
            matches!(group.slots, Slots::Serving { certificate, .. } if certificate != next)
        });
        old_only
            .map(|group| group.change(group.slots.clone().stage(next)))
            .collect()
    }

    fn staged(&self) -> Result<Step, Wait> {
        if let Some(next) = self.published()? {
            let late = self.stage(next)?;
            if !late.is_empty() {
                return Ok(Step::Stage(late));
            }
        }
        self.next_may_serve()?;
        let changes = self.cut_over()?;
        if self.cut_over_approved {
            Ok(Step::CutOver(changes))
        } else {
            Err(Wait::Approval("cut-over"))
        }
    }

    fn cut_over(&self) -> Result<Vec<Change>, Wait> {
        let staged = |it: &&Group| matches!(it.slots, Slots::Staged { .. });
        let staged = self.groups.iter().filter(staged);
        staged
            .map(|group| group.change(group.slots.clone().cut_over(&group.cut_over)))
            .collect()
    }

    fn draining(&self) -> Result<Step, Wait> {
        // Groups that were added since, or keep a good certificate after a compromise.
        let late = self.cut_over()?;
        if !late.is_empty() {
            return Ok(Step::CutOver(late));
        }
        if !self.behind.is_empty() {
            return Err(Wait::Below(self.behind.clone()));
        }
        let draining = |it: &&Group| matches!(it.slots, Slots::Draining { .. });
        let draining: Vec<&Group> = self.groups.iter().filter(draining).collect();
        self.next_may_serve()?;
        // Lifting a block puts the old certificate back into its slots, for the devices that still
        // need it: the drain lasts as long as without the block.
        let is_needed = self.old_blocked || !draining.is_empty();
        if is_needed || self.ca_certificates > self.ca_certificates_leaving {
            if let Some(reason) = self.retirement.objection() {
                return Err(Wait::Retirement(reason));
            }
            if !self.retirement_approved {
                return Err(Wait::Approval("retirement"));
            }
        }
        if !draining.is_empty() {
            let retire =
                |group: &&Group| group.change(group.slots.clone().retire(&self.retirement));
            return Ok(Step::Retire(
                draining.iter().map(retire).collect::<Result<_, _>>()?,
            ));
        }
        if self.accepted_above > 0 {
            let unproven = self.accepted_above;
            return Err(Wait::Retirement(Reason::DevicesUnproven { unproven }));
        }
        self.in_step()?;
        match (self.ca_certificates, self.ca_certificates_leaving) {
            (0, _) => Ok(Step::Enter(RollState::Done)),
            (held, leaving) if held > leaving => Ok(Step::Withdraw),
            _ => Err(Wait::Deletion),
        }
    }

    /// A blocked certificate takes no slot. It must not lose one either, to which lifting the block
    /// takes it back.
    fn next_may_serve(&self) -> Result<(), Wait> {
        if self.next_blocked {
            return Err(Wait::BlockLifted);
        }
        Ok(())
    }

    fn in_step(&self) -> Result<(), Wait> {
        let late = self.groups.iter().filter(|group| !group.in_step);
        let late: Vec<String> = late
            .map(|group| format!("group {} at {}", group.name, group.provisioning))
            .chain(self.others_open.iter().cloned())
            .collect();
        if late.is_empty() {
            Ok(())
        } else {
            Err(Wait::Service(late))
        }
    }

    /// In a compromise: decides whether the successor can take the place of the compromised
    /// certificate. It waits for its own making, and where the service verifies it, for that. It
    /// waits for room, too: the compromised certificate stays in its disabled group until another
    /// group can block it, because groups above would admit it.
    pub fn replacement(&self) -> Result<Step, Wait> {
        match self.published()? {
            None => Ok(Step::Make),
            Some(_) if self.next_serves => Err(Wait::Nothing),
            Some(_) if self.next_blocked => Err(Wait::BlockLifted),
            Some(_) if !self.without_room.is_empty() => {
                Err(Wait::GroupRoom(self.without_room.clone()))
            }
            Some(next) => Ok(Step::Replace(self.replace(next)?)),
        }
    }

    fn replace(&self, next: Thumbprint) -> Result<Vec<Change>, Wait> {
        let mut changes = Vec::new();
        for group in &self.groups {
            let held = group.slots.held();
            if held.iter().any(|it| self.compromised.contains(it)) {
                match group.slots.clone().exclude(&self.compromised, Some(next)) {
                    Ok(left) => changes.push(Change {
                        enabled: left.enabled,
                        ..group.change(Ok(left.slots))?
                    }),
                    Err(refusal) => return Err(group.waits_for(refusal.reason)),
                }
            } else if !held.contains(&next) {
                changes.push(group.change(group.slots.clone().stage(next))?);
            }
        }
        Ok(changes)
    }

    fn excluding(&self) -> Result<Step, Wait> {
        self.in_step()?;
        if self.ca_certificates > 0 {
            return Err(Wait::Deletion);
        }
        // The group above would accept these devices, and they would be back in the hub at once.
        if self.above_admits {
            return Err(Wait::Above);
        }
        match self.blocks_open {
            0 => Ok(Step::Enter(RollState::Clearing)),
            _ => Err(Wait::Block),
        }
    }

    fn clearing(&self) -> Result<Step, Wait> {
        match self.hub_open {
            0 => Ok(Step::Enter(RollState::Reissuing)),
            open => Err(Wait::Hub(open)),
        }
    }

    fn reissuing(&self) -> Result<Step, Wait> {
        if !self.next_serves {
            // `replacement` returns the reason to wait.
            return Err(self.replacement().err().unwrap_or(Wait::Nothing));
        }
        self.in_step()?;
        if self.blocks_open > 0 {
            return Err(Wait::Block);
        }
        if !self.behind.is_empty() {
            return Err(Wait::Below(self.behind.clone()));
        }
        if self.to_reissue > 0 {
            return Err(Wait::Reissue(self.to_reissue));
        }
        let both = |group: &Group| group.slots.held().len() > 1;
        // A good certificate is left beside the compromised one: it retires as in any rollover.
        if self.groups.iter().any(both) {
            Ok(Step::Enter(RollState::Draining))
        } else {
            Ok(Step::Enter(RollState::Done))
        }
    }
}

impl Group {
    fn change(&self, to: Result<Slots, super::refusal::Refusal>) -> Result<Change, Wait> {
        match to {
            Ok(to) => Ok(Change {
                group: self.id,
                from: self.slots.clone(),
                to,
                was_enabled: self.enabled,
                enabled: self.enabled,
            }),
            Err(refusal) => Err(self.waits_for(refusal.reason)),
        }
    }

    fn waits_for(&self, reason: Reason) -> Wait {
        Wait::Group {
            provisioning: self.provisioning.clone(),
            name: self.name.clone(),
            reason,
        }
    }

    /// Returns true if a canary can be tested: the service was observed with both certificates.
    pub fn awaits_canary(&self) -> bool {
        let evidence = CutOverEvidence {
            canary: CanaryVerdict::NotNeeded,
            ..self.cut_over.clone()
        };
        self.slots.clone().cut_over(&evidence).is_ok()
            && self.cut_over.canary != CanaryVerdict::Passed
    }
}

//! How the roll of an authority goes on: what has come about, what the next step is, and what it
//! waits for.
//!
//! Pure, like [`super::roll`], which has the states. An authority may be held by any number of
//! groups at any number of services, and all of them step together. What must never happen: a
//! generation signs before every service that holds its authority was seen to accept it; what is
//! compromised comes back; a roll ends while somebody below still depends on what it takes away.

use super::refusal::Reason;
use super::roll::{RollReason, RollState};
use super::slots::{CanaryVerdict, CutOverEvidence, RetireEvidence, Slots};
use super::thumbprint::Thumbprint;
use std::fmt;

/// A group of the authority, and what is known of it.
#[derive(Clone, Debug)]
pub struct Group {
    /// Row id of the enrollment.
    pub id: i64,
    /// The provisioning service.
    pub provisioning: String,
    /// The group's id there.
    pub name: String,
    /// What it shall hold.
    pub slots: Slots,
    /// Whether it shall let anybody in.
    pub enabled: bool,
    /// Whether the service was seen as the group shall be.
    pub in_step: bool,
    /// What the service was seen holding, and whether the canary got in.
    pub sighting: CutOverEvidence,
}

/// A group that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Row id of the enrollment.
    pub group: i64,
    /// Its slots as the step was decided on.
    pub from: Slots,
    /// Its slots as they shall be.
    pub to: Slots,
    /// Whether it was to let anybody in as the step was decided on.
    pub was_enabled: bool,
    /// Whether it shall let anybody in.
    pub enabled: bool,
}

/// What is known when an authority's roll is looked at.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Why it is rolled.
    pub reason: RollReason,
    /// The certificate that is replaced.
    pub old: Thumbprint,
    /// By compromise: it, and other certificates of the authority that are void with it.
    pub compromised: Vec<Thumbprint>,
    /// The certificate that replaces it, once there is one.
    pub next: Option<Thumbprint>,
    /// Whether the next generation signs already.
    pub next_serves: bool,
    /// Services that shall hold the next certificate verified, and do not yet.
    pub unverified: Vec<String>,
    /// The authority's groups.
    pub groups: Vec<Group>,
    /// Whether the cut-over may be made as far as people are concerned.
    pub cut_over_approved: bool,
    /// Whether the old certificate may go as far as people are concerned.
    pub retirement_approved: bool,
    /// Whether the old certificate may go.
    pub retirement: RetireEvidence,
    /// By compromise: whether the authority whose compromise brought this one about is not shut out yet.
    pub above_lets_in: bool,
    /// Authorities below that still sign under the old certificate, or are being rolled.
    pub behind: Vec<String>,
    /// CA certificates of the old generation that services still hold.
    pub ca_certificates: u64,
    /// Of these, such as shall be gone.
    pub ca_certificates_leaving: u64,
    /// Identities that hubs still have to delete.
    pub hub_open: u64,
    /// Devices whose current leaf is below the old certificate.
    pub to_reissue: u64,
    /// Enrollments that block the old certificate, and are not in place yet.
    pub blocks_open: u64,
}

/// The next step of an authority's roll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the next generation.
    Make,
    /// The next certificate goes into the free slots.
    Stage(Vec<Change>),
    /// The next generation signs, and serves in the slots.
    CutOver(Vec<Change>),
    /// A compromised certificate has a successor: it takes the slots and signs.
    Replace(Vec<Change>),
    /// The old certificate leaves its slots.
    Retire(Vec<Change>),
    /// The old CA certificate is deleted at the services.
    Withdraw,
    /// Nothing but the state changes.
    Enter(RollState),
}

/// What an authority's roll waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// These services to hold the next certificate verified.
    Verification(Vec<String>),
    /// A group to be as the next step needs it.
    Group {
        /// The provisioning service.
        provisioning: String,
        /// The group.
        name: String,
        /// What is missing.
        reason: Reason,
    },
    /// The service to be as it shall be.
    Service(Vec<String>),
    /// Somebody's word, for a cut-over or a retirement.
    Approval(&'static str),
    /// The old certificate's end, or the proof of every device.
    Retirement(Reason),
    /// Authorities below, to sign under the next certificate.
    Below(Vec<String>),
    /// The compromised authority above to be shut out.
    Above,
    /// The service to delete the old CA certificate.
    Deletion,
    /// Hubs to delete so many identities.
    Hub(u64),
    /// So many devices to ask for new leaves.
    Reissue(u64),
    /// The disabled groups that block the old certificate.
    Block,
    /// Nothing: it is over.
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
            Wait::Above => f.write_str("the compromised authority above to be shut out"),
            Wait::Deletion => f.write_str("the service to delete the old CA certificate"),
            Wait::Hub(open) => write!(f, "hubs to delete {open} identities"),
            Wait::Reissue(devices) => write!(f, "{devices} devices to ask for a new leaf"),
            Wait::Block => {
                f.write_str("the service to hold the old certificate in a disabled group")
            }
            Wait::Nothing => f.write_str("nothing"),
        }
    }
}

/// Decides how the roll of an authority goes on from `state`.
pub fn next_step(state: RollState, evidence: &Evidence) -> Result<Step, Wait> {
    match state {
        RollState::Requested => evidence.requested(),
        RollState::Staged => evidence.staged(),
        RollState::Draining => evidence.draining(),
        RollState::ShuttingOut => evidence.shutting_out(),
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

    /// The next certificate, once every service that must know it before it is used does.
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
        if let Some(next) = self.next {
            let late = self.stage(next)?;
            if !late.is_empty() {
                return Ok(Step::Stage(late));
            }
        }
        let changes = self.cut_over()?;
        match self.cut_over_approved {
            true => Ok(Step::CutOver(changes)),
            false => Err(Wait::Approval("cut-over")),
        }
    }

    fn cut_over(&self) -> Result<Vec<Change>, Wait> {
        let staged = |it: &&Group| matches!(it.slots, Slots::Staged { .. });
        let staged = self.groups.iter().filter(staged);
        staged
            .map(|group| group.change(group.slots.clone().cut_over(&group.sighting)))
            .collect()
    }

    fn draining(&self) -> Result<Step, Wait> {
        // Added since, or left with a good certificate by a compromise.
        let late = self.cut_over()?;
        if !late.is_empty() {
            return Ok(Step::CutOver(late));
        }
        if !self.behind.is_empty() {
            return Err(Wait::Below(self.behind.clone()));
        }
        let draining = |it: &&Group| matches!(it.slots, Slots::Draining { .. });
        let draining: Vec<&Group> = self.groups.iter().filter(draining).collect();
        if !draining.is_empty() || self.ca_certificates > self.ca_certificates_leaving {
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
        self.in_step()?;
        match (self.ca_certificates, self.ca_certificates_leaving) {
            (0, _) => Ok(Step::Enter(RollState::Done)),
            (held, leaving) if held > leaving => Ok(Step::Withdraw),
            _ => Err(Wait::Deletion),
        }
    }

    fn in_step(&self) -> Result<(), Wait> {
        let late = self.groups.iter().filter(|group| !group.in_step);
        let late: Vec<String> = late
            .map(|group| format!("group {} at {}", group.name, group.provisioning))
            .collect();
        match late.is_empty() {
            true => Ok(()),
            false => Err(Wait::Service(late)),
        }
    }

    /// A compromise: whether the successor can take the place of the compromised certificate. It waits for
    /// nothing but its own making, and where the service verifies it, for that.
    pub fn replacement(&self) -> Result<Step, Wait> {
        match self.published()? {
            None => Ok(Step::Make),
            Some(_) if self.next_serves => Err(Wait::Nothing),
            Some(next) => Ok(Step::Replace(self.replace(next)?)),
        }
    }

    fn replace(&self, next: Thumbprint) -> Result<Vec<Change>, Wait> {
        let mut changes = Vec::new();
        for group in &self.groups {
            let held = group.slots.held();
            if held.iter().any(|it| self.compromised.contains(it)) {
                match group.slots.clone().shut_out(&self.compromised, Some(next)) {
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

    fn shutting_out(&self) -> Result<Step, Wait> {
        self.in_step()?;
        if self.ca_certificates > 0 {
            return Err(Wait::Deletion);
        }
        // Whoever is let in by the one above would be back in the hub at once.
        if self.above_lets_in {
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
            // `replacement` says what it waits for.
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
        // A good certificate was left beside the compromised one: it goes as in any roll.
        match self.groups.iter().any(both) {
            true => Ok(Step::Enter(RollState::Draining)),
            false => Ok(Step::Enter(RollState::Done)),
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

    /// Whether a canary can be tried: the service was seen with both certificates.
    pub fn awaits_canary(&self) -> bool {
        let sighting = CutOverEvidence {
            canary: CanaryVerdict::NotNeeded,
            ..self.sighting.clone()
        };
        self.slots.clone().cut_over(&sighting).is_ok()
            && self.sighting.canary != CanaryVerdict::Passed
    }
}

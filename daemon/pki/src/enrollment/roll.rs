//! Plans the rollover of a leaf: its next step, or the event that it waits for.
//!
//! The evidence is a parameter, and the result is a step or a wait. The slots say which certificate
//! is in which place; the state of a rollover says how far the replacement is.
//!
//! | reason | states |
//! |---|---|
//! | expiry | `requested` → `staged` → `draining` → `done`, or `aborted` back to serving |
//! | compromise | `excluding` → `clearing` → `reissuing` → `done` |
//!
//! A step must never happen without its evidence, and a compromise must never end before the
//! compromised certificate is excluded at the service and at the hub.

use super::refusal::Reason;
use super::slots::{CutOverEvidence, RetireEvidence, Slots};
use super::thumbprint::Thumbprint;
use crate::unix_seconds::UnixSeconds;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The reason for a rollover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RollReason {
    /// The certificate expires: old and new are valid at the same time.
    Expiry,
    /// The certificate is compromised: it is excluded first.
    Compromise,
}

impl RollReason {
    /// Returns the name in the store.
    pub fn name(self) -> &'static str {
        match self {
            RollReason::Expiry => "expiry",
            RollReason::Compromise => "compromise",
        }
    }
}

/// The state of a rollover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RollState {
    /// Expiry: waits for the next certificate.
    Requested,
    /// Expiry: the next certificate is desired in the other slot.
    Staged,
    /// Expiry: the next certificate serves; the old one waits to be retired.
    Draining,
    /// Compromise: the service must exclude the certificate.
    Excluding,
    /// Compromise: the hub must delete identities.
    Clearing,
    /// Compromise: waits for new leaves.
    Reissuing,
    /// Only the new certificate is left.
    Done,
    /// Aborted, or replaced by a compromise.
    Aborted,
}

impl RollState {
    /// Every state.
    pub const ALL: [RollState; 8] = [
        RollState::Requested,
        RollState::Staged,
        RollState::Draining,
        RollState::Excluding,
        RollState::Clearing,
        RollState::Reissuing,
        RollState::Done,
        RollState::Aborted,
    ];

    /// Returns the name in the store.
    pub fn name(self) -> &'static str {
        match self {
            RollState::Requested => "requested",
            RollState::Staged => "staged",
            RollState::Draining => "draining",
            RollState::Excluding => "excluding",
            RollState::Clearing => "clearing",
            RollState::Reissuing => "reissuing",
            RollState::Done => "done",
            RollState::Aborted => "aborted",
        }
    }

    /// Returns the state with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        RollState::ALL.into_iter().find(|it| it.name() == name)
    }
}

/// The evidence for the next step of a leaf's rollover.
#[derive(Clone, Debug)]
pub struct LeafEvidence {
    /// The observed certificates at the service.
    pub cut_over: CutOverEvidence,
    /// Whether the old certificate is no longer needed.
    pub retirement: RetireEvidence,
    /// Whether the service was observed as desired.
    pub in_step: bool,
    /// The number of identities that the hub must still delete.
    pub hub_open: i64,
    /// Whether a certificate replaces the old one.
    pub replaced: bool,
}

/// The event that a leaf's rollover waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A request with a new key.
    Request,
    /// The service has both certificates.
    Observation(Reason),
    /// The old certificate expires, or is no longer used.
    Expiry(Reason),
    /// The service excludes the compromised certificate.
    Service,
    /// The hub deletes this number of identities.
    Hub(i64),
    /// Nothing: the rollover has ended.
    Nothing,
}

/// The next step of a rollover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafStep {
    pub state: RollState,
    /// The slots, if they change.
    pub slots: Slots,
}

/// Returns the next step of a leaf's rollover from `state`, or the event that it waits for.
pub fn next_leaf_step(
    state: RollState,
    slots: &Slots,
    evidence: &LeafEvidence,
) -> Result<LeafStep, Wait> {
    let with = |state, slots| Ok(LeafStep { state, slots });
    let stay = || slots.clone();
    match state {
        RollState::Requested => Err(Wait::Request),
        // A block has taken one of the two leaves out of its slot, and lifting it puts that leaf
        // back while the device may need it.
        RollState::Staged | RollState::Draining if matches!(slots, Slots::Serving { .. }) => {
            match evidence.retirement.objection() {
                Some(reason) => Err(Wait::Expiry(reason)),
                None => with(RollState::Done, stay()),
            }
        }
        RollState::Staged => match stay().cut_over(&evidence.cut_over) {
            Ok(slots) => with(RollState::Draining, slots),
            Err(refusal) => Err(Wait::Observation(refusal.reason)),
        },
        RollState::Draining => match stay().retire(&evidence.retirement) {
            Ok(slots) => with(RollState::Done, slots),
            Err(refusal) => Err(Wait::Expiry(refusal.reason)),
        },
        RollState::Excluding if !evidence.in_step => Err(Wait::Service),
        RollState::Excluding => with(RollState::Clearing, stay()),
        RollState::Clearing if evidence.hub_open > 0 => Err(Wait::Hub(evidence.hub_open)),
        RollState::Clearing => with(RollState::Reissuing, stay()),
        RollState::Reissuing if !evidence.replaced => Err(Wait::Request),
        RollState::Reissuing if !evidence.in_step => Err(Wait::Service),
        // A good certificate is left in the other slot, so its successor follows as in any
        // rollover.
        RollState::Reissuing if matches!(slots, Slots::Staged { .. }) => {
            next_leaf_step(RollState::Staged, slots, evidence)
        }
        RollState::Reissuing if matches!(slots, Slots::Draining { .. }) => {
            with(RollState::Draining, stay())
        }
        RollState::Reissuing => with(RollState::Done, stay()),
        RollState::Done | RollState::Aborted => Err(Wait::Nothing),
    }
}

/// Returns when policy starts the rollover of a leaf, in Unix seconds: `before` seconds before
/// `not_after`, plus up to `jitter` seconds. The jitter is constant for a device, so a fleet does
/// not roll over in one minute.
pub fn renewal_moment(
    registration_id: &str,
    not_after: UnixSeconds,
    before: i64,
    jitter: i64,
) -> UnixSeconds {
    let digest = Thumbprint::of(registration_id.to_ascii_lowercase().as_bytes());
    let [a, b, c, d, ..] = *digest.as_bytes();
    let spread = i64::from(u32::from_be_bytes([a, b, c, d]));
    let later = (i128::from(spread) * i128::from(jitter.max(0))) >> 32;
    let later = i64::try_from(later).unwrap_or(0);
    not_after.saturating_sub(before).saturating_add(later)
}

/// The treatment of a compromised device's identity in the hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HubPolicy {
    /// The identity is deleted, so the hub refuses the compromised leaf.
    #[default]
    Delete,
    /// The identity stays, with access, until the device has registered with its new leaf.
    Reprovision,
}

/// A guard that an operator has overridden.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// The code of the guard.
    pub guard: String,
    /// The reason in the operator's words.
    pub reason: String,
    pub by: String,
}

/// Options and evidence of a leaf's rollover.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeafDetail {
    /// The treatment of the hub identity.
    pub hub: Option<HubPolicy>,
    /// The certificates that left the slots, or will.
    pub compromised: Vec<Thumbprint>,
    /// Guards that were overridden.
    pub overrides: Vec<Override>,
}

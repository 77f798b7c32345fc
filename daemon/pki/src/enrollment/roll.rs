//! How a roll goes on: what has come about, what the next step is, and what it waits for.
//!
//! Pure: the evidence is a parameter, and what comes out is a step or a wait. The slots are the
//! truth about what stands where; the state of a roll says how far the replacement is.
//!
//! | reason | states |
//! |---|---|
//! | expiry | `requested` → `staged` → `draining` → `done`, or `aborted` back to serving |
//! | compromise | `shutting_out` → `clearing` → `reissuing` → `done` |
//!
//! What must never happen: a step without its evidence; a compromise that ends before the compromised
//! certificate is shut out at the service and at the hub.

use super::refusal::Reason;
use super::slots::{CutOverEvidence, RetireEvidence, Slots};
use super::thumbprint::Thumbprint;
use serde::{Deserialize, Serialize};

/// Why a certificate is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RollReason {
    /// It comes to its end: old and new are both valid meanwhile.
    Expiry,
    /// It is in wrong hands: shut out first.
    Compromise,
}

impl RollReason {
    /// The name on record.
    pub fn name(self) -> &'static str {
        match self {
            RollReason::Expiry => "expiry",
            RollReason::Compromise => "compromise",
        }
    }
}

/// How far a roll is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RollState {
    /// Expiry: waits for the next certificate.
    Requested,
    /// Expiry: the next certificate is wanted in the other slot.
    Staged,
    /// Expiry: the next certificate serves; the old one waits to be retired.
    Draining,
    /// Compromise: the service is being told.
    ShuttingOut,
    /// Compromise: hub identities are being deleted.
    Clearing,
    /// Compromise: waits for new leaves.
    Reissuing,
    /// Only the new certificate is left.
    Done,
    /// Given up, or overtaken by a compromise.
    Aborted,
}

impl RollState {
    /// All of them.
    pub const ALL: [RollState; 8] = [
        RollState::Requested,
        RollState::Staged,
        RollState::Draining,
        RollState::ShuttingOut,
        RollState::Clearing,
        RollState::Reissuing,
        RollState::Done,
        RollState::Aborted,
    ];

    /// The name on record.
    pub fn name(self) -> &'static str {
        match self {
            RollState::Requested => "requested",
            RollState::Staged => "staged",
            RollState::Draining => "draining",
            RollState::ShuttingOut => "shutting_out",
            RollState::Clearing => "clearing",
            RollState::Reissuing => "reissuing",
            RollState::Done => "done",
            RollState::Aborted => "aborted",
        }
    }

    /// The state with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        RollState::ALL.into_iter().find(|it| it.name() == name)
    }
}

/// What is known when a leaf's roll is looked at.
#[derive(Clone, Debug)]
pub struct LeafEvidence {
    /// What the service was seen holding.
    pub sighting: CutOverEvidence,
    /// Whether the old certificate may go.
    pub retirement: RetireEvidence,
    /// Whether the service was seen as the enrollment shall be.
    pub in_step: bool,
    /// Identities that the hub still has to delete.
    pub hub_open: i64,
    /// Whether a certificate is there that takes the place of the old one.
    pub replaced: bool,
}

/// What a roll of a leaf waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A request with a new key.
    Request,
    /// The service holding both certificates.
    Observation(Reason),
    /// The end of the old certificate.
    Expiry(Reason),
    /// The service shutting the compromised certificate out.
    Service,
    /// The hub deleting identities: so many.
    Hub(i64),
    /// Nothing: it is over.
    Nothing,
}

/// The next step: the state to come, and the slots if they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafStep {
    /// The roll's next state.
    pub state: RollState,
    /// The slots as they shall be.
    pub slots: Slots,
}

/// Decides how the roll of a leaf goes on from `state`.
pub fn next_leaf_step(
    state: RollState,
    slots: &Slots,
    evidence: &LeafEvidence,
) -> Result<LeafStep, Wait> {
    let with = |state, slots| Ok(LeafStep { state, slots });
    let stay = || slots.clone();
    match state {
        RollState::Requested => Err(Wait::Request),
        RollState::Staged => match stay().cut_over(&evidence.sighting) {
            Ok(slots) => with(RollState::Draining, slots),
            Err(refusal) => Err(Wait::Observation(refusal.reason)),
        },
        RollState::Draining => match stay().retire(&evidence.retirement) {
            Ok(slots) => with(RollState::Done, slots),
            Err(refusal) => Err(Wait::Expiry(refusal.reason)),
        },
        RollState::ShuttingOut if !evidence.in_step => Err(Wait::Service),
        RollState::ShuttingOut => with(RollState::Clearing, stay()),
        RollState::Clearing if evidence.hub_open > 0 => Err(Wait::Hub(evidence.hub_open)),
        RollState::Clearing => with(RollState::Reissuing, stay()),
        RollState::Reissuing if !evidence.replaced => Err(Wait::Request),
        RollState::Reissuing if !evidence.in_step => Err(Wait::Service),
        // A good certificate was left in the other slot: its successor follows as in any roll.
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

/// Unix seconds at which policy starts the roll of a leaf that ends at `not_after`: at most
/// `before` seconds before its end, and up to `jitter` seconds later, always the same for a device,
/// so that a fleet does not roll in one minute.
pub fn renewal_moment(registration_id: &str, not_after: i64, before: i64, jitter: i64) -> i64 {
    let digest = Thumbprint::of(registration_id.to_ascii_lowercase().as_bytes());
    let [a, b, c, d, ..] = *digest.as_bytes();
    let spread = i64::from(u32::from_be_bytes([a, b, c, d]));
    let later = (i128::from(spread) * i128::from(jitter.max(0))) >> 32;
    let later = i64::try_from(later).unwrap_or(0);
    not_after.saturating_sub(before).saturating_add(later)
}

/// What becomes of a compromised device's identity in the hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HubPolicy {
    /// It goes: the compromised leaf opens the hub no more.
    #[default]
    Delete,
    /// It stays, and with it the way in, until the device has registered with its new leaf.
    Reprovision,
}

/// A guard that an operator has overridden.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// Which guard: its code.
    pub guard: String,
    /// Why, in the operator's words.
    pub reason: String,
    /// Who.
    pub by: String,
}

/// Options and evidence of a leaf's roll.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeafDetail {
    /// What becomes of the hub identity.
    pub hub: Option<HubPolicy>,
    /// What left the slots, or waits to.
    pub compromised: Vec<Thumbprint>,
    /// Guards that were overridden.
    pub overrides: Vec<Override>,
}

//! Why a transition of slots was not made, in words for people and codes for programs.

use super::slots::{SlotName, Slots};
use crate::error_code::Code;
use time::OffsetDateTime;

/// A transition that was not made: the state as it was, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// Unchanged.
    pub slots: Slots,
    /// Why not.
    pub reason: Reason,
}

impl Refusal {
    /// The stable code of the problem document.
    pub fn code(&self) -> Code {
        self.reason.code()
    }
}

/// Why a transition was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Not from here.
    #[error("cannot {transition} slots that are {state}")]
    State {
        /// What was asked.
        transition: &'static str,
        /// From where.
        state: &'static str,
    },
    /// The next certificate is the one it should replace.
    #[error("the {slot} slot holds this certificate already: stage one that was newly issued")]
    AlreadyThere {
        /// Where it stands.
        slot: SlotName,
    },
    /// What shall leave the slots is in neither.
    #[error("neither slot holds this certificate; `hallmark enrollment show` has what they hold")]
    NotThere,
    /// The service was not seen to hold what it must hold.
    #[error("the {slot} slot was not observed with the certificate that it shall hold")]
    NotObserved {
        /// Where something else was seen.
        slot: SlotName,
    },
    /// Nobody tried the next authority yet.
    #[error("no canary has registered under the next certificate yet")]
    CanaryPending,
    /// The next authority was tried, and a device would have been refused.
    #[error("the canary under the next certificate was refused: {0}")]
    CanaryFailed(String),
    /// Somebody may still use it.
    #[error("the retiring certificate is valid until {until}")]
    NotExpired {
        /// Its `notAfter`.
        until: OffsetDateTime,
    },
    /// Some devices have not been seen on the new one.
    #[error("{unproven} devices have not been seen on the new certificate")]
    DevicesUnproven {
        /// How many.
        unproven: u64,
    },
    /// Every device is proven, but policy waits for the expiry all the same.
    #[error("policy does not allow to retire a certificate before it expires")]
    EarlyRetirementForbidden,
}

impl Reason {
    /// The stable code of the problem document.
    pub fn code(&self) -> Code {
        match self {
            Reason::State { .. } => Code::SlotsState,
            Reason::AlreadyThere { .. } => Code::SlotsCertificateAlreadyThere,
            Reason::NotThere => Code::SlotsCertificateNotThere,
            Reason::NotObserved { .. } => Code::SlotsNotObserved,
            Reason::CanaryPending => Code::SlotsCanaryPending,
            Reason::CanaryFailed(_) => Code::SlotsCanaryFailed,
            Reason::NotExpired { .. } => Code::SlotsNotExpired,
            Reason::DevicesUnproven { .. } => Code::SlotsDevicesUnproven,
            Reason::EarlyRetirementForbidden => Code::SlotsEarlyRetirementForbidden,
        }
    }
}

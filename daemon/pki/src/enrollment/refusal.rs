//! Defines the reasons why a transition of slots is refused, with text and stable codes.

use super::slots::{SlotName, Slots};
use crate::error_code::Code;
use crate::unix_seconds::UnixSeconds;

/// A refused transition: the unchanged state, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    pub slots: Slots,
    pub reason: Reason,
}

impl Refusal {
    /// Returns the stable code of the problem document.
    pub fn code(&self) -> Code {
        self.reason.code()
    }
}

/// The reason why a transition was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The state does not allow the transition.
    #[error("cannot {transition} slots that are {state}")]
    State {
        transition: &'static str,
        state: &'static str,
    },
    /// The next certificate equals the certificate that it should replace.
    #[error("the {slot} slot holds this certificate already: stage one that was newly issued")]
    AlreadyThere {
        /// The slot of the certificate.
        slot: SlotName,
    },
    /// The certificate to remove is in neither slot.
    #[error("neither slot holds this certificate; `hallmark enrollment show` has what they hold")]
    NotThere,
    /// The service was not observed with the required certificate.
    #[error("the {slot} slot was not observed with the certificate that it must hold")]
    NotObserved {
        /// The slot with other content.
        slot: SlotName,
    },
    /// The canary has not tried the next authority yet.
    #[error("no canary has registered under the next certificate yet")]
    CanaryPending,
    /// The service refused the canary of the next authority.
    #[error("the canary under the next certificate was refused: {0}")]
    CanaryFailed(String),
    /// A device may still use the certificate.
    #[error("the retiring certificate is valid until {until}")]
    NotExpired {
        /// The end of its validity.
        until: UnixSeconds,
    },
    /// Some devices were not observed with the new certificate.
    #[error(
        "{unproven} devices have not been seen on the new certificate; a valid subordinate \
         certificate by the old one counts as a device"
    )]
    DevicesUnproven {
        /// The number of these devices.
        unproven: u64,
    },
    /// Every device uses the new certificate, and policy still waits for the expiry.
    #[error("policy does not allow to retire a certificate before it expires")]
    EarlyRetirementForbidden,
}

impl Reason {
    /// Returns the stable code of the problem document.
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

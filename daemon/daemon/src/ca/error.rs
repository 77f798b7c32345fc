//! The errors of the application, by the caller's next step.
//!
//! `code` is stable and public: scripts compare it. `api::problem` is the one place that maps
//! [`Advice`] to HTTP.

use crate::error_code::Code;
use crate::store::{IntentError, StoreError};
use crate::token::{CallFailure, TokenError};

/// The caller's next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    Correct,
    /// Present a client certificate that is known here.
    Authenticate,
    /// Ask a caller with the permission.
    Forbidden,
    /// Name something that exists.
    Missing,
    /// Look at the present state, and decide again.
    Conflict,
    /// Send the same again after this many seconds.
    Later {
        seconds: u32,
    },
    /// Call the operator: something that must hold does not.
    Stop,
}

/// An error of the application.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The caller's next step.
    pub advice: Advice,
    pub code: Code,
    /// One sentence with the remedy. Never a secret.
    pub message: String,
}

impl Error {
    /// The request must change.
    pub fn invalid(code: Code, message: impl Into<String>) -> Self {
        Self::new(Advice::Correct, code, message)
    }

    /// The caller may not.
    pub fn forbidden(code: Code, message: impl Into<String>) -> Self {
        Self::new(Advice::Forbidden, code, message)
    }

    /// There is no such thing.
    pub fn missing(code: Code, message: impl Into<String>) -> Self {
        Self::new(Advice::Missing, code, message)
    }

    /// The present state does not allow it.
    pub fn conflict(code: Code, message: impl Into<String>) -> Self {
        Self::new(Advice::Conflict, code, message)
    }

    /// The same request may succeed later.
    pub fn later(seconds: u32, code: Code, message: impl Into<String>) -> Self {
        Self::new(Advice::Later { seconds }, code, message)
    }

    /// Something that must hold does not.
    pub fn stop(code: Code, message: impl Into<String>) -> Self {
        Self::new(Advice::Stop, code, message)
    }

    /// Any of the above.
    pub fn new(advice: Advice, code: Code, message: impl Into<String>) -> Self {
        Self {
            advice,
            code,
            message: message.into(),
        }
    }

    /// Whether this is the caller's fault: such a refusal is written into the audit journal.
    pub fn is_refusal(&self) -> bool {
        !matches!(self.advice, Advice::Later { .. } | Advice::Stop)
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Unavailable(_) => Self::later(5, Code::StoreUnavailable, message),
            StoreError::Conflict(_) | StoreError::Violates(_) => {
                Self::conflict(Code::StateConflict, message)
            }
            StoreError::Blocking { code, .. } => Self::conflict(code, message),
            StoreError::Invalid { code, .. } => Self::invalid(code, message),
            StoreError::RequesterRevoked => Self::new(
                Advice::Authenticate,
                Code::ClientCertificateRevoked,
                message,
            ),
            StoreError::GrantEnded(refused) => (*refused).into(),
            StoreError::Missing(_) => Self::missing(Code::NotFound, message),
            StoreError::Unreadable(_) => Self::stop(Code::StoreUnreadable, message),
        }
    }
}

impl From<IntentError> for Error {
    fn from(error: IntentError) -> Self {
        let message = error.to_string();
        match error {
            IntentError::UnderWay(_) => Self::later(1, Code::IssuanceUnderWay, message),
            IntentError::Repeated(_) => Self::later(1, Code::RequestUnderWay, message),
            IntentError::SerialExists => Self::stop(Code::SerialExists, message),
            IntentError::Spelling { .. } => Self::conflict(Code::RegistrationIdSpelling, message),
            IntentError::Moves { .. } => Self::forbidden(Code::DeviceMoves, message),
            IntentError::OwnProfile { .. } => {
                Self::forbidden(Code::DeviceProfileForbidden, message)
            }
            IntentError::Blocked(_) => Self::forbidden(Code::DeviceBlocked, message),
            IntentError::GroupBlocked { .. } => Self::forbidden(Code::GroupBlocked, message),
            IntentError::Key(reason) => Self::invalid(reason.code(), message),
            IntentError::LateRenewalUsed => Self::conflict(Code::LateRenewalUsed, message),
            IntentError::LateRenewalSuperseded(_) => {
                Self::conflict(Code::LateRenewalSuperseded, message)
            }
            IntentError::CredentialUsed => Self::conflict(Code::CredentialUsed, message),
            IntentError::CredentialRevoked => {
                Self::new(Advice::Authenticate, Code::CredentialRevoked, message)
            }
            IntentError::BirthUsed { .. } => Self::conflict(Code::BirthUsed, message),
            IntentError::NewestRevoked(_) => Self::forbidden(Code::DeviceRevoked, message),
            IntentError::RollUnderWay { .. } => Self::conflict(Code::RollUnderWay, message),
            IntentError::RequesterRevoked => Self::new(
                Advice::Authenticate,
                Code::ClientCertificateRevoked,
                message,
            ),
            IntentError::IssuerReplaced => Self::later(1, Code::IssuerReplaced, message),
            IntentError::IssuerRevoked => Self::later(60, Code::IssuerRevoked, message),
            IntentError::Store(failure) => failure.into(),
        }
    }
}

impl From<CallFailure> for Error {
    fn from(failure: CallFailure) -> Self {
        TokenError::from(failure).into()
    }
}

impl From<TokenError> for Error {
    fn from(error: TokenError) -> Self {
        let message = error.to_string();
        match error {
            TokenError::Unavailable { .. } => Self::later(2, Code::TokenUnavailable, message),
            TokenError::Deadline { .. } => Self::later(5, Code::TokenDeadline, message),
            TokenError::Parked { .. } => Self::later(60, Code::TokenParked, message),
            TokenError::Key { .. } => Self::later(60, Code::TokenKey, message),
            TokenError::Refused { .. } => Self::stop(Code::TokenRefused, message),
        }
    }
}

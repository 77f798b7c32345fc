//! Why the application did not do it, told by what the caller can do about it.
//!
//! `code` is stable and public: scripts compare it. `api::problem` is the one place that maps
//! [`Advice`] to HTTP.

use crate::store::{IntentRefusal, StoreError};
use crate::token::{CallFailure, TokenError};

/// What the caller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Mend the request.
    Mend,
    /// Present a client certificate that is known here.
    Authenticate,
    /// Ask somebody who may.
    Forbidden,
    /// Name something that exists.
    Missing,
    /// Look at the present state, and decide again.
    Conflict,
    /// Send the same again after this many seconds.
    Later {
        /// Goes into `Retry-After`.
        seconds: u32,
    },
    /// Call the operator: something that must hold does not.
    Stop,
}

/// An error of the application.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What the caller can do.
    pub advice: Advice,
    /// Stable, snake_case.
    pub code: &'static str,
    /// One sentence that tells how to mend it. Never a secret.
    pub message: String,
}

impl Error {
    /// The request must change.
    pub fn mend(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Advice::Mend, code, message)
    }

    /// The caller may not.
    pub fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Advice::Forbidden, code, message)
    }

    /// There is no such thing.
    pub fn missing(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Advice::Missing, code, message)
    }

    /// The present state does not allow it.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Advice::Conflict, code, message)
    }

    /// The same request may succeed later.
    pub fn later(seconds: u32, code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Advice::Later { seconds }, code, message)
    }

    /// Something that must hold does not.
    pub fn stop(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Advice::Stop, code, message)
    }

    /// Any of the above.
    pub fn new(advice: Advice, code: &'static str, message: impl Into<String>) -> Self {
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
            StoreError::Unavailable(_) => Self::later(5, "store_unavailable", message),
            StoreError::Conflict(_) | StoreError::Violates(_) => {
                Self::conflict("state_conflict", message)
            }
            StoreError::InTheWay { code, .. } => Self::conflict(code, message),
            StoreError::Mend { code, .. } => Self::mend(code, message),
            StoreError::RequesterRevoked => {
                Self::new(Advice::Authenticate, CLIENT_REVOKED, message)
            }
            StoreError::Missing(_) => Self::missing("not_found", message),
            StoreError::Unreadable(_) => Self::stop("store_unreadable", message),
        }
    }
}

/// The client certificate, or a generation above it, is revoked.
pub(in crate::ca) const CLIENT_REVOKED: &str = "client_certificate_revoked";
/// The issuer, or one above it, is revoked.
pub(in crate::ca) const ISSUER_REVOKED: &str = "issuer_revoked";
/// The daemon's own work waits after a signature that failed (`ca::pace`).
pub(in crate::ca) const SIGNING_PAUSED: &str = "signing_paused";
/// The code of [`IntentRefusal::IssuerReplaced`].
pub(in crate::ca) const ISSUER_REPLACED: &str = "issuer_replaced";

impl From<IntentRefusal> for Error {
    fn from(refusal: IntentRefusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            IntentRefusal::UnderWay(_) => Self::later(1, "issuance_under_way", message),
            IntentRefusal::Repeated(_) => Self::later(1, "request_under_way", message),
            IntentRefusal::SerialExists => Self::stop("serial_exists", message),
            IntentRefusal::Spelling { .. } => Self::conflict("registration_id_spelling", message),
            IntentRefusal::Moves { .. } => Self::forbidden("device_moves", message),
            IntentRefusal::OwnProfile { .. } => {
                Self::forbidden("device_profile_forbidden", message)
            }
            IntentRefusal::Blocked(_) => Self::forbidden("device_blocked", message),
            IntentRefusal::GroupBlocked { .. } => Self::forbidden("group_blocked", message),
            IntentRefusal::Key(reason) => Self::mend(reason.code(), message),
            IntentRefusal::RollUnderWay { .. } => Self::conflict("roll_under_way", message),
            IntentRefusal::RequesterRevoked => {
                Self::new(Advice::Authenticate, CLIENT_REVOKED, message)
            }
            IntentRefusal::IssuerReplaced => Self::later(1, ISSUER_REPLACED, message),
            IntentRefusal::IssuerRevoked => Self::later(60, ISSUER_REVOKED, message),
            IntentRefusal::Store(error) => error.into(),
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
            TokenError::Unavailable { .. } => Self::later(2, "token_unavailable", message),
            TokenError::Deadline { .. } => Self::later(5, "token_deadline", message),
            TokenError::Parked { .. } => Self::later(60, "token_parked", message),
            TokenError::Key { .. } => Self::later(60, "token_key", message),
            TokenError::Refused { .. } => Self::stop("token_refused", message),
        }
    }
}

//! A failure inside a backend, before it is known of which token and which operation.
//!
//! The [ladder](super::worker) acts on classes, not on a vendor's codes: each backend maps its
//! library's errors to them in one place.

use super::{RecoveryLevel, TokenError};

/// A failure of the library during one operation, not yet told which token it was.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) class: Class,
    pub(crate) reason: String,
}

/// What can be done about a [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Climb the ladder from this level.
    Recover(RecoveryLevel),
    /// The PIN: only the operator can.
    Pin,
    /// The key is not there or not usable.
    Key,
    /// The token cannot do this.
    Refused,
}

impl Fault {
    pub(crate) fn key(reason: impl Into<String>) -> Self {
        Fault {
            class: Class::Key,
            reason: reason.into(),
        }
    }

    pub(crate) fn refused(reason: impl Into<String>) -> Self {
        Fault {
            class: Class::Refused,
            reason: reason.into(),
        }
    }

    pub(crate) fn device(reason: impl Into<String>) -> Self {
        Fault {
            class: Class::Recover(RecoveryLevel::Initialize),
            reason: reason.into(),
        }
    }

    /// The error of `operation` on `subject` (a key's label) of `token`.
    pub(crate) fn into_error(self, token: &str, operation: &str, subject: &str) -> TokenError {
        let (token, reason) = (token.to_owned(), self.reason);
        match self.class {
            Class::Recover(level) => TokenError::Unavailable {
                token,
                reason: format!("{operation}: {reason}"),
                level: Some(level),
            },
            Class::Pin => TokenError::Parked { token, reason },
            Class::Key => TokenError::Key {
                token,
                label: subject.to_owned(),
                reason,
            },
            Class::Refused => TokenError::Refused {
                token,
                operation: operation.to_owned(),
                reason,
            },
        }
    }
}

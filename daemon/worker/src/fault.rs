//! Defines a failure inside a backend, without the token and the operation.
//!
//! The [worker's](crate::process) recovery acts on classes, not on a vendor's codes. Each backend
//! maps its library's errors to classes in one place.

use hallmark_protocol::{RecoveryLevel, TokenError};

/// A failure of the library during one operation.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) class: Class,
    pub(crate) reason: String,
}

/// The way to deal with a [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Recover from this level on.
    Recover(RecoveryLevel),
    /// The operator must correct the PIN.
    Pin,
    /// The key is missing or not usable.
    Key,
    /// The token does not support the operation.
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

    /// Returns the error of `operation` of `token` about `subject`, a key's label.
    pub(crate) fn into_error(self, token: &str, operation: &str, subject: &str) -> TokenError {
        let token = token.to_owned();
        let reason = self.reason;
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

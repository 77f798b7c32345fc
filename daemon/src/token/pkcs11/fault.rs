//! What a `CKR_…` means for us: which rung of the ladder may heal it, or that none will.
//!
//! The classes come from what real modules answer (a vanished SoftHSM folder says
//! `CKR_OBJECT_HANDLE_INVALID`, an unplugged HSM behind p11-kit `CKR_DEVICE_ERROR`), not from the
//! specification alone. A code that is not named here counts as the device's fault.

use crate::token::{Rung, TokenError};
use cryptoki::error::{Error, RvError};

/// A failure of the module during one operation, not yet told which token it was.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) class: Class,
    pub(crate) reason: String,
}

/// What can be done about a [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Climb the ladder from this rung.
    Climb(Rung),
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
            class: Class::Climb(Rung::Initialize),
            reason: reason.into(),
        }
    }

    /// The error of `operation` on `subject` (a key's label) of `token`.
    pub(crate) fn into_error(self, token: &str, operation: &str, subject: &str) -> TokenError {
        let (token, reason) = (token.to_owned(), self.reason);
        match self.class {
            Class::Climb(rung) => TokenError::Unavailable {
                token,
                reason: format!("{operation}: {reason}"),
                rung: Some(rung),
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

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            // `Display` is a paragraph of the specification; `Debug` is the code's name.
            Error::Pkcs11(code, function) => Fault {
                class: class_of(code),
                reason: format!("C_{function:?}: {code:?}"),
            },
            Error::NullFunctionPointer | Error::NotSupported => Fault::refused(error.to_string()),
            other => Fault::device(other.to_string()),
        }
    }
}

fn class_of(code: RvError) -> Class {
    use RvError::*;
    match code {
        SessionClosed
        | SessionHandleInvalid
        | SessionCount
        | SessionReadOnly
        | OperationActive
        | OperationNotInitialized => Class::Climb(Rung::Session),
        UserNotLoggedIn | ObjectHandleInvalid | KeyHandleInvalid => Class::Climb(Rung::Login),
        PinIncorrect | PinInvalid | PinLenRange | PinExpired | PinLocked | PinTooWeak => Class::Pin,
        KeySizeRange | KeyTypeInconsistent | KeyFunctionNotPermitted | KeyUnextractable => {
            Class::Key
        }
        ActionProhibited
        | ArgumentsBad
        | AttributeReadOnly
        | AttributeTypeInvalid
        | AttributeValueInvalid
        | CurveNotSupported
        | DataInvalid
        | DataLenRange
        | DomainParamsInvalid
        | FunctionNotSupported
        | MechanismInvalid
        | MechanismParamInvalid
        | TemplateIncomplete
        | TemplateInconsistent
        | TokenWriteProtected => Class::Refused,
        _ => Class::Climb(Rung::Initialize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptoki::context::Function;

    #[test]
    fn what_is_seen_when_a_token_vanishes_climbs_and_a_wrong_pin_never_does() {
        let class = |code| Fault::from(Error::Pkcs11(code, Function::Sign)).class;
        assert_eq!(
            class(RvError::ObjectHandleInvalid),
            Class::Climb(Rung::Login)
        );
        assert_eq!(class(RvError::DeviceError), Class::Climb(Rung::Initialize));
        assert_eq!(class(RvError::GeneralError), Class::Climb(Rung::Initialize));
        assert_eq!(
            class(RvError::UnknownErrorCode(77)),
            Class::Climb(Rung::Initialize)
        );
        assert_eq!(class(RvError::PinIncorrect), Class::Pin);
    }

    #[test]
    fn the_reason_names_function_and_code() {
        let fault = Fault::from(Error::Pkcs11(RvError::DeviceRemoved, Function::Sign));
        assert_eq!(fault.reason, "C_Sign: DeviceRemoved");
    }
}

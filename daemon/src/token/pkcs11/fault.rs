//! What a `CKR_…` means for us: which rung of the ladder may heal it, or that none will.
//!
//! The classes come from what real modules answer (a vanished SoftHSM folder says
//! `CKR_OBJECT_HANDLE_INVALID`, an unplugged HSM behind p11-kit `CKR_DEVICE_ERROR`), not from the
//! specification alone. A code that is not named here counts as the device's fault.

use crate::token::RecoveryLevel;
pub(crate) use crate::token::fault::{Class, Fault};
use cryptoki::error::{Error, RvError};

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
        | OperationNotInitialized => Class::Recover(RecoveryLevel::Session),
        UserNotLoggedIn | ObjectHandleInvalid | KeyHandleInvalid => {
            Class::Recover(RecoveryLevel::Login)
        }
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
        _ => Class::Recover(RecoveryLevel::Initialize),
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
            Class::Recover(RecoveryLevel::Login)
        );
        assert_eq!(
            class(RvError::DeviceError),
            Class::Recover(RecoveryLevel::Initialize)
        );
        assert_eq!(
            class(RvError::GeneralError),
            Class::Recover(RecoveryLevel::Initialize)
        );
        assert_eq!(
            class(RvError::UnknownErrorCode(77)),
            Class::Recover(RecoveryLevel::Initialize)
        );
        assert_eq!(class(RvError::PinIncorrect), Class::Pin);
    }

    #[test]
    fn the_reason_names_function_and_code() {
        let fault = Fault::from(Error::Pkcs11(RvError::DeviceRemoved, Function::Sign));
        assert_eq!(fault.reason, "C_Sign: DeviceRemoved");
    }
}

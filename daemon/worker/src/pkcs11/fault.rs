//! Maps each `CKR_…` to the recovery level that may help, or to a failure that no recovery helps.
//!
//! The classes come from the codes of real modules, not from the specification alone: without its
//! folder SoftHSM returns `CKR_OBJECT_HANDLE_INVALID`; with the HSM unplugged p11-kit returns
//! `CKR_DEVICE_ERROR`. A code without a line here counts as a failure of the device.

pub(crate) use crate::fault::{Class, Fault};
use cryptoki::error::{Error, RvError};
use hallmark_protocol::RecoveryLevel;

/// Why a write-protected token makes, imports and deletes no key, and what helps.
pub(super) const WRITE_PROTECTED: &str = "the token is write-protected, so its keys sign, and none \
     is made, imported or deleted: remove the protection with the vendor's tool";

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Pkcs11(code @ (RvError::TokenWriteProtected | RvError::SessionReadOnly), it) => {
                Fault::refused(format!("C_{it:?}: {code:?}: {WRITE_PROTECTED}"))
            }
            // `Display` gives a paragraph of the specification, `Debug` the code's name.
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
        | SessionReadOnly
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
    fn codes_of_an_absent_token_start_a_recovery_and_a_wrong_pin_does_not() {
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

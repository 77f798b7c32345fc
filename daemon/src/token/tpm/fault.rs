//! What a TPM's response code means for us.
//!
//! Codes come from layers: the TPM itself, the transport under it, the library above. Only the first
//! are about keys and authorization; the library's own names for codes look at the low bits alone,
//! and would call a broken connection something else.

use crate::token::RecoveryLevel;
pub(super) use crate::token::fault::{Class, Fault};
use tss_esapi::Error;
use tss_esapi::constants::response_code::{Tss2ResponseCode, Tss2ResponseCodeKind};

/// Layers whose codes are the TPM's own: the TPM, and a resource manager that passes them on.
const TPM_LAYERS: [u32; 2] = [0, 12];

/// The TPM's own code, if that is what `error` is.
pub(super) fn tpm_code(error: &Error) -> Option<Tss2ResponseCodeKind> {
    let Error::Tss2Error(code) = error else {
        return None;
    };
    TPM_LAYERS
        .contains(&(raw(*code) >> 16))
        .then(|| code.kind())?
}

/// The code as a number. The library shows it and does not give it.
fn raw(code: Tss2ResponseCode) -> u32 {
    let shown = match code {
        Tss2ResponseCode::Success => return 0,
        Tss2ResponseCode::FormatZero(code) => code.to_string(),
        Tss2ResponseCode::FormatOne(code) => code.to_string(),
    };
    let digits = shown.rsplit_once("0x").map(|(_, digits)| digits);
    // Not understood: then it is no code of the TPM.
    digits
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .unwrap_or(u32::MAX)
}

/// The failure of one command, such as `TPM2_Sign`.
pub(super) fn failed(command: &str) -> impl Fn(Error) -> Fault {
    move |error| Fault {
        class: class_of(&error),
        reason: format!("{command}: {}", told(&error)),
    }
}

fn told(error: &Error) -> String {
    match (tpm_code(error), error) {
        (Some(Tss2ResponseCodeKind::ObjectMemory), _) => {
            "every object slot of the TPM is taken, by other programs: reach it through a resource \
             manager, /dev/tpmrm0 or tpm2-abrmd"
                .to_owned()
        }
        (Some(code), Error::Tss2Error(number)) => format!("{code:?} ({:#x})", raw(*number)),
        (None, Error::Tss2Error(number)) => {
            format!("the TPM is not reached ({:#x})", raw(*number))
        }
        (_, error) => error.to_string(),
    }
}

fn class_of(error: &Error) -> Class {
    use Tss2ResponseCodeKind::*;
    match tpm_code(error) {
        Some(BadAuth | AuthFail) => Class::Pin,
        Some(Asymmetric | Attributes | CommandCode | Curve | Hash | KeySize | Range | Scheme) => {
            Class::Refused
        }
        Some(Size | Symmetric | Type | Value) => Class::Refused,
        Some(NvRate | Retry | Testing | Yielded) => Class::Recover(RecoveryLevel::Session),
        _ => Class::Recover(RecoveryLevel::Initialize),
    }
}

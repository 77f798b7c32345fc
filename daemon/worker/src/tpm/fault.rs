//! Maps a TPM's response codes to what can be done about them.
//!
//! Codes come from several layers: the TPM, the transport below it, the library above it. Only
//! codes of the TPM are about keys and authorization. The library names a code by its low bits
//! alone, and so gives a broken connection a misleading name.

pub(super) use crate::fault::{Class, Fault};
use hallmark_protocol::RecoveryLevel;
use tss_esapi::Error;
use tss_esapi::constants::response_code::{Tss2ResponseCode, Tss2ResponseCodeKind};

/// Layers that report the TPM's own codes: the TPM, and a resource manager that forwards them.
const TPM_LAYERS: [u32; 2] = [0, 12];

/// Returns the TPM's own code; `None` if another layer made the error.
pub(super) fn tpm_code(error: &Error) -> Option<Tss2ResponseCodeKind> {
    let Error::Tss2Error(code) = error else {
        return None;
    };
    TPM_LAYERS
        .contains(&(raw(*code) >> 16))
        .then(|| code.kind())?
}

/// Returns the code as a number, which the library only formats as text.
fn raw(code: Tss2ResponseCode) -> u32 {
    let shown = match code {
        Tss2ResponseCode::Success => return 0,
        Tss2ResponseCode::FormatZero(code) => code.to_string(),
        Tss2ResponseCode::FormatOne(code) => code.to_string(),
    };
    let digits = shown.rsplit_once("0x").map(|(_, digits)| digits);
    // If the text cannot be parsed, the code is treated as one of another layer.
    digits
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .unwrap_or(u32::MAX)
}

/// Returns the fault of one command, such as `TPM2_Sign`.
pub(super) fn failed(command: &str) -> impl Fn(Error) -> Fault {
    move |error| Fault {
        class: class_of(&error),
        reason: format!("{command}: {}", reason_of(&error)),
    }
}

fn reason_of(error: &Error) -> String {
    match (tpm_code(error), error) {
        (Some(Tss2ResponseCodeKind::ObjectMemory), _) => {
            "other programs occupy every object slot of the TPM: reach it through a resource \
             manager, /dev/tpmrm0 or tpm2-abrmd"
                .to_owned()
        }
        (Some(code), Error::Tss2Error(number)) => format!("{code:?} ({:#x})", raw(*number)),
        (None, Error::Tss2Error(number)) => {
            format!("the TPM cannot be reached ({:#x})", raw(*number))
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

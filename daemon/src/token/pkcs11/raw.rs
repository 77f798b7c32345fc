//! The two calls of a module that go past cryptoki, and the only `unsafe` code of the product.
//!
//! `C_GetTokenInfo` is read by ourselves where cryptoki cannot: it fails on the whole of it when the
//! clock of the token is not in its format, as with opencryptoki's, and then the token could not be
//! found. And `C_Initialize` is given the string in `pReserved` without which NSS does not start.
//! Nothing else may be added here that cryptoki can do.
//!
//! A second function table is no second module, except where it is (p11-kit's client): so it is asked
//! only when the first one has answered.

#![allow(unsafe_code, reason = "calls through a C library's function table")]

use super::fault::Fault;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11};
use cryptoki::error::{Error, Rv};
use cryptoki::slot::{Limit, Slot, TokenInfo};
use cryptoki_sys::{
    CK_EFFECTIVELY_INFINITE, CK_FLAGS, CK_FUNCTION_LIST, CK_RV, CK_SLOT_ID, CK_TOKEN_INFO,
    CK_ULONG, CK_UNAVAILABLE_INFORMATION, CK_VERSION, CKF_LOGIN_REQUIRED, CKF_TOKEN_INITIALIZED,
    CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_INITIALIZED, CKF_USER_PIN_LOCKED,
    CKF_USER_PIN_TO_BE_CHANGED, CKF_WRITE_PROTECTED,
};
use std::ffi::CStr;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// What a token says of itself (`CK_TOKEN_INFO`), without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenInformation {
    pub(crate) label: String,
    pub(crate) serial: String,
    pub(crate) manufacturer: String,
    pub(crate) model: String,
    pub(crate) firmware: String,
    flags: CK_FLAGS,
    /// Sessions that this application has open; `None` if the token does not tell.
    pub(crate) sessions: Option<u64>,
    /// The most that it may open; `None` if there is no limit, or none is told.
    pub(crate) sessions_max: Option<u64>,
    /// The shortest and the longest PIN.
    pub(crate) pin_bytes: (u64, u64),
}

impl TokenInformation {
    pub(crate) fn is_initialized(&self) -> bool {
        self.has(CKF_TOKEN_INITIALIZED)
    }

    pub(crate) fn has_pin(&self) -> bool {
        self.has(CKF_USER_PIN_INITIALIZED)
    }

    pub(crate) fn pin_locked(&self) -> bool {
        self.has(CKF_USER_PIN_LOCKED)
    }

    pub(crate) fn pin_final_try(&self) -> bool {
        self.has(CKF_USER_PIN_FINAL_TRY)
    }

    /// The flags that an operator asks for, in words.
    pub(crate) fn remarks(&self) -> Vec<String> {
        [
            (CKF_LOGIN_REQUIRED, "login required"),
            (CKF_WRITE_PROTECTED, "write-protected"),
            (CKF_USER_PIN_INITIALIZED, "PIN set"),
            (CKF_USER_PIN_COUNT_LOW, "wrong PIN tried"),
            (CKF_USER_PIN_FINAL_TRY, "one PIN try left"),
            (CKF_USER_PIN_LOCKED, "PIN locked"),
            (CKF_USER_PIN_TO_BE_CHANGED, "PIN must be changed"),
        ]
        .into_iter()
        .filter(|(flag, _)| self.has(*flag))
        .map(|(_, words)| words.to_owned())
        .collect()
    }

    fn has(&self, flag: CK_FLAGS) -> bool {
        self.flags & flag != 0
    }
}

#[allow(
    clippy::useless_conversion,
    reason = "CK_ULONG has 32 bits on 32-bit machines"
)]
impl From<CK_TOKEN_INFO> for TokenInformation {
    fn from(told: CK_TOKEN_INFO) -> Self {
        TokenInformation {
            label: text(&told.label),
            serial: text(&told.serialNumber),
            manufacturer: text(&told.manufacturerID),
            model: text(&told.model),
            firmware: version(told.firmwareVersion),
            flags: told.flags,
            sessions: known(told.ulSessionCount),
            sessions_max: known(told.ulMaxSessionCount)
                .filter(|most| *most != u64::from(CK_EFFECTIVELY_INFINITE)),
            pin_bytes: (told.ulMinPinLen.into(), told.ulMaxPinLen.into()),
        }
    }
}

/// A field without its padding: blanks, or, against the specification, NULs.
fn text(field: &[u8]) -> String {
    let text = String::from_utf8_lossy(field);
    text.trim_end_matches([' ', '\0']).to_owned()
}

#[allow(
    clippy::useless_conversion,
    reason = "CK_ULONG has 32 bits on 32-bit machines"
)]
/// opencryptoki says "unknown" by the number before `CK_UNAVAILABLE_INFORMATION` too.
fn known(count: CK_ULONG) -> Option<u64> {
    let unknown = [CK_UNAVAILABLE_INFORMATION, CK_UNAVAILABLE_INFORMATION - 1];
    (!unknown.contains(&count)).then(|| count.into())
}

fn version(version: CK_VERSION) -> String {
    format!("{}.{}", version.major, version.minor)
}

impl From<TokenInfo> for TokenInformation {
    fn from(told: TokenInfo) -> Self {
        let trimmed = |field: &str| text(field.as_bytes());
        let flags = [
            (told.token_initialized(), CKF_TOKEN_INITIALIZED),
            (told.login_required(), CKF_LOGIN_REQUIRED),
            (told.write_protected(), CKF_WRITE_PROTECTED),
            (told.user_pin_initialized(), CKF_USER_PIN_INITIALIZED),
            (told.user_pin_count_low(), CKF_USER_PIN_COUNT_LOW),
            (told.user_pin_final_try(), CKF_USER_PIN_FINAL_TRY),
            (told.user_pin_locked(), CKF_USER_PIN_LOCKED),
            (told.user_pin_to_be_changed(), CKF_USER_PIN_TO_BE_CHANGED),
        ];
        TokenInformation {
            label: trimmed(told.label()),
            serial: trimmed(told.serial_number()),
            manufacturer: trimmed(told.manufacturer_id()),
            model: trimmed(told.model()),
            firmware: told.firmware_version().to_string(),
            flags: flags
                .into_iter()
                .filter_map(|(is_set, flag)| is_set.then_some(flag))
                .fold(0, |flags, flag| flags | flag),
            sessions: told.session_count(),
            sessions_max: match told.max_session_count() {
                Limit::Max(most) => Some(most),
                Limit::Unavailable | Limit::Infinite => None,
            },
            pin_bytes: (told.min_pin_length() as u64, told.max_pin_length() as u64),
        }
    }
}

type GetTokenInfo = unsafe extern "C" fn(CK_SLOT_ID, *mut CK_TOKEN_INFO) -> CK_RV;

/// Asks slots for their tokens. Clones share the library.
#[derive(Clone)]
pub(crate) struct TokenReader {
    context: Pkcs11,
    get_token_info: GetTokenInfo,
    /// The function above is in it.
    _library: Arc<cryptoki_sys::Pkcs11>,
}

impl TokenReader {
    /// A reader of the module at `path`, which is `context`.
    pub(crate) fn new(path: &Path, context: &Pkcs11) -> Result<Self, Fault> {
        let unusable = |what: &str| Fault::device(format!("{}: {what}", path.display()));
        // SAFETY: the library's constructors have run already, as cryptoki has loaded the same file;
        // this only counts one user more of it.
        let library = unsafe { cryptoki_sys::Pkcs11::new(path) }
            .map_err(|error| unusable(&error.to_string()))?;
        if library.C_GetFunctionList.is_err() {
            return Err(unusable("it has no C_GetFunctionList"));
        }
        let mut list: *mut CK_FUNCTION_LIST = ptr::null_mut();
        // SAFETY: the function exists (above), and writes one pointer (PKCS#11 3.0, section 5.4.5).
        let code = unsafe { library.C_GetFunctionList(&mut list) };
        Rv::from(code).into_result(Function::GetFunctionList)?;
        // SAFETY: after CKR_OK the pointer is to a table that lives as long as the library, or null,
        // which `as_ref` tells.
        let table = unsafe { list.as_ref() };
        let get_token_info = table
            .and_then(|table| table.C_GetTokenInfo)
            .ok_or_else(|| unusable("it has no C_GetTokenInfo"))?;
        Ok(TokenReader {
            context: context.clone(),
            get_token_info,
            _library: Arc::new(library),
        })
    }

    /// What the token in `slot` says of itself now.
    pub(crate) fn information(&self, slot: Slot) -> Result<TokenInformation, Error> {
        match self.context.get_token_info(slot) {
            Ok(told) => Ok(told.into()),
            Err(error @ Error::Pkcs11(..)) => Err(error),
            // The token has answered, and cryptoki does not understand it.
            Err(_) => self.own_reading(slot),
        }
    }

    fn own_reading(&self, slot: Slot) -> Result<TokenInformation, Error> {
        let mut told = CK_TOKEN_INFO::default();
        let id = slot.id() as CK_SLOT_ID;
        // SAFETY: `told` is a CK_TOKEN_INFO that outlives the call, and the function is of a library
        // that `self` keeps loaded.
        let code = unsafe { (self.get_token_info)(id, &mut told) };
        Rv::from(code).into_result(Function::GetTokenInfo)?;
        Ok(told.into())
    }
}

/// `C_Initialize`, with `reserved` as `pReserved` where the family wants one.
pub(crate) fn initialize(context: &Pkcs11, reserved: Option<&CStr>) -> Result<(), Error> {
    let flags = CInitializeFlags::OS_LOCKING_OK;
    let arguments = match reserved {
        None => CInitializeArgs::new(flags),
        Some(reserved) => {
            let pointer = NonNull::from(reserved).cast();
            // SAFETY: families that take an argument take a NUL-terminated string, which they only
            // read, during the call; `reserved` outlives it.
            unsafe { CInitializeArgs::new_with_reserved(flags, pointer) }
        }
    };
    context.initialize(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_dropped_and_unknown_counts_are_none() {
        let mut told = CK_TOKEN_INFO::default();
        told.label[..3].copy_from_slice(b"key");
        told.serialNumber = *b"123             ";
        told.flags = CKF_TOKEN_INITIALIZED | CKF_USER_PIN_LOCKED;
        told.ulMaxSessionCount = CK_EFFECTIVELY_INFINITE;
        told.ulSessionCount = CK_UNAVAILABLE_INFORMATION;
        let information = TokenInformation::from(told);
        assert_eq!(
            (information.label, information.serial),
            ("key".into(), "123".into())
        );
        assert_eq!(
            (information.sessions, information.sessions_max),
            (None, None)
        );
    }

    #[test]
    fn text_that_is_none_is_no_panic() {
        assert_eq!(text(&[0xff, b'a', 0, 0]), "\u{fffd}a");
    }
}

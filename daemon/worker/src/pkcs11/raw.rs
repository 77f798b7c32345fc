//! Makes the three calls that cryptoki cannot make, with the only `unsafe` code of the product.
//!
//! cryptoki fails on the answer of `C_GetTokenInfo` if the clock of the token is not in its format,
//! as with opencryptoki; the token could not be found then, so this module reads the answer itself.
//! It passes `C_Initialize` the string in `pReserved` without which NSS does not start. And it
//! calls `C_Sign` after a login, for which cryptoki leaves no room after `C_SignInit`. A call that
//! cryptoki can make must not be added here.
//!
//! A second function table belongs to the same module, except with p11-kit's client. So the second
//! table is used only after the first one has answered.

#![allow(unsafe_code, reason = "calls through a C library's function table")]

use super::fault::Fault;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11};
use cryptoki::error::{Error, Rv};
use cryptoki::session::Session;
use cryptoki::slot::{Limit, Slot, TokenInfo};
use cryptoki_sys::{
    CK_BYTE, CK_EFFECTIVELY_INFINITE, CK_FLAGS, CK_FUNCTION_LIST, CK_RV, CK_SESSION_HANDLE,
    CK_SLOT_ID, CK_TOKEN_INFO, CK_ULONG, CK_UNAVAILABLE_INFORMATION, CK_VERSION,
    CKF_LOGIN_REQUIRED, CKF_TOKEN_INITIALIZED, CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY,
    CKF_USER_PIN_INITIALIZED, CKF_USER_PIN_LOCKED, CKF_USER_PIN_TO_BE_CHANGED, CKF_WRITE_PROTECTED,
};
use hallmark_protocol::inventory::remark;
use std::ffi::CStr;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// The content of `CK_TOKEN_INFO`, without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenInformation {
    pub(crate) label: String,
    pub(crate) serial: String,
    pub(crate) manufacturer: String,
    pub(crate) model: String,
    pub(crate) firmware: String,
    flags: CK_FLAGS,
    /// Sessions that this application has open; `None` if the token does not report it.
    pub(crate) sessions: Option<u64>,
    /// Most sessions that it may open; `None` if there is no limit, or none is reported.
    pub(crate) sessions_max: Option<u64>,
    /// Lengths of the shortest and the longest PIN.
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

    pub(crate) fn is_write_protected(&self) -> bool {
        self.has(CKF_WRITE_PROTECTED)
    }

    /// Returns the flags that matter to an operator, in words.
    pub(crate) fn remarks(&self) -> Vec<String> {
        [
            (CKF_LOGIN_REQUIRED, "login required"),
            (CKF_WRITE_PROTECTED, "write-protected"),
            (CKF_USER_PIN_INITIALIZED, "PIN set"),
            (CKF_USER_PIN_COUNT_LOW, remark::WRONG_PIN_TRIED),
            (CKF_USER_PIN_FINAL_TRY, remark::PIN_LAST_TRY),
            (CKF_USER_PIN_LOCKED, remark::PIN_LOCKED),
            (CKF_USER_PIN_TO_BE_CHANGED, remark::PIN_MUST_CHANGE),
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
    fn from(read: CK_TOKEN_INFO) -> Self {
        TokenInformation {
            label: text(&read.label),
            serial: text(&read.serialNumber),
            manufacturer: text(&read.manufacturerID),
            model: text(&read.model),
            firmware: version(read.firmwareVersion),
            flags: read.flags,
            sessions: known(read.ulSessionCount),
            sessions_max: known(read.ulMaxSessionCount)
                .filter(|most| *most != u64::from(CK_EFFECTIVELY_INFINITE)),
            pin_bytes: (read.ulMinPinLen.into(), read.ulMaxPinLen.into()),
        }
    }
}

/// Returns a field without its padding: blanks, or, contrary to the specification, NULs.
fn text(field: &[u8]) -> String {
    let text = String::from_utf8_lossy(field);
    text.trim_end_matches([' ', '\0']).to_owned()
}

#[allow(
    clippy::useless_conversion,
    reason = "CK_ULONG has 32 bits on 32-bit machines"
)]
/// Returns `None` for "unknown", which opencryptoki also expresses by the number before
/// `CK_UNAVAILABLE_INFORMATION`.
fn known(count: CK_ULONG) -> Option<u64> {
    let unknown = [CK_UNAVAILABLE_INFORMATION, CK_UNAVAILABLE_INFORMATION - 1];
    (!unknown.contains(&count)).then(|| count.into())
}

fn version(version: CK_VERSION) -> String {
    format!("{}.{}", version.major, version.minor)
}

impl From<TokenInfo> for TokenInformation {
    fn from(read: TokenInfo) -> Self {
        let trimmed = |field: &str| text(field.as_bytes());
        let flags = [
            (read.token_initialized(), CKF_TOKEN_INITIALIZED),
            (read.login_required(), CKF_LOGIN_REQUIRED),
            (read.write_protected(), CKF_WRITE_PROTECTED),
            (read.user_pin_initialized(), CKF_USER_PIN_INITIALIZED),
            (read.user_pin_count_low(), CKF_USER_PIN_COUNT_LOW),
            (read.user_pin_final_try(), CKF_USER_PIN_FINAL_TRY),
            (read.user_pin_locked(), CKF_USER_PIN_LOCKED),
            (read.user_pin_to_be_changed(), CKF_USER_PIN_TO_BE_CHANGED),
        ];
        TokenInformation {
            label: trimmed(read.label()),
            serial: trimmed(read.serial_number()),
            manufacturer: trimmed(read.manufacturer_id()),
            model: trimmed(read.model()),
            firmware: read.firmware_version().to_string(),
            flags: flags
                .into_iter()
                .filter_map(|(is_set, flag)| is_set.then_some(flag))
                .fold(0, |flags, flag| flags | flag),
            sessions: read.session_count(),
            sessions_max: match read.max_session_count() {
                Limit::Max(most) => Some(most),
                Limit::Unavailable | Limit::Infinite => None,
            },
            pin_bytes: (read.min_pin_length() as u64, read.max_pin_length() as u64),
        }
    }
}

type GetTokenInfo = unsafe extern "C" fn(CK_SLOT_ID, *mut CK_TOKEN_INFO) -> CK_RV;

type Sign = unsafe extern "C" fn(
    CK_SESSION_HANDLE,
    *mut CK_BYTE,
    CK_ULONG,
    *mut CK_BYTE,
    *mut CK_ULONG,
) -> CK_RV;

/// Longest signature, that of an RSA key of 8,192 bits.
const SIGNATURE_BYTES_MAX: usize = 1024;

/// Reads the information about tokens in slots, and signs after a login. Clones share the library.
#[derive(Clone)]
pub(crate) struct TokenReader {
    context: Pkcs11,
    get_token_info: GetTokenInfo,
    /// `None` if the module has no `C_Sign`.
    sign: Option<Sign>,
    /// Contains the functions above.
    _library: Arc<cryptoki_sys::Pkcs11>,
}

impl TokenReader {
    /// Makes a reader of the module at `path`, which `context` has loaded.
    pub(crate) fn new(path: &Path, context: &Pkcs11) -> Result<Self, Fault> {
        let unusable = |what: &str| Fault::device(format!("{}: {what}", path.display()));
        // SAFETY: the library's constructors have run already, as cryptoki has loaded the same
        // file; this call only increments its reference count.
        let library = unsafe { cryptoki_sys::Pkcs11::new(path) }
            .map_err(|error| unusable(&error.to_string()))?;
        if library.C_GetFunctionList.is_err() {
            return Err(unusable("it has no C_GetFunctionList"));
        }
        let mut list: *mut CK_FUNCTION_LIST = ptr::null_mut();
        // SAFETY: the function exists (above), and writes one pointer (PKCS#11 3.0, section 5.4.5).
        let code = unsafe { library.C_GetFunctionList(&mut list) };
        Rv::from(code).into_result(Function::GetFunctionList)?;
        // SAFETY: after CKR_OK the pointer is null, for which `as_ref` returns `None`, or points to
        // a table that is valid until the library is unloaded.
        let table = unsafe { list.as_ref() };
        let get_token_info = table
            .and_then(|table| table.C_GetTokenInfo)
            .ok_or_else(|| unusable("it has no C_GetTokenInfo"))?;
        Ok(TokenReader {
            context: context.clone(),
            get_token_info,
            sign: table.and_then(|table| table.C_Sign),
            _library: Arc::new(library),
        })
    }

    /// Signs `data` with the operation that [`Session::sign_init`] has begun on `session`.
    pub(crate) fn sign_begun(&self, session: &Session, data: &[u8]) -> Result<Vec<u8>, Error> {
        let sign = self.sign.ok_or(Error::NullFunctionPointer)?;
        let mut signature = vec![0; SIGNATURE_BYTES_MAX];
        let mut length = SIGNATURE_BYTES_MAX as CK_ULONG;
        // The specification takes the data through a pointer to mutable bytes.
        let mut data = data.to_vec();
        // SAFETY: the pointers are valid for the given lengths, which bound what the module reads
        // and writes, and `self` keeps the library of the function loaded.
        let code = unsafe {
            sign(
                session.handle(),
                data.as_mut_ptr(),
                data.len() as CK_ULONG,
                signature.as_mut_ptr(),
                &mut length,
            )
        };
        Rv::from(code).into_result(Function::Sign)?;
        signature.truncate(length as usize);
        Ok(signature)
    }

    /// Reads the current information about the token in `slot`.
    pub(crate) fn information(&self, slot: Slot) -> Result<TokenInformation, Error> {
        match self.context.get_token_info(slot) {
            Ok(read) => Ok(read.into()),
            Err(error @ Error::Pkcs11(..)) => Err(error),
            // The token has answered, and cryptoki cannot parse the answer.
            Err(_) => self.own_reading(slot),
        }
    }

    fn own_reading(&self, slot: Slot) -> Result<TokenInformation, Error> {
        let mut read = CK_TOKEN_INFO::default();
        let id = slot.id() as CK_SLOT_ID;
        // SAFETY: `read` is a CK_TOKEN_INFO that outlives the call, and `self` keeps the library of
        // the function loaded.
        let code = unsafe { (self.get_token_info)(id, &mut read) };
        Rv::from(code).into_result(Function::GetTokenInfo)?;
        Ok(read.into())
    }
}

/// Calls `C_Initialize`, with `reserved` as `pReserved` if the family needs one.
pub(crate) fn initialize(context: &Pkcs11, reserved: Option<&CStr>) -> Result<(), Error> {
    let flags = CInitializeFlags::OS_LOCKING_OK;
    let arguments = match reserved {
        None => CInitializeArgs::new(flags),
        Some(reserved) => {
            let pointer = NonNull::from(reserved).cast();
            // SAFETY: the families that need an argument expect a NUL-terminated string, and only
            // read it during the call; `reserved` outlives the call.
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
        let mut read = CK_TOKEN_INFO::default();
        read.label[..3].copy_from_slice(b"key");
        read.serialNumber = *b"123             ";
        read.flags = CKF_TOKEN_INITIALIZED | CKF_USER_PIN_LOCKED;
        read.ulMaxSessionCount = CK_EFFECTIVELY_INFINITE;
        read.ulSessionCount = CK_UNAVAILABLE_INFORMATION;
        let information = TokenInformation::from(read);
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
    fn invalid_utf_8_does_not_panic() {
        assert_eq!(text(&[0xff, b'a', 0, 0]), "\u{fffd}a");
    }
}

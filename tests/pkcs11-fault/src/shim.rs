//! Defines the table of functions: each reads the plan, and then calls the wrapped module's
//! function.

#![allow(non_snake_case)] // PKCS#11 names them

use crate::plan::{Action, Fault, Half, Plan, parse};
use cryptoki_sys::*;
use std::collections::HashMap;
use std::ffi::{CString, OsString, c_void};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

/// Defines a function for each function of the wrapped module, and writes them into the table.
macro_rules! wrap {
    ($($function:ident($first:ident: $first_type:ty $(, $more:ident: $type:ty)*);)*) => {
        $(
            unsafe extern "C" fn $function($first: $first_type $(, $more: $type)*) -> CK_RV {
                let next = before(stringify!($function), $first as usize);
                if let Next::Answer(code) = next {
                    return code;
                }
                let code = match wrapped().functions.$function {
                    // SAFETY: the arguments are the caller's, and the same contract holds for them.
                    Some(function) => unsafe { function($first $(, $more)*) },
                    None => CKR_FUNCTION_NOT_SUPPORTED,
                };
                if let Next::CallAndCrash = next {
                    std::process::abort();
                }
                code
            }
        )*

        /// The wrapped module's table with every function replaced by ours.
        fn table(wrapped: &CK_FUNCTION_LIST) -> CK_FUNCTION_LIST {
            let mut table = *wrapped;
            table.C_GetFunctionList = Some(C_GetFunctionList);
            $(table.$function = Some($function);)*
            table.C_GenerateKeyPair = Some(C_GenerateKeyPair);
            table.C_OpenSession = Some(C_OpenSession);
            table.C_GetTokenInfo = Some(C_GetTokenInfo);
            table
        }
    };
}

wrap! {
    C_Initialize(a: *mut c_void);
    C_Finalize(a: *mut c_void);
    C_GetInfo(a: *mut CK_INFO);
    C_GetSlotList(a: CK_BBOOL, b: *mut CK_SLOT_ID, c: *mut CK_ULONG);
    C_GetSlotInfo(a: CK_SLOT_ID, b: *mut CK_SLOT_INFO);
    C_GetMechanismList(a: CK_SLOT_ID, b: *mut CK_MECHANISM_TYPE, c: *mut CK_ULONG);
    C_GetMechanismInfo(a: CK_SLOT_ID, b: CK_MECHANISM_TYPE, c: *mut CK_MECHANISM_INFO);
    C_InitToken(a: CK_SLOT_ID, b: *mut CK_UTF8CHAR, c: CK_ULONG, d: *mut CK_UTF8CHAR);
    C_InitPIN(a: CK_SESSION_HANDLE, b: *mut CK_UTF8CHAR, c: CK_ULONG);
    C_SetPIN(
        a: CK_SESSION_HANDLE, b: *mut CK_UTF8CHAR, c: CK_ULONG, d: *mut CK_UTF8CHAR, e: CK_ULONG
    );
    C_CloseSession(a: CK_SESSION_HANDLE);
    C_CloseAllSessions(a: CK_SLOT_ID);
    C_GetSessionInfo(a: CK_SESSION_HANDLE, b: *mut CK_SESSION_INFO);
    C_GetOperationState(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: *mut CK_ULONG);
    C_SetOperationState(
        a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: CK_OBJECT_HANDLE, e: CK_OBJECT_HANDLE
    );
    C_Login(a: CK_SESSION_HANDLE, b: CK_USER_TYPE, c: *mut CK_UTF8CHAR, d: CK_ULONG);
    C_Logout(a: CK_SESSION_HANDLE);
    C_CreateObject(
        a: CK_SESSION_HANDLE, b: *mut CK_ATTRIBUTE, c: CK_ULONG, d: *mut CK_OBJECT_HANDLE
    );
    C_CopyObject(
        a: CK_SESSION_HANDLE, b: CK_OBJECT_HANDLE, c: *mut CK_ATTRIBUTE, d: CK_ULONG,
        e: *mut CK_OBJECT_HANDLE
    );
    C_DestroyObject(a: CK_SESSION_HANDLE, b: CK_OBJECT_HANDLE);
    C_GetObjectSize(a: CK_SESSION_HANDLE, b: CK_OBJECT_HANDLE, c: *mut CK_ULONG);
    C_GetAttributeValue(
        a: CK_SESSION_HANDLE, b: CK_OBJECT_HANDLE, c: *mut CK_ATTRIBUTE, d: CK_ULONG
    );
    C_SetAttributeValue(
        a: CK_SESSION_HANDLE, b: CK_OBJECT_HANDLE, c: *mut CK_ATTRIBUTE, d: CK_ULONG
    );
    C_FindObjectsInit(a: CK_SESSION_HANDLE, b: *mut CK_ATTRIBUTE, c: CK_ULONG);
    C_FindObjects(a: CK_SESSION_HANDLE, b: *mut CK_OBJECT_HANDLE, c: CK_ULONG, d: *mut CK_ULONG);
    C_FindObjectsFinal(a: CK_SESSION_HANDLE);
    C_EncryptInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    C_Encrypt(
        a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG
    );
    C_EncryptUpdate(
        a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG
    );
    C_EncryptFinal(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: *mut CK_ULONG);
    C_DecryptInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    C_Decrypt(
        a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG
    );
    C_DecryptUpdate(
        a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG
    );
    C_DecryptFinal(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: *mut CK_ULONG);
    C_DigestInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM);
    C_Digest(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG);
    C_DigestUpdate(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG);
    C_DigestKey(a: CK_SESSION_HANDLE, b: CK_OBJECT_HANDLE);
    C_DigestFinal(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: *mut CK_ULONG);
    C_SignInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    C_Sign(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG);
    C_SignUpdate(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG);
    C_SignFinal(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: *mut CK_ULONG);
    C_SignRecoverInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    C_SignRecover(
        a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG
    );
    C_VerifyInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    C_Verify(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: CK_ULONG);
    C_VerifyUpdate(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG);
    C_VerifyFinal(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG);
    C_VerifyRecoverInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    C_VerifyRecover(
        a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG
    );
    C_DigestEncryptUpdate(
        a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG
    );
    C_DecryptDigestUpdate(
        a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG
    );
    C_SignEncryptUpdate(
        a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG
    );
    C_DecryptVerifyUpdate(
        a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG
    );
    C_GenerateKey(
        a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: *mut CK_ATTRIBUTE, d: CK_ULONG,
        e: *mut CK_OBJECT_HANDLE
    );
    C_WrapKey(
        a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE, d: CK_OBJECT_HANDLE,
        e: *mut CK_BYTE, f: *mut CK_ULONG
    );
    C_UnwrapKey(
        a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE, d: *mut CK_BYTE,
        e: CK_ULONG, f: *mut CK_ATTRIBUTE, g: CK_ULONG, h: *mut CK_OBJECT_HANDLE
    );
    C_DeriveKey(
        a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE, d: *mut CK_ATTRIBUTE,
        e: CK_ULONG, f: *mut CK_OBJECT_HANDLE
    );
    C_SeedRandom(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG);
    C_GenerateRandom(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG);
    C_GetFunctionStatus(a: CK_SESSION_HANDLE);
    C_CancelFunction(a: CK_SESSION_HANDLE);
    C_WaitForSlotEvent(a: CK_FLAGS, b: *mut CK_SLOT_ID, c: *mut c_void);
}

/// Reads the information about a token. The plan may add the flag of a write-protected one.
unsafe extern "C" fn C_GetTokenInfo(slot: CK_SLOT_ID, information: *mut CK_TOKEN_INFO) -> CK_RV {
    let next = before("C_GetTokenInfo", slot as usize);
    if let Next::Answer(code) = next {
        return code;
    }
    let Some(read) = wrapped().functions.C_GetTokenInfo else {
        return CKR_FUNCTION_NOT_SUPPORTED;
    };
    // SAFETY: the arguments are the caller's, and the same contract holds for them.
    let code = unsafe { read(slot, information) };
    match next {
        Next::CallAndCrash => std::process::abort(),
        // SAFETY: the module has written the information, since the result is CKR_OK.
        Next::CallReadOnly if code == CKR_OK => unsafe {
            (*information).flags |= CKF_WRITE_PROTECTED;
        },
        _ => {}
    }
    code
}

/// Opens a session. The plan may refuse read-write sessions.
unsafe extern "C" fn C_OpenSession(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    application: *mut c_void,
    notify: CK_NOTIFY,
    session: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    let next = before("C_OpenSession", slot as usize);
    match next {
        Next::Answer(code) => return code,
        Next::CallReadOnly if flags & CKF_RW_SESSION != 0 => return CKR_TOKEN_WRITE_PROTECTED,
        _ => {}
    }
    let Some(open) = wrapped().functions.C_OpenSession else {
        return CKR_FUNCTION_NOT_SUPPORTED;
    };
    // SAFETY: the arguments are the caller's, and the same contract holds for them.
    let code = unsafe { open(slot, flags, application, notify, session) };
    if let Next::CallAndCrash = next {
        std::process::abort();
    }
    code
}

/// Makes a key pair. The plan may leave only half of it, or add an attribute.
#[allow(clippy::too_many_arguments, reason = "PKCS#11 has them")]
unsafe extern "C" fn C_GenerateKeyPair(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    public_template: *mut CK_ATTRIBUTE,
    public_count: CK_ULONG,
    private_template: *mut CK_ATTRIBUTE,
    private_count: CK_ULONG,
    public: *mut CK_OBJECT_HANDLE,
    private: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    let next = before("C_GenerateKeyPair", session as usize);
    if let Next::Answer(code) = next {
        return code;
    }
    let Some(generate) = wrapped().functions.C_GenerateKeyPair else {
        return CKR_FUNCTION_NOT_SUPPORTED;
    };
    let mut own = match next {
        // SAFETY: the caller passes so many attributes.
        Next::CallWithLogin => unsafe { with_login(private_template, private_count) },
        _ => Vec::new(),
    };
    let (private_template, private_count) = match own.len() {
        0 => (private_template, private_count),
        count => (own.as_mut_ptr(), count as CK_ULONG),
    };
    // SAFETY: the arguments are the caller's or valid copies, and the same contract holds for them.
    let code = unsafe {
        generate(
            session,
            mechanism,
            public_template,
            public_count,
            private_template,
            private_count,
            public,
            private,
        )
    };
    match next {
        Next::CallAndCrash => std::process::abort(),
        Next::CallAndKeep(half) => {
            let gone = match half {
                Half::Public => private,
                Half::Private => public,
            };
            // SAFETY: both handles were written, since the result is CKR_OK.
            let gone = (code == CKR_OK).then(|| unsafe { *gone });
            delete(
                session,
                gone.unwrap_or_else(|| fatal("no key pair was made")),
            );
            std::process::abort()
        }
        Next::Call | Next::CallReadOnly | Next::CallWithLogin | Next::Answer(_) => code,
    }
}

/// Copies a template, and adds `CKA_ALWAYS_AUTHENTICATE`.
///
/// # Safety
///
/// `template` points to `count` attributes.
unsafe fn with_login(template: *mut CK_ATTRIBUTE, count: CK_ULONG) -> Vec<CK_ATTRIBUTE> {
    static TRUE: CK_BBOOL = CK_TRUE;
    // SAFETY: the caller guarantees it.
    let own = unsafe { std::slice::from_raw_parts(template, count as usize) };
    let login = CK_ATTRIBUTE {
        type_: CKA_ALWAYS_AUTHENTICATE,
        pValue: std::ptr::from_ref(&TRUE).cast_mut().cast(),
        ulValueLen: 1,
    };
    own.iter().copied().chain([login]).collect()
}

fn delete(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE) {
    let Some(destroy) = wrapped().functions.C_DestroyObject else {
        fatal("the module deletes nothing");
    };
    // SAFETY: any number may be passed as a handle; a wrong one is refused.
    let code = unsafe { destroy(session, object) };
    if code != CKR_OK {
        fatal(&format!("half a key pair cannot be deleted: {code:#x}"));
    }
}

/// Returns the table of functions, the first call to a PKCS#11 module.
///
/// # Safety
///
/// `list` is null or a place to which a pointer may be written, as PKCS#11 requires.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    // SAFETY: the place is not null, and is the caller's. The table is not changed after it was
    // made.
    unsafe { *list = std::ptr::from_ref(&wrapped().table).cast_mut() };
    CKR_OK
}

struct Wrapped {
    _library: Pkcs11,
    functions: CK_FUNCTION_LIST,
    table: CK_FUNCTION_LIST,
}

// SAFETY: the version and function pointers are only read.
unsafe impl Sync for Wrapped {}
// SAFETY: as above.
unsafe impl Send for Wrapped {}

fn wrapped() -> &'static Wrapped {
    static WRAPPED: OnceLock<Wrapped> = OnceLock::new();
    WRAPPED.get_or_init(|| {
        let path = variable("PKCS11_FAULT_MODULE");
        // SAFETY: loading a library runs its constructors; the test has named this library.
        let library = unsafe { Pkcs11::new(&path) }
            .unwrap_or_else(|error| fatal(&format!("cannot load {}: {error}", path.display())));
        let mut list = std::ptr::null_mut();
        // SAFETY: the place for the pointer is valid.
        let code = unsafe { library.C_GetFunctionList(&mut list) };
        if code != CKR_OK || list.is_null() {
            fatal(&format!(
                "C_GetFunctionList of {}: {code:#x}",
                path.display()
            ));
        }
        // SAFETY: the result is CKR_OK, so the list exists, and it is valid until the library is
        // unloaded.
        let functions = unsafe { *list };
        Wrapped {
            _library: library,
            functions,
            table: table(&functions),
        }
    })
}

/// The faults of the plan, and the calls of each function since the plan changed.
#[derive(Default)]
struct Standing {
    /// Inode and time of change of the file that was read.
    content: Option<(u64, i64, i64)>,
    faults: Vec<Fault>,
    counts: HashMap<&'static str, u64>,
}

/// How a call continues.
#[derive(Clone, Copy)]
enum Next {
    /// Returns this code without the call.
    Answer(CK_RV),
    /// Calls the wrapped module.
    Call,
    /// Calls the wrapped module, then aborts the process.
    CallAndCrash,
    /// Calls the wrapped module for a read-only session alone, or adds the flag.
    CallReadOnly,
    /// Calls the wrapped module for keys that need a login for each signature.
    CallWithLogin,
    /// Calls the wrapped module, deletes the other half of the key pair, then aborts the process.
    CallAndKeep(Half),
}

/// Injects the fault that the plan has for this call.
///
/// `first` is the call's first argument: the session, if it has one.
fn before(function: &'static str, first: usize) -> Next {
    if function == "C_Initialize" {
        give_argument(first as *mut CK_C_INITIALIZE_ARGS);
    }
    let Some(action) = due(function) else {
        return Next::Call;
    };
    match action {
        Action::Return(code) => return Next::Answer(code as CK_RV),
        Action::CrashAfter => return Next::CallAndCrash,
        Action::Keep(half) if function == "C_GenerateKeyPair" => return Next::CallAndKeep(half),
        Action::AlwaysAuthenticate if function == "C_GenerateKeyPair" => {
            return Next::CallWithLogin;
        }
        Action::Keep(_) | Action::AlwaysAuthenticate => {
            fatal(&format!("{function} makes no key pair"))
        }
        Action::WriteProtect if ["C_OpenSession", "C_GetTokenInfo"].contains(&function) => {
            return Next::CallReadOnly;
        }
        Action::WriteProtect => fatal(&format!("{function} shows no write protection")),
        Action::Delay(milliseconds) => thread::sleep(Duration::from_millis(milliseconds)),
        Action::Hang => loop {
            thread::park();
        },
        Action::Crash => std::process::abort(),
        Action::CloseSession => {
            if let Some(close) = wrapped().functions.C_CloseSession {
                // SAFETY: any number may be passed as a session; a wrong one is refused.
                unsafe { close(first as CK_SESSION_HANDLE) };
            }
        }
        Action::Logout => {
            if let Some(logout) = wrapped().functions.C_Logout {
                // SAFETY: as above.
                unsafe { logout(first as CK_SESSION_HANDLE) };
            }
        }
    }
    Next::Call
}

/// Sets the argument of the wrapped module.
fn give_argument(arguments: *mut CK_C_INITIALIZE_ARGS) {
    static ARGUMENT: OnceLock<Option<CString>> = OnceLock::new();
    let argument = ARGUMENT.get_or_init(|| {
        let text = std::env::var("PKCS11_FAULT_INITIALIZE_ARGUMENT").ok()?;
        CString::new(text).ok()
    });
    if let Some(argument) = argument
        && !arguments.is_null()
    {
        // SAFETY: the arguments are the caller's, and not null; the text is valid until the process
        // ends.
        unsafe { (*arguments).pReserved = argument.as_ptr().cast_mut().cast() };
    }
}

/// Counts this call, and returns the fault that applies to it.
fn due(function: &'static str) -> Option<Action> {
    static STANDING: Mutex<Option<Standing>> = Mutex::new(None);
    let plan = Plan::new(variable("PKCS11_FAULT_PLAN"));
    let content = fs::metadata(plan.path())
        .map(|file| (file.ino(), file.ctime(), file.ctime_nsec()))
        .ok();
    let mut standing = STANDING.lock().unwrap_or_else(|_| fatal("a call panicked"));
    let standing = standing.get_or_insert_default();
    if standing.content != content {
        let text = fs::read_to_string(plan.path()).unwrap_or_default();
        *standing = Standing {
            content,
            faults: parse(&text).unwrap_or_else(|error| fatal(&error)),
            counts: HashMap::new(),
        };
    }
    let count = standing.counts.entry(function).or_default();
    *count += 1;
    let fault = standing
        .faults
        .iter()
        .find(|fault| fault.comes(function, *count))?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(plan.log());
    if let Err(error) = log.and_then(|mut log| writeln!(log, "{fault}")) {
        fatal(&format!("cannot write {}: {error}", plan.log().display()));
    }
    Some(fault.action)
}

fn variable(name: &str) -> std::path::PathBuf {
    let value: Option<OsString> = std::env::var_os(name);
    value
        .unwrap_or_else(|| fatal(&format!("${name} is not set")))
        .into()
}

/// Aborts the process: a panic must not unwind into C, and a test must not continue without its
/// faults.
fn fatal(reason: &str) -> ! {
    let _ = writeln!(std::io::stderr(), "pkcs11-fault: {reason}");
    std::process::abort()
}

//! A PKCS#11 module that is another one with faults: any return code at the nth call of any
//! function, delays, calls that never return, crashes, and sessions that are closed or logged out
//! behind the caller's back.
//!
//! `PKCS11_FAULT_MODULE` names the module to wrap and `PKCS11_FAULT_PLAN` the file that says what
//! shall fail ([`plan`]). The file may change at any time: it is looked at before every call. What
//! was done is appended to the file `PLAN.log`, so that a test can tell a fault that was survived
//! from one that never came.
//!
//! `PKCS11_FAULT_INITIALIZE_ARGUMENT` is what `C_Initialize` is given as `pReserved`, for a module
//! that wants an argument there.
//!
//! MUST never be shipped, and shares no code with the daemon.

pub mod codes;
pub mod plan;
mod shim;

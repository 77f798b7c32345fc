//! Wraps a PKCS#11 module and injects faults: any return code at the nth call of any function,
//! delays, calls that never return, crashes, and sessions that are closed or logged out
//! unexpectedly.
//!
//! `PKCS11_FAULT_MODULE` names the module to wrap, and `PKCS11_FAULT_PLAN` the file that lists the
//! faults ([`plan`]). The file may change at any time: it is read before every call. Injected
//! faults are appended to the file `PLAN.log`, so that a test can distinguish a fault that was
//! survived from one that was never injected.
//!
//! `PKCS11_FAULT_INITIALIZE_ARGUMENT` is passed to `C_Initialize` as `pReserved`, for a module that
//! needs an argument there.
//!
//! This module MUST never be shipped. It shares no code with the daemon.

pub mod codes;
pub mod plan;
mod shim;

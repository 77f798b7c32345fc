//! Runs `hallmark-token`, the worker of one token: the only program that loads a token's library.
//!
//! | module | what it does |
//! |---|---|
//! | `program` | runs the commands of `hallmark-token` |
//! | `process` | runs the worker: connections, queue, signers, recovery, watchdogs |
//! | `pin` | reads the PIN, and never tries a refused one twice |
//! | `backend`, `fault`, `encoding` | defines what every backend does, its failures, its DER |
//! | `wall` | decides what the keys sign, counts it, and records it |
//! | `pkcs11` | uses a token through its PKCS#11 module |
//! | `tpm` | uses a TPM 2.0 through tpm2-tss |
//! | `initialize`, `listing` | makes a new token; lists the tokens of a module |
//!
//! Backends perform the operations of `hallmark_protocol`. They know neither its messages nor
//! `process`. The database, HTTP and the daemon are unknown to this crate.

mod backend;
mod encoding;
mod fault;
mod initialize;
mod listing;
#[cfg(any(test, debug_assertions))]
pub mod memory;
mod pin;
mod pkcs11;
mod process;
mod program;
mod tpm;
mod wall;

#[cfg(any(test, debug_assertions))]
pub use process::in_memory;
pub use program::main;

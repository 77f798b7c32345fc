//! Tests real PKCS#11 modules against the contract of `token/contract.rs`, each through its worker.
//!
//! Each test has its own folder, token and processes. It compares what a module can do with the
//! module's row of the table in docs/operations.md; `HALLMARK_WRITE_TABLE=1` writes the row
//! instead. A missing module fails its test with how to install it: `tests/install-modules`.
//!
//! | | |
//! |---|---|
//! | `fixture` | folder, configuration, worker, processes |
//! | `table` | the row of the documentation |
//! | `codes` | every return code in sign, find, login and open |
//! | `half_made` | a worker is killed while a key is made |
//! | `write_protected` | the keys of a write-protected token sign, and none is made or deleted |
//! | `always_authenticate` | keys that need a login for each signature |
//! | `environment` | a wrong variable, folder or socket is named |
//! | `pin` | a token that locks after three wrong PINs is never locked |
//! | `softhsm`, `tpm2_pkcs11`, `nss`, `opencryptoki`, `p11_kit` | one family each |
#![allow(
    clippy::unwrap_used,
    reason = "a test stops at the first unexpected result"
)]

mod always_authenticate;
mod codes;
mod environment;
mod fixture;
mod half_made;
mod nss;
mod opencryptoki;
mod p11_kit;
mod pin;
mod softhsm;
mod table;
mod tpm2_pkcs11;
mod write_protected;

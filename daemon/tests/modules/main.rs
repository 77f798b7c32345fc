//! The contract of `token/contract.rs` on real PKCS#11 modules, each through its worker.
//!
//! Each test has a folder, a token and processes of its own. What a module can do is a row of the
//! table in docs/operations.md, which the test compares; `HALLMARK_WRITE_TABLE=1` has it write the row
//! instead. A missing module fails its test, and says how to install it: `tests/install-modules`.
//!
//! | | |
//! |---|---|
//! | `fixture` | folder, configuration, worker, processes |
//! | `table` | the row of the documentation |
//! | `codes` | every return code in sign, find, login and open |
//! | `half_made` | a worker dies while a key is made |
//! | `pin` | tokens that lock after three wrong PINs are never locked by us |
//! | `softhsm`, `tpm2_pkcs11`, `nss`, `opencryptoki`, `p11_kit` | one family each |
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected shall stop there"
)]

mod codes;
mod fixture;
mod half_made;
mod nss;
mod opencryptoki;
mod p11_kit;
mod pin;
mod softhsm;
mod table;
mod tpm2_pkcs11;

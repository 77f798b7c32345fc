//! Tests TPMs end to end: real software TPMs, real worker processes, the client.
//!
//! Each test has its own swtpm, folder, socket and worker. Without swtpm or tpm2-tools they fail:
//! `softhsm-setup/install` installs both. `contract` tests what every token must do, `faults` and
//! `identity` what can happen to a TPM, `primary` and `resource_manager` its setup, `new_tpm` the
//! script that makes one.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected shall stop there"
)]

mod contract;
mod faults;
mod fixture;
mod identity;
mod new_tpm;
mod primary;
mod resource_manager;
#[path = "../../../../tests/system/software_tpm.rs"]
mod software_tpm;
#[path = "../modules/table.rs"]
mod table;

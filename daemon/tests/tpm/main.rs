//! TPMs end to end: real software TPMs, real worker processes, the client.
//!
//! Each test has its own swtpm, folder, socket and worker, and tells one story. A missing swtpm or
//! tpm2-tools fails them: `softhsm-setup/install` brings both. `contract` is what every token keeps,
//! `weather` and `identity` what happens to a TPM, `primary` and `resource_manager` how it is set up,
//! `new_tpm` the script that makes one.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected shall stop there"
)]

mod contract;
mod identity;
mod new_tpm;
mod primary;
mod resource_manager;
#[path = "../../../tests/system/software_tpm.rs"]
mod software_tpm;
mod stage;
#[path = "../modules/table.rs"]
mod table;
mod weather;

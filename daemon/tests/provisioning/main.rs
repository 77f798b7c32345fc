//! The provisioning clients against the emulator, over real TLS.
//!
//! `plant` starts an emulator and the clients as an operator would configure them; `authorities`
//! proves possession, `devices` registers, `hub` finds and calls them there, `rolls` takes a leaf
//! through its slots, and `faults` loses answers.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected shall stop there"
)]

mod authorities;
mod devices;
mod faults;
mod hub;
mod pki;
mod plant;
mod rolls;

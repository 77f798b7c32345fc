//! The provisioning clients against the emulator, over real TLS.
//!
//! `plant` starts an emulator and the clients as an operator would configure them; `authorities`
//! proves possession, `devices` registers, `hub` finds and calls them there, `rolls` takes a leaf
//! through its slots, `faults` loses answers, and `credentials` opens the planes in every way there
//! is: with a real token (`factory`), the emulator's token endpoint, and a stand-in for the
//! metadata service of an Azure machine (`metadata`).
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected shall stop there"
)]

mod authorities;
mod credentials;
mod devices;
mod factory;
mod faults;
mod hub;
mod metadata;
mod pki;
mod plant;
mod rolls;

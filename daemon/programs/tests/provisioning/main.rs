//! The provisioning clients against the emulator, over real TLS.
//!
//! `plant` starts an emulator and the clients as an operator would configure them; `authorities`
//! proves possession, `devices` registers, `hub` finds and calls them there, `rolls` takes a leaf
//! through its slots, `faults` loses answers, and `credentials` opens the planes in every way there
//! is: with a real token (`factory`), the emulator's token endpoint, and a substitute for the
//! metadata service of an Azure machine (`metadata`).
#![allow(clippy::unwrap_used, reason = "a test stops at the unexpected")]

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

//! Hallmark: the certificate authority that a factory line and a gateway can run themselves.
//!
//! This file is the map of the house. Five rows; arrows point down only, and
//! `tests/house.rs` reads the `use` lines to keep it so.
//!
//! | row | modules | may know |
//! |---|---|---|
//! | wiring | [`commands`], [`service`], [`config`], [`notify`], [`setup`], [`ctl`] | everything below |
//! | edges, async | [`api`], [`provisioning::reconcile`] | the application, tokio, axum |
//! | application, sync | [`ca`] | adapters and domain |
//! | adapters | [`store`], [`token`], [`provisioning`], [`files`], [`socket_path`] | one foreign library each, and the domain |
//! | domain, pure | crate `hallmark-pki` ([`x509`], [`enrollment`]); [`printable`], `toml_error` | no clock, no I/O, no tokio |
//!
//! The one dangerous path, the issuance cycle, is one function: `ca::issue`.

pub mod api;
pub mod ca;
pub mod commands;
pub mod config;
pub mod ctl;
pub mod files;
pub mod notify;
pub mod printable;
pub mod provisioning;
pub mod service;
pub mod setup;
pub mod socket_path;
pub mod store;
pub mod token;
mod toml_error;

pub use hallmark_pki::{enrollment, x509};

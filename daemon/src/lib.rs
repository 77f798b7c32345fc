//! Hallmark: the certificate authority that a factory line and a gateway can run themselves.
//!
//! A module may use the rows below its own, and no module of its own row or above. The crates below
//! are kept apart by Cargo, the modules of this crate by `tests/house.rs`, which reads `use` lines.
//!
//! | row | modules | may know |
//! |---|---|---|
//! | wiring | [`commands`], [`service`], [`config`] | everything below |
//! | edges, async | [`api`], [`provisioning::reconcile`] | the application, tokio, axum |
//! | application, sync | [`ca`] | adapters and domain |
//! | adapters | [`store`], [`token`], [`provisioning`] | one foreign library each, and both crates below |
//! | machine | crate `hallmark-base`: [`files`], [`notify`], [`printable`], [`socket_path`], [`toml_error`] | nothing of ours |
//! | domain, pure | crate `hallmark-pki`: [`x509`], [`enrollment`], [`error_code`] | nothing of ours; no clock, no I/O, no tokio |
//!
//! The dangerous path, the issuance cycle, is `ca::issue`; `docs/issuance-cycle.md` explains it.

pub mod api;
pub mod ca;
pub mod commands;
pub mod config;
pub mod provisioning;
pub mod service;
pub mod store;
pub mod token;

pub use hallmark_base::{files, notify, printable, socket_path, toml_error};
pub use hallmark_pki::{enrollment, error_code, x509};

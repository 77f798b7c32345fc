//! Implements the daemon of Hallmark, a certificate authority for factory lines and gateways.
//!
//! | module | what it does |
//! |---|---|
//! | [`commands`] | defines the command line, and runs the commands except `serve` and `token` |
//! | [`service`] | starts, runs, reloads and stops the daemon (`serve`) |
//! | [`config`] | reads and checks the configuration file |
//! | [`console`] | serves the web pages of operators and auditors, as a client of [`api`] |
//! | [`api`] | serves HTTP: admin socket, mutual TLS, EST, revocation lists, metrics |
//! | [`provisioning::reconcile`] | makes DPS, its CA certificates and the hubs as desired |
//! | [`ca`] | decides on issuance, revocation, rollovers, blocks, lists and ceremonies |
//! | [`store`] | keeps intents, certificates, enrollments and the audit journal in SQLite |
//! | [`token`] | runs token workers, and signs through them |
//! | `request_task` | runs requests for certificates, on the threads of `store` and `token`, too |
//! | [`provisioning`] | calls DPS, Azure Resource Manager and IoT Hub |
//! | [`measured`] | counts and times the work of all of them, for `/metrics` |
//!
//! A module may use the modules below it in the table; adapters (`store`, `token`, `provisioning`)
//! do not use each other. `daemon/programs/tests/house` reads `use` lines to check that, and Cargo
//! keeps these crates free of the daemon: `hallmark-pki` ([`x509`], [`enrollment`], [`error_code`],
//! [`der_bytes`], [`ids`], [`journal`], [`moment`], [`unix_seconds`]) has no clock and no I/O,
//! `hallmark-base` gives access to the machine ([`files`], [`notify`], [`printable`],
//! [`socket_path`], [`toml_error`], [`trace`]), and `hallmark-protocol` has what the daemon and a
//! token's worker agree on. No token library is below: the worker is a program of its own.
//!
//! The dangerous path, the issuance cycle, is `ca::issuer::issue`; `docs/issuance-cycle.md`
//! explains it.

pub mod api;
pub mod ca;
pub mod commands;
pub mod config;
pub mod console;
pub mod measured;
pub mod provisioning;
mod request_task;
pub mod service;
pub mod store;
pub mod token;

pub use hallmark_base::{encryption, files, notify, printable, socket_path, toml_error, trace};
pub use hallmark_pki::{
    crl_number, der_bytes, enrollment, error_code, ids, journal, moment, unix_seconds, x509,
};

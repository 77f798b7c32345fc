//! The provisioning service (DPS), its CA plane, its device plane and its IoT Hub, as clients.
//!
//! | module | is |
//! |---|---|
//! | [`configuration`] | what an operator says of one service, and what it means |
//! | [`dps`] | the service plane: enrollments and registrations |
//! | [`arm`] | CA certificates, through Azure Resource Manager |
//! | [`hub`] | the IoT Hub: identities, direct methods, jobs |
//! | [`device`] | the device plane: registering as a device does |
//! | [`http`] | one bounded HTTPS client per plane |
//! | [`failure`] | what a caller can do about a call that failed |
//! | [`pages`] | the bound of a list that is answered page by page |
//! | [`budget`] | the operations per minute that all calls to one service share |
//! | `reach` | host names, addresses and trust of the planes |
//! | [`credential`], [`sas`] | what a call is authorised with |
//! | [`reconcile`] | the edge: makes the service hold what the store says |
//!
//! The clients decide nothing and repeat nothing: one call is one request, and what comes back
//! is an answer or a [`failure::CallError`]. When to try again is the reconciler's business.
//! Sections named in comments are those of `docs/dps-contract.md`.

pub mod arm;
pub mod budget;
pub mod configuration;
pub mod credential;
pub mod device;
pub mod dps;
pub mod failure;
pub mod http;
pub mod hub;
pub mod pages;
mod reach;
pub mod reconcile;
pub mod sas;

#[cfg(test)]
mod scripted_server;
#[cfg(test)]
mod wire_tests;

//! Calls the provisioning service (DPS), its CA plane, its device plane and its IoT Hubs.
//!
//! | module | is |
//! |---|---|
//! | [`configuration`] | the tables of one service, and their meaning |
//! | [`dps`] | the service plane: enrollments and registrations |
//! | [`arm`] | CA certificates, through Azure Resource Manager |
//! | [`registration`] | the record of a registration: it names the hub and the id there |
//! | [`hub`] | the IoT Hubs: identities, direct methods, jobs |
//! | [`device`] | the device plane: registration |
//! | [`http`] | one bounded HTTPS client per plane |
//! | [`call`] | one call and its answer |
//! | [`failure`] | failed calls, by what the caller can do |
//! | [`planes`] | one read at every plane, for `hallmark doctor` |
//! | [`pages`] | the bound of a list in pages |
//! | [`budget`] | the operations per minute that all calls to one service share |
//! | `endpoint` | host names, addresses and trust of the planes |
//! | [`credential`], [`sas`] | the authorization of a call |
//! | [`reconcile`] | the edge: makes the service hold what the store says |
//!
//! The clients decide nothing and repeat nothing: one call is one request, and returns an answer or
//! a [`failure::CallError`]. The reconciler decides when to retry. Sections in comments are those
//! of docs/dps-contract.md.

pub mod arm;
pub mod budget;
mod ca_bundle;
pub mod call;
pub mod configuration;
pub mod credential;
pub mod device;
pub mod dps;
mod endpoint;
pub mod failure;
pub mod http;
pub mod hub;
pub mod pages;
pub mod planes;
pub mod reconcile;
pub mod registration;
pub mod sas;
mod skew;

#[cfg(test)]
mod scripted_server;
#[cfg(test)]
mod wire_tests;

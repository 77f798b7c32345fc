//! Models the enrollments of DPS, and plans the changes that make them as desired.
//!
//! Time and observations are parameters. Functions return a new value, a plan or a refusal; the
//! reconciler acts on it, and the store records it.
//!
//! [`slots`] decides the certificates of an enrollment. [`desired`] is the complete desired state,
//! [`record`] the observed state, and [`plan`] derives the next request. [`roll`] plans the
//! rollover of a certificate, and [`ca_certificate`] the proof of possession of a CA certificate.
//! [`hub_identity`] reads the identity of a device in an IoT Hub.

pub mod authority_roll;
pub mod block_kind;
pub mod ca_certificate;
pub mod ca_drift;
mod compare;
pub mod desired;
pub mod estimate;
pub mod etag;
pub mod exclusion;
pub mod history;
pub mod hub_identity;
pub mod id;
pub mod pattern;
pub mod plan;
pub mod record;
pub mod refusal;
mod renewal;
mod rewrite;
pub mod role;
pub mod roll;
pub mod slot_exclusion;
pub mod slots;
pub mod thumbprint;

pub use compare::{Difference, Field};

#[cfg(test)]
mod properties;

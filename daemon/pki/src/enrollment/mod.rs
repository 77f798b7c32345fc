//! Enrollments as DPS has them: ids, slots, and what to do next.
//!
//! Pure: no clock, no I/O, no tokio. Time and observations are parameters; what comes out is a
//! new value, a plan or a refusal, never a deed. The reconciler acts, and the store remembers.
//!
//! [`slots`] is the truth about one enrollment's certificates, [`desired`] the whole enrollment as
//! we want it, [`record`] the enrollment as the service answered it, and [`plan`] the difference.
//! [`roll`] says how the replacement of a certificate goes on.
//! [`ca_certificate`] does the same for the CA certificates that the service verifies by proof of
//! possession. [`hub_identity`] is what an IoT Hub says of one device.

pub mod authority_roll;
pub mod ca_certificate;
mod compare;
pub mod desired;
pub mod etag;
pub mod exclusion;
pub mod history;
pub mod hub_identity;
pub mod id;
pub mod pattern;
pub mod plan;
pub mod record;
pub mod refusal;
mod rewrite;
pub mod role;
pub mod roll;
pub mod slots;
pub mod thumbprint;

pub use compare::{Difference, Field};

#[cfg(test)]
mod properties;

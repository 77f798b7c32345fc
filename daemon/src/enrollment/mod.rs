//! Enrollments as DPS has them: ids, slots, and what to do next.
//!
//! Pure: no clock, no I/O, no tokio. Time and observations are parameters; what comes out is a
//! new value, a plan or a refusal, never a deed. The reconciler acts, and the store remembers.

pub mod id;
pub mod refusal;
pub mod slots;
pub mod thumbprint;

#[cfg(test)]
mod properties;

//! Builds, parses and checks certificates, revocation lists and enrollments, as values only.
//!
//! Time, random numbers and observations are arguments. Nothing here reads a clock, opens a file or
//! a socket, or holds a private key, so every function can be tested with values alone.

pub mod crl_number;
pub mod der_bytes;
pub mod enrollment;
pub mod error_code;
pub mod ids;
pub mod journal;
pub mod moment;
pub mod unix_seconds;
pub mod x509;

//! Certificates as RFC 5280 has them: requests in, to-be-signed bytes out.
//!
//! Pure: no clock, no I/O, no key. Nothing here signs; a token does, over the bytes that
//! `tbs` builds and `lint` has passed.

pub mod certificate;
pub mod csr;
pub mod key;
pub mod name;
mod oid;
mod pem;
pub mod san;
pub mod serial;
pub mod signature;
mod wire;

//! Certificates and revocation lists as RFC 5280 has them: requests in, to-be-signed bytes out.
//!
//! Pure: no clock, no I/O, no key. Nothing here signs; a token does, over the bytes that
//! [`tbs`] or [`crl`] builds and [`lint`] has passed.

pub mod bundle;
pub mod certificate;
pub mod certs_only;
pub mod crl;
pub mod csr;
pub mod csr_attributes;
mod extensions;
pub mod issuer;
pub mod key;
pub mod limits;
pub mod lint;
pub mod listener_names;
pub mod name;
mod oid;
mod pem;
pub mod profile;
pub mod request;
pub mod requested;
pub mod revocation;
pub mod san;
pub mod serial;
pub mod signature;
pub mod tbs;
mod weak;
mod wire;

#[cfg(test)]
mod tests;

//! Turns requests into to-be-signed bytes of certificates and revocation lists (RFC 5280).
//!
//! The module has no clock, no I/O and no private key. A token signs the bytes that [`tbs`] or
//! [`crl`] has built and [`lint`] has passed.

mod alternative_name;
pub mod authority_csr;
mod ber;
pub mod bundle;
pub mod certificate;
mod certificate_fields;
pub mod certs_only;
mod comparable_name;
pub mod constrained_names;
mod constraint_table;
pub mod constraints;
mod contents;
pub mod crl;
pub mod crl_partition;
pub mod csr;
pub mod csr_attributes;
mod extension;
mod extensions;
mod foreign_key;
pub mod former_crl;
pub mod idevid;
pub mod issuer;
pub mod key;
pub mod key_file;
pub mod key_pem;
pub mod lint;
pub mod list_address;
pub mod listener_names;
pub mod name;
pub mod name_constraints;
pub mod ocsp;
pub mod oid;
pub mod openssl_index;
mod other_file;
pub mod path;
mod pem;
mod pkcs10;
pub mod policy_path;
pub mod printed;
pub mod profile;
mod read_extensions;
pub mod request;
pub mod requested_names;
pub mod revocation;
pub mod san;
pub mod serial;
pub mod signature;
mod subject;
mod subtree;
pub mod tbs;
pub mod template;
mod text;
pub mod transfer;
mod weak;
mod wire;

#[cfg(test)]
mod tests;

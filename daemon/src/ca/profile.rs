//! Issuance profiles: which authority issues what, and what the holder is to this daemon.

use crate::x509::profile::Profile;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What the holder of a certificate is to this daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A device: its common name is its registration id.
    Device,
    /// A machine on the line that requests leaves for devices.
    Station,
    /// A person who operates the authority.
    Operator,
    /// A person who looks.
    Auditor,
    /// A TLS server, this daemon's listener among them.
    Server,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Device => "device",
            Role::Station => "station",
            Role::Operator => "operator",
            Role::Auditor => "auditor",
            Role::Server => "server",
        })
    }
}

/// A `[[profile]]` of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuanceProfile {
    /// How a request names it.
    pub name: String,
    /// The authority that signs.
    pub authority: String,
    /// What the holder is to this daemon.
    pub role: Role,
    /// The complete shape of the certificate.
    pub certificate: Profile,
}

//! Names the role of a certificate's holder.
//!
//! A profile gives the role at issuance, and the store records it with the certificate. The
//! recorded role stays in force even if the profile changes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The role of a certificate's holder.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A device: its common name is its registration id.
    Device,
    /// A machine on the line that requests leaves for devices.
    Station,
    /// A person who operates the authority.
    Operator,
    /// A person who reads and changes nothing.
    Auditor,
    /// A person who reads, approves what operators ask for, and changes nothing else.
    Approver,
    /// A TLS server, this daemon's listener among them.
    Server,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] = [
        Self::Device,
        Self::Station,
        Self::Operator,
        Self::Auditor,
        Self::Approver,
        Self::Server,
    ];

    /// Returns the name in configuration, store and audit journal.
    pub fn name(self) -> &'static str {
        match self {
            Role::Device => "device",
            Role::Station => "station",
            Role::Operator => "operator",
            Role::Auditor => "auditor",
            Role::Approver => "approver",
            Role::Server => "server",
        }
    }

    /// Returns the role with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

//! Names the kinds of subjects that a block excludes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The kind of subject that a block excludes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BlockKind {
    Device,
    /// All devices of an enrollment group.
    Group,
    /// All devices below a generation of an authority.
    Generation,
}

impl BlockKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Device, Self::Group, Self::Generation];

    /// Returns the name in the API and on record.
    pub fn name(self) -> &'static str {
        match self {
            BlockKind::Device => "device",
            BlockKind::Group => "group",
            BlockKind::Generation => "generation",
        }
    }

    /// Returns the kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

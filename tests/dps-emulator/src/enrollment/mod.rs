//! Enrollments: what DPS stores about devices and groups (contract sections 3 to 6).
//!
//! A record is made by [`draft::Draft`] from a client's JSON, and only by it. `records` keeps
//! them and knows which certificate is in which entry.

pub(crate) mod attestation;
pub(crate) mod draft;
pub(crate) mod records;

use serde::{Deserialize, Serialize};

pub(crate) use attestation::Attestation;
pub(crate) use records::{Record, Records};

/// The two kinds of enrollment. Their planes are the same but for names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Individual,
    /// Every device below one authority.
    Group,
}

impl Kind {
    /// The member that holds the id.
    pub(crate) fn id_member(self) -> &'static str {
        match self {
            Self::Individual => "registrationId",
            Self::Group => "enrollmentGroupId",
        }
    }

    /// The member of a bulk request that holds the records.
    pub(crate) fn bulk_member(self) -> &'static str {
        match self {
            Self::Individual => "enrollments",
            Self::Group => "enrollmentGroups",
        }
    }

    /// `x-ms-item-type` of a query's answer.
    pub(crate) fn item_type(self) -> &'static str {
        match self {
            Self::Individual => "enrollment",
            Self::Group => "enrollmentGroup",
        }
    }

    /// Code of "there is none" (contract section 4).
    pub(crate) fn not_found(self) -> u32 {
        match self {
            Self::Individual => 404_201,
            Self::Group => 404_204,
        }
    }

    /// Code of "there is one"; the group's is UNCONFIRMED (contract section 4).
    pub(crate) fn exists(self) -> u32 {
        match self {
            Self::Individual => 409_201,
            Self::Group => 409_204,
        }
    }
}

/// An entry of one kind, by the key of its id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) key: String,
}

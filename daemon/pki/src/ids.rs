//! Defines one type for the ids of each table of the store, so that no call confuses two of them.
//!
//! A function that takes a generation and an enrollment would accept them in either order as plain
//! integers. In JSON and in the database an id is still the integer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! integers {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[derive(
            Clone,
            Copy,
            Debug,
            PartialEq,
            Eq,
            PartialOrd,
            Ord,
            Hash,
            Serialize,
            Deserialize,
            JsonSchema,
        )]
        #[serde(transparent)]
        pub struct $name(i64);

        impl $name {
            /// Less than every value on record: lists that begin after it are complete.
            pub const START: Self = Self(0);

            /// Wraps an integer that the store or a caller has given.
            pub const fn new(integer: i64) -> Self {
                Self(integer)
            }

            /// Returns the integer, for the database and for fields of the log.
            pub const fn get(self) -> i64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

integers! {
    /// A row of `generation`.
    GenerationId,
    /// A row of `intent`; also of `certificate`, whose key is that of its intent.
    IntentId,
    /// A row of `crl`.
    CrlId,
    /// A row of `enrollment`.
    EnrollmentId,
    /// A row of `ca_certificate`.
    CaCertificateId,
    /// A row of `mark`.
    MarkId,
    /// A row of `roll`.
    RollId,
    /// A row of `approval`.
    ApprovalId,
    /// A row of `block`.
    BlockId,
    /// A row of `device_credential`.
    DeviceCredentialId,
    /// A row of `hub_task`.
    HubTaskId,
    /// A row of `hub_job`.
    HubJobId,
    /// Counts the generations of one authority, from 1. It is no row id.
    GenerationNumber,
}

impl GenerationNumber {
    /// The number of an authority's first generation.
    pub const FIRST: Self = Self(1);

    /// Returns the number of the generation that comes after this one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

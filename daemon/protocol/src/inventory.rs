//! Describes the keys on a token and the state of its login, for operators; issuance never uses it.

use crate::KeyDescription;
use serde::{Deserialize, Serialize};

/// Most keys that are described. A token may have thousands that are not ours.
pub const KEYS_DESCRIBED_MAX: usize = 256;

/// The keys on a token, and the state of its login.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Usable private keys, at most [`KEYS_DESCRIBED_MAX`].
    pub keys: Vec<KeyDescription>,
    /// Labels of unusable private keys, with the reason.
    pub unusable: Vec<String>,
    /// Number of private keys that were not read.
    pub not_looked_at: usize,
    /// The token's flags about login and PIN, in words.
    pub remarks: Vec<String>,
    /// Sessions that the worker has open, if the token reports it.
    pub sessions_open: Option<u64>,
    /// Most sessions that the worker may open, if there is a limit.
    pub sessions_max: Option<u64>,
    /// Lengths of the shortest and the longest PIN.
    pub pin_bytes: (u64, u64),
}

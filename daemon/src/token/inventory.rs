//! What is on a token, and how its login stands: for the operator who looks, never for issuance.

use super::KeyDescription;
use serde::{Deserialize, Serialize};

/// Most keys that are described. A token may hold thousands that are not ours.
pub const KEYS_DESCRIBED_MAX: usize = 256;

/// What is on a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Private keys that can be used, at most [`KEYS_DESCRIBED_MAX`].
    pub keys: Vec<KeyDescription>,
    /// Private keys that cannot, each with its label and the reason.
    pub unusable: Vec<String>,
    /// How many private keys there are beyond those that were looked at.
    pub not_looked_at: usize,
    /// What the token says of login and PIN, in words.
    pub remarks: Vec<String>,
    /// Sessions that the worker has open, if the token tells.
    pub sessions_open: Option<u64>,
    /// The most that it may open, if there is a limit.
    pub sessions_max: Option<u64>,
    /// The shortest PIN and the longest, in bytes.
    pub pin_bytes: (u64, u64),
}

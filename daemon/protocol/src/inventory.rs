//! Describes the keys on a token and the state of its login, for operators; issuance never uses it.

use crate::KeyDescription;
use serde::{Deserialize, Serialize};

/// Most keys that are described. A token may have thousands that are not ours.
pub const KEYS_DESCRIBED_MAX: usize = 256;

/// Flags of a token about its login and PIN, in words.
pub mod remark {
    /// `CKF_USER_PIN_COUNT_LOW`
    pub const WRONG_PIN_TRIED: &str = "wrong PIN tried";
    /// `CKF_USER_PIN_FINAL_TRY`
    pub const PIN_LAST_TRY: &str = "one PIN try left";
    /// `CKF_USER_PIN_LOCKED`
    pub const PIN_LOCKED: &str = "PIN locked";
    /// `CKF_USER_PIN_TO_BE_CHANGED`
    pub const PIN_MUST_CHANGE: &str = "PIN must be changed";
}

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

//! Defines the health of a token, which its worker reports.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The state of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenState {
    /// Not tried yet, or the worker is being started.
    Starting,
    /// Logged in, test signatures verified.
    Ready,
    /// It does not answer; recovery is repeated.
    Unavailable,
    /// The PIN is refused or locked; no login is tried until the operator changes something.
    Parked,
}

impl TokenState {
    /// Returns its name in status and logs.
    pub fn name(self) -> &'static str {
        match self {
            TokenState::Starting => "starting",
            TokenState::Ready => "ready",
            TokenState::Unavailable => "unavailable",
            TokenState::Parked => "parked",
        }
    }
}

/// How often each recovery level was used since the worker started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecoveryCounters {
    pub sessions: u64,
    /// `C_Login` calls, the first one included.
    pub logins: u64,
    /// `C_Initialize` calls, the first one included.
    pub initializations: u64,
}

/// How often a key signed what is not recorded, and whether it signs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyReport {
    /// SHA-256 of the SubjectPublicKeyInfo; `None` for a shared secret.
    pub spki_sha256: Option<[u8; 32]>,
    pub label: String,
    /// Test signatures by the key since the worker started.
    pub proofs: u64,
    /// Assertions or HMACs by a credential's key since the worker started.
    pub credentials: u64,
    /// OCSP answers by a responder's key since the worker started.
    pub answers: u64,
    /// Why the key does not sign; `None` if it does.
    pub unusable: Option<String>,
}

/// The refusals of a worker because of its own limits, since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    pub count: u64,
    /// The operation, the key and the reason of the last one; empty if there was none.
    pub last: String,
    pub last_unix_ms: u64,
}

/// The health of a token and its worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerHealth {
    /// A random number of the process, to which the counts in `keys` belong.
    pub worker: [u8; 8],
    /// The version of the worker's program.
    pub version: String,
    pub state: TokenState,
    /// The reason of the state, or a remark about a ready token; may be empty.
    pub reason: String,
    /// Time of the last change of state.
    pub since_unix_ms: u64,
    pub recoveries: RecoveryCounters,
    pub refusals: Refusals,
    /// The keys used so far.
    pub keys: Vec<KeyReport>,
}

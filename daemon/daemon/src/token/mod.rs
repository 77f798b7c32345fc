//! Uses tokens, which hold private keys, through worker processes.
//!
//! Only a worker process (crate `hallmark-worker`) loads a token's library or holds a PIN. `serve`
//! sends its requests through [`client`], in the messages of `hallmark_protocol`, and on a
//! developer's machine starts the worker through [`supervisor`].
//!
//! | module | purpose |
//! |---|---|
//! | [`client`], [`supervisor`] | send requests to a worker; keep a worker running |
//! | [`contract`], [`bench`], `test_keys` | check and measure a token, with keys that are deleted |
//! | [`probe`] | name the modules whose tokens are listed |
//! | [`key_uri`] | parse PKCS#11 URIs |
//! | [`configuration`], [`credential`], [`health`], … | from `hallmark_protocol`, for the daemon |

pub mod bench;
pub mod client;
pub mod contract;
pub mod key_uri;
pub mod probe;
pub mod supervisor;
mod test_keys;

pub use hallmark_base::fragment;
pub use hallmark_protocol::{
    KeyDescription, KeyReference, KeySpecification, RecoveryLevel, TokenDescription, TokenError,
    WRAPPED_BYTES_MAX, arguments, configuration, credential, health, inventory, key_proof,
    signature_count, spki_sha256, token_file,
};
use hallmark_protocol::{frame_writer, message, operation};

/// A failed request to a worker, with the knowledge whether it was sent.
///
/// Only the client makes the value, at the point where it passes a request on for sending. So a
/// request that was not sent has certainly not reached a worker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct CallFailure {
    error: TokenError,
    sent: bool,
}

impl CallFailure {
    /// Makes the failure of a request of which no byte was passed on for sending.
    pub(in crate::token) fn unsent(error: TokenError) -> Self {
        Self { error, sent: false }
    }

    /// Makes the failure of a request that the worker may have received and the token performed.
    pub(in crate::token) fn sent(error: TokenError) -> Self {
        Self { error, sent: true }
    }

    /// Returns true if the token may have performed the operation.
    pub fn may_be_done(&self) -> bool {
        self.sent
    }
}

impl From<CallFailure> for TokenError {
    fn from(failure: CallFailure) -> Self {
        failure.error
    }
}

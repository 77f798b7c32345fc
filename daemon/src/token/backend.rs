//! What a worker needs of a kind of token, besides the operations themselves.

use crate::token::{Token, TokenError};
use secrecy::SecretString;
use std::time::Duration;

/// A kind of token, from nothing to open sessions and back.
///
/// The [ladder](super::worker) calls it, never from two threads at once. An error that may be healed
/// MUST name its rung. Nothing is retried inside.
pub(crate) trait Backend: Send {
    /// Brings the library up and finds the token; no login. After a failure, or when called again,
    /// everything is brought down first.
    fn start(&mut self) -> Result<TokenIdentity, TokenError>;

    /// What the token says of its PIN's tries.
    fn pin_standing(&mut self) -> Result<PinStanding, TokenError>;

    /// Logs in, once. [`TokenError::Parked`] when the token refuses the PIN.
    fn log_in(&mut self, pin: &SecretString) -> Result<(), TokenError>;

    /// Logs out; whether that worked shows at the next login.
    fn log_out(&mut self);

    /// One more session, for one signer.
    fn open(&mut self) -> Result<Box<dyn Token>, TokenError>;

    /// How often a token at rest is asked for its [`remark`](Backend::remark); `None` where it never
    /// has one: who has nothing to tell must not be woken for it.
    fn look_interval(&self) -> Option<Duration> {
        None
    }

    /// What an operator should know of a token that works; `None` on a good day. It MUST be cheap.
    /// An error counts as an operation's.
    fn remark(&mut self) -> Result<Option<String>, TokenError> {
        Ok(None)
    }

    /// What was found out about keys when they were looked for; the token is not asked again.
    fn key_remark(&self) -> Option<String> {
        None
    }

    /// Brings the library down. Every [`Token`] that [`open`](Backend::open) gave MUST have been
    /// dropped before.
    fn stop(&mut self);
}

/// Which token it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenIdentity {
    /// Its label.
    pub(crate) label: String,
    /// Its serial number.
    pub(crate) serial: String,
}

/// How a token takes the next wrong PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PinStanding {
    /// It may be tried.
    Good,
    /// One more wrong PIN locks the token (`CKF_USER_PIN_FINAL_TRY`).
    FinalTry,
    /// It is locked (`CKF_USER_PIN_LOCKED`).
    Locked,
}

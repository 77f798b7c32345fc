//! Defines what a worker needs from a token's interface besides the operations: start, login, stop.

use hallmark_protocol::TokenError;
use hallmark_protocol::operation::Token;
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::time::Duration;

/// An interface to tokens.
///
/// The [worker's](crate::process) recovery calls it, never from two threads at once. An error
/// that a recovery may end MUST name the level. A backend MUST NOT retry.
pub(crate) trait Backend: Send {
    /// Initializes the library and finds the token, without login. Stops everything first if it is
    /// called again, also after a failure.
    fn start(&mut self) -> Result<TokenIdentity, TokenError>;

    /// Returns how many wrong PINs the token still accepts.
    fn pin_tries(&mut self) -> Result<PinTries, TokenError>;

    /// Returns the lengths of the token's PINs; `None` if they are not known.
    fn pin_lengths(&mut self) -> Result<Option<PinLengths>, TokenError> {
        Ok(None)
    }

    /// Logs in, once. Fails with [`TokenError::Parked`] if the token refuses the PIN.
    fn log_in(&mut self, pin: &SecretString) -> Result<(), TokenError>;

    /// Returns the PIN that the token has refused for a signature since the last call.
    fn take_refused(&mut self) -> Option<RefusedPin> {
        None
    }

    /// Logs out. A failure shows at the next login.
    fn log_out(&mut self);

    /// Opens a session for one signer.
    fn open(&mut self) -> Result<Box<dyn Token>, TokenError>;

    /// Returns how often an idle token is asked for its [`remark`](Backend::remark); `None` if it
    /// never has one, which avoids wake-ups.
    fn check_interval(&self) -> Option<Duration> {
        None
    }

    /// Returns what an operator should know about a token that works. It MUST be cheap. An error
    /// starts a recovery, like that of an operation.
    fn remark(&mut self) -> Result<Option<String>, TokenError> {
        Ok(None)
    }

    /// Returns the remarks about keys that earlier operations have found, without asking the token.
    fn key_remark(&self) -> Option<String> {
        None
    }

    /// Finalizes the library. Every [`Token`] that [`open`](Backend::open) has returned MUST have
    /// been dropped before.
    fn stop(&mut self);
}

/// The label and serial number of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenIdentity {
    pub(crate) label: String,
    pub(crate) serial: String,
}

/// The lengths of a token's PINs in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PinLengths {
    pub(crate) least: u64,
    pub(crate) most: u64,
}

impl PinLengths {
    pub(crate) fn fits(self, pin: &SecretString) -> bool {
        (self.least..=self.most).contains(&(pin.expose_secret().len() as u64))
    }
}

impl fmt::Display for PinLengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PINs of {} to {} bytes", self.least, self.most)
    }
}

/// A PIN that was accepted at the login and refused for a signature.
pub(crate) struct RefusedPin {
    pub(crate) pin: SecretString,
    /// The token's return code.
    pub(crate) reason: String,
}

/// How many wrong PINs a token still accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PinTries {
    Enough,
    /// One more wrong PIN locks the token (`CKF_USER_PIN_FINAL_TRY`).
    Last,
    /// The PIN is locked (`CKF_USER_PIN_LOCKED`).
    Locked,
}

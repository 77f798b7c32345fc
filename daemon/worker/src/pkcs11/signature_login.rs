//! Logs in for single signatures, as a key with `CKA_ALWAYS_AUTHENTICATE` needs it (PKCS#11 3.0,
//! section 4.9): after `C_SignInit`, as the user `CKU_CONTEXT_SPECIFIC`.
//!
//! It takes the PIN that the token has accepted at the login. A token may want another one here, or
//! the PIN may have been changed since; then this PIN is not tried again: tokens lock after three.

use super::fault::{Class, Fault};
use crate::backend::RefusedPin;
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use secrecy::SecretString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The PIN for single signatures. Clones share it.
#[derive(Clone, Default)]
pub(super) struct SignatureLogin(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    /// `None` before a login, on a token without one, and after a refusal.
    pin: Option<SecretString>,
    refused: Option<RefusedPin>,
}

impl SignatureLogin {
    /// Keeps the PIN that the token has accepted at the login.
    pub(super) fn keep(&self, pin: &SecretString) {
        self.lock().pin = Some(pin.clone());
    }

    /// Logs in for the signature that was begun on `session`. One session at a time: several would
    /// try a wrong PIN several times.
    pub(super) fn log_in(&self, session: &Session) -> Result<(), Fault> {
        let mut kept = self.lock();
        let Some(pin) = &kept.pin else {
            return Err(Fault::key(needs(
                "there is no PIN for it: give `credential`",
            )));
        };
        let error = match session.login(UserType::ContextSpecific, Some(pin)) {
            Ok(()) => return Ok(()),
            // C_Sign shows whether the module needs the login.
            Err(Error::Pkcs11(
                RvError::UserAlreadyLoggedIn | RvError::OperationNotInitialized,
                _,
            )) => return Ok(()),
            Err(error) => error,
        };
        let is_unknown = matches!(
            error,
            Error::Pkcs11(RvError::UserTypeInvalid | RvError::FunctionNotSupported, _)
        );
        let fault = Fault::from(error);
        let reason = needs(&fault.reason);
        if fault.class == Class::Pin
            && let Some(pin) = kept.pin.take()
        {
            let reason = reason.clone();
            kept.refused = Some(RefusedPin { pin, reason });
        }
        Err(Fault {
            class: if is_unknown { Class::Key } else { fault.class },
            reason,
        })
    }

    /// Returns the PIN that was refused since the last call.
    pub(super) fn take_refused(&self) -> Option<RefusedPin> {
        self.lock().refused.take()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns why the key does not sign.
pub(super) fn needs(problem: &str) -> String {
    format!("the key needs a login for each signature (CKA_ALWAYS_AUTHENTICATE): {problem}")
}

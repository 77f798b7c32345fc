//! Logs in to the token: limits how often, and asks the PIN guard before each login.

use super::health_cell::HealthCell;
use crate::backend::{Backend, PinTries, RefusedPin, TokenIdentity};
use crate::pin::{PinError, PinGuard};
use hallmark_protocol::operation::Token;
use hallmark_protocol::{RecoveryLevel, TokenError};
use std::time::{Duration, Instant};

/// Shortest time between two logins, and between two initialisations.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is checked whether the token still has its PIN locked. That needs no login.
const LOCKED_INTERVAL: Duration = Duration::from_secs(10);

const LAST_TRY: &str =
    "one more wrong PIN would lock the token: log in once by hand, with the vendor's tool";

const LOCKED: &str = "the token has locked its PIN: set a new one as its SO";

/// A backend with the PIN guard, from which sessions are opened.
pub(super) struct TokenLogin {
    name: String,
    backend: Box<dyn Backend>,
    /// `None` for a token without login.
    guard: Option<PinGuard>,
    identity: Option<TokenIdentity>,
    login_tried: Option<Instant>,
    initialize_tried: Option<Instant>,
}

impl TokenLogin {
    pub(super) fn new(name: &str, backend: Box<dyn Backend>, guard: Option<PinGuard>) -> Self {
        TokenLogin {
            name: name.to_owned(),
            backend,
            guard,
            identity: None,
            login_tried: None,
            initialize_tried: None,
        }
    }

    pub(super) fn open(&mut self) -> Result<Box<dyn Token>, TokenError> {
        self.backend.open()
    }

    /// Finalizes the library. Every session must have been dropped before.
    pub(super) fn stop(&mut self) {
        self.identity = None;
        self.backend.stop();
    }

    /// Returns true if a recovery of `level` is allowed now, and then counts it as done.
    pub(super) fn may_recover(&mut self, level: RecoveryLevel) -> bool {
        let tried = match level {
            RecoveryLevel::Session | RecoveryLevel::Login => &mut self.login_tried,
            RecoveryLevel::Initialize => &mut self.initialize_tried,
        };
        may_again(tried, RENEWAL_INTERVAL)
    }

    /// Returns what an operator should know about a token that works.
    pub(super) fn remark(&mut self) -> Result<Option<String>, TokenError> {
        self.backend.remark()
    }

    /// Returns the known remarks about keys, without asking the token.
    pub(super) fn key_remark(&self) -> Option<String> {
        self.backend.key_remark()
    }

    /// Returns how often a token that works is asked for its remark; `None` if it never has one.
    pub(super) fn check_interval(&self) -> Option<Duration> {
        self.backend.check_interval()
    }

    /// Returns true if the reason for parking the token may have ended.
    pub(super) fn may_leave_park(&mut self) -> bool {
        let changed = self.guard.as_ref().and_then(PinGuard::has_changed);
        changed.unwrap_or_else(|| {
            self.initialize_tried
                .is_none_or(|tried| tried.elapsed() >= LOCKED_INTERVAL)
        })
    }

    /// Logs in again, after a new initialization if `level` says so, and opens `count` sessions.
    pub(super) fn renew(
        &mut self,
        level: RecoveryLevel,
        count: usize,
        health: &HealthCell,
    ) -> Result<Vec<Box<dyn Token>>, TokenError> {
        if level == RecoveryLevel::Initialize {
            health.count(|done| done.initializations += 1);
            self.identity = Some(self.backend.start()?);
        } else {
            self.backend.log_out();
        }
        self.log_in(health)?;
        (0..count).map(|_| self.backend.open()).collect()
    }

    /// Records that the token has refused the PIN for a signature, if it has, and returns the
    /// refusal as an error.
    pub(super) fn take_refused(&mut self) -> Option<TokenError> {
        let RefusedPin { pin, reason } = self.backend.take_refused()?;
        let guard = self.guard.as_mut()?;
        let identity = self.identity.as_ref()?;
        let _alone = guard.alone();
        Some(TokenError::Parked {
            token: self.name.clone(),
            reason: guard.remember_refused(identity, pin, reason).to_string(),
        })
    }

    /// Logs in once, if the token's own flags and the guard allow it.
    fn log_in(&mut self, health: &HealthCell) -> Result<(), TokenError> {
        let (Some(guard), Some(identity)) = (&mut self.guard, &self.identity) else {
            return Ok(());
        };
        let parked = |reason: String| TokenError::Parked {
            token: self.name.clone(),
            reason,
        };
        let _alone = guard.alone();
        // The token counts the tries of other programs, too, which the park file does not know.
        match self.backend.pin_tries()? {
            PinTries::Enough => {}
            PinTries::Last => return Err(parked(LAST_TRY.into())),
            PinTries::Locked => return Err(parked(LOCKED.into())),
        }
        let pin = guard.pin(identity).map_err(|error| match error {
            PinError::Refused { .. } | PinError::RefusedAgain { .. } => parked(error.to_string()),
            PinError::Credential { .. } => TokenError::unavailable(&self.name, error.to_string()),
        })?;
        if let Some(lengths) = self.backend.pin_lengths()?.filter(|it| !it.fits(&pin)) {
            let error = guard.unusable(format!(
                "the token takes {lengths}, and this one has another length"
            ));
            return Err(TokenError::unavailable(&self.name, error.to_string()));
        }
        health.count(|done| done.logins += 1);
        match self.backend.log_in(&pin) {
            Ok(()) => guard.forget_refused(),
            Err(TokenError::Parked { reason, .. }) => {
                return Err(parked(
                    guard.remember_refused(identity, pin, reason).to_string(),
                ));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Returns true if `interval` has passed since `last`, and then sets `last` to now.
pub(super) fn may_again(last: &mut Option<Instant>, interval: Duration) -> bool {
    let may = last.is_none_or(|last| last.elapsed() >= interval);
    if may {
        *last = Some(Instant::now());
    }
    may
}

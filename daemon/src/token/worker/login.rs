//! The login: a backend, the PIN guard before it, and how often each may be used.

use super::health::HealthCell;
use crate::token::backend::{Backend, PinStanding, TokenIdentity};
use crate::token::pin::{PinError, PinGuard};
use crate::token::{RecoveryLevel, Token, TokenError};
use std::time::{Duration, Instant};

/// Shortest time between two logins, and between two initialisations.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// How often a token is looked at that has locked its PIN by itself. No login is tried for that.
const LOCKED_INTERVAL: Duration = Duration::from_secs(10);

/// What it takes to have sessions that are logged in.
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

    /// One more session.
    pub(super) fn open(&mut self) -> Result<Box<dyn Token>, TokenError> {
        self.backend.open()
    }

    /// Brings the library down. No session may be left.
    pub(super) fn stop(&mut self) {
        self.identity = None;
        self.backend.stop();
    }

    /// Whether `level` may be climbed now; if so, it counts as climbed.
    pub(super) fn may_recover(&mut self, level: RecoveryLevel) -> bool {
        let tried = match level {
            RecoveryLevel::Session | RecoveryLevel::Login => &mut self.login_tried,
            RecoveryLevel::Initialize => &mut self.initialize_tried,
        };
        may_again(tried, RENEWAL_INTERVAL)
    }

    /// What an operator should know of a token that works.
    pub(super) fn remark(&mut self) -> Result<Option<String>, TokenError> {
        self.backend.remark()
    }

    /// The remark on keys as it was last found out; the token is not asked.
    pub(super) fn key_remark(&self) -> Option<String> {
        self.backend.key_remark()
    }

    /// How often a token that works is asked for that; `None` if it never has anything to tell.
    pub(super) fn look_interval(&self) -> Option<Duration> {
        self.backend.look_interval()
    }

    /// Whether a parked token is worth another look.
    pub(super) fn may_leave_park(&mut self) -> bool {
        let changed = self.guard.as_ref().and_then(PinGuard::has_changed);
        changed.unwrap_or_else(|| {
            self.initialize_tried
                .is_none_or(|tried| tried.elapsed() >= LOCKED_INTERVAL)
        })
    }

    /// Logs in anew, from as far down as `level` says, and opens `count` sessions.
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

    /// One login, if the token's own flags and the guard allow it.
    fn log_in(&mut self, health: &HealthCell) -> Result<(), TokenError> {
        let (Some(guard), Some(identity)) = (&mut self.guard, &self.identity) else {
            return Ok(());
        };
        let parked = |reason: String| TokenError::Parked {
            token: self.name.clone(),
            reason,
        };
        let _alone = guard.alone();
        if let Some(reason) = barred(self.backend.pin_standing()?) {
            return Err(parked(reason.into()));
        }
        let pin = guard.pin(identity).map_err(|error| match error {
            PinError::Refused { .. } | PinError::RefusedAgain { .. } => parked(error.to_string()),
            PinError::Credential { .. } => TokenError::unavailable(&self.name, error.to_string()),
        })?;
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

/// Why no PIN at all may be tried.
fn barred(standing: PinStanding) -> Option<&'static str> {
    match standing {
        PinStanding::Good => None,
        PinStanding::FinalTry => Some(
            "one more wrong PIN would lock the token: log in once by hand, with the vendor's tool",
        ),
        PinStanding::Locked => Some("the token has locked its PIN: set a new one as its SO"),
    }
}

/// Whether `interval` has gone by since `last`; if so, `last` is now.
pub(super) fn may_again(last: &mut Option<Instant>, interval: Duration) -> bool {
    let may = last.is_none_or(|last| last.elapsed() >= interval);
    if may {
        *last = Some(Instant::now());
    }
    may
}

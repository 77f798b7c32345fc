//! Performs operations, and recovers the token when one fails.
//!
//! The levels of a recovery, lowest first: a new session; a new login, after which keys are found
//! again; a new initialization with a new login. Each is rate-limited and counted. After every
//! login the keys used so far make a test signature that must verify before the token counts as
//! ready. The next level is a new process: [`Recovery::needs_new_process`] returns true when this
//! one has tried for long enough.
//!
//! Every operation holds the session pool for reading; a new login or initialization takes it for
//! writing. So no thread is inside the module when its sessions are dropped. A call that hangs
//! blocks the recovery, and the watchdog ends the process.
//!
//! A recovery never creates or deletes a key, and is repeated until the token works.

mod limited;

use super::health_cell::HealthCell;
use super::login::{TokenLogin, may_again};
use super::session_pool::SessionPool;
use super::used_keys::UsedKeys;
use super::watchdog::{Watchdog, Watched};
use crate::wall::Wall;
use hallmark_protocol::health::{TokenState, WorkerHealth};
use hallmark_protocol::operation::{Answer, Operation};
use hallmark_protocol::{RecoveryLevel, TokenError};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, TryLockError};
use std::time::{Duration, Instant};

/// Shortest time between two new sessions of one signer.
const SESSION_INTERVAL: Duration = Duration::from_millis(100);

/// How long finalize, initialize, login and test signatures may take before they count as hung.
pub(super) const RENEWAL_DEADLINE: Duration = Duration::from_secs(60);

/// How long a token that was ready may be unavailable before a new process tries: some modules can
/// be initialized only once in a process.
const NEW_PROCESS_AFTER: Duration = Duration::from_secs(15);

/// How often an unavailable token is recovered without a request.
const PROBE_PERIOD: Duration = Duration::from_secs(1);

/// Longer than any worker lives.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// How often an operation checks whether the recovery that it waits for has ended.
const RENEWAL_POLL: Duration = Duration::from_millis(1);

/// A token with its signers' sessions.
pub(super) struct Recovery {
    name: String,
    pool: RwLock<SessionPool>,
    login: Mutex<TokenLogin>,
    used_keys: UsedKeys,
    wall: Arc<Wall>,
    /// When a refusal was logged last.
    refusal_logged: Mutex<Option<Instant>>,
    /// The token's own remark, as last read.
    remark: Mutex<Option<String>>,
    health: HealthCell,
    watchdog: Arc<Watchdog>,
}

impl Recovery {
    /// Makes a token that is not started yet.
    ///
    /// `watchdog` must watch each signer, and one more thread for recoveries.
    pub(super) fn new(
        name: &str,
        signers: usize,
        login: TokenLogin,
        watchdog: Arc<Watchdog>,
        wall: Arc<Wall>,
    ) -> Self {
        let slots = (0..signers).map(|_| Mutex::default()).collect();
        Recovery {
            name: name.to_owned(),
            pool: RwLock::new(SessionPool { renewals: 0, slots }),
            login: Mutex::new(login),
            used_keys: UsedKeys::default(),
            wall,
            refusal_logged: Mutex::default(),
            remark: Mutex::default(),
            health: HealthCell::starting(),
            watchdog,
        }
    }

    /// Returns the token's health.
    pub(super) fn health(&self) -> WorkerHealth {
        self.health.read()
    }

    /// Waits until the health is not `known` any more, until `is_over`, or for `pause`.
    pub(super) fn wait_for_change(
        &self,
        known: &WorkerHealth,
        pause: Duration,
        is_over: impl Fn() -> bool,
    ) {
        self.health
            .wait(pause, |health| health != known || is_over());
    }

    /// Lets all that wait for a change check again whether they have ended.
    pub(super) fn wake_waiters(&self) {
        self.health.wake_waiters();
    }

    /// Performs `operation` on the session of `signer`. If it fails for a reason that a recovery
    /// may end, recovers level by level and performs it again, unless it is not repeatable. An
    /// operation that must wait for a recovery is not begun after `deadline`.
    pub(super) fn perform(
        &self,
        signer: usize,
        operation: &Operation,
        deadline: Instant,
    ) -> Result<Answer, TokenError> {
        let (mut renewals, mut outcome) = self.attempt(signer, operation, deadline)?;
        for level in [
            RecoveryLevel::Session,
            RecoveryLevel::Login,
            RecoveryLevel::Initialize,
        ] {
            let Err(TokenError::Unavailable {
                level: Some(lowest),
                reason,
                ..
            }) = &outcome
            else {
                break;
            };
            if *lowest > level {
                continue;
            }
            tracing::warn!(
                token = self.name,
                recovery = ?level,
                reason,
                "operation failed, recovering"
            );
            if !self.recover(level, renewals, signer) {
                continue;
            }
            if !operation.is_repeatable() {
                return outcome;
            }
            (renewals, outcome) = self.attempt(signer, operation, deadline)?;
        }
        match outcome {
            Err(error @ TokenError::Unavailable { level: Some(_), .. }) => {
                Err(self.not_recovered(error))
            }
            Err(error @ TokenError::Parked { .. }) => Err(self.park_refused().unwrap_or(error)),
            outcome => outcome,
        }
    }

    /// Parks the token if it has refused the PIN for a signature.
    fn park_refused(&self) -> Option<TokenError> {
        let mut pool = self
            .pool
            .write()
            .expect("no thread panics while it holds the pool");
        let mut login = lock(&self.login);
        let error = login.take_refused()?;
        pool.drop_sessions();
        login.stop();
        self.health.set_failed(&self.name, &error);
        Some(error)
    }

    /// Returns the answer after recoveries that did not help. If none was allowed so soon, the
    /// prober recovers later; a recovery that failed knows the cause better than `error`.
    fn not_recovered(&self, error: TokenError) -> TokenError {
        if self.health.read().state == TokenState::Ready {
            self.health.set_failed(&self.name, &error);
            return error;
        }
        self.absent()
    }

    /// Performs it once. Also returns how often the sessions had been renewed.
    fn attempt(
        &self,
        signer: usize,
        operation: &Operation,
        deadline: Instant,
    ) -> Result<(u64, Result<Answer, TokenError>), TokenError> {
        let pool = self.pool_before(deadline)?;
        let outcome = match &mut lock(&pool.slots[signer]).token {
            Some(token) => {
                let _watched = self.watchdog.watch(signer, operation.name(), deadline);
                self.perform_on(token.as_mut(), operation)
            }
            None => Err(self.absent()),
        };
        self.note_use(operation, outcome.is_ok());
        Ok((pool.renewals, outcome))
    }

    /// Records which key was used and for what, and reports changes to the daemon.
    fn note_use(&self, operation: &Operation, done: bool) {
        match operation {
            Operation::Prove(_) => {}
            Operation::Sign { key, .. } if done => {
                if !self.used_keys.remember(key) {
                    return;
                }
            }
            Operation::SignCheckpoint { key, .. } if done => {
                if !self.used_keys.remember(key) {
                    return;
                }
            }
            Operation::Destroy(key) if done => return self.used_keys.forget(key),
            Operation::Generate(specification) if done => {
                self.used_keys.forget_replaced(&specification.id);
            }
            Operation::SignAssertion { key, .. } if done => self.used_keys.count_assertion(key),
            Operation::SignAnswer { key, .. } if done => self.used_keys.count_answer(key),
            Operation::Hmac { label, .. } if done => self.used_keys.count_hmac(label),
            _ => return,
        }
        self.report_keys();
    }

    fn report_keys(&self) {
        let remark = lock(&self.login).key_remark();
        if remark.is_some() {
            self.set_remark(remark);
        }
        self.health.set_keys(self.used_keys.reports());
        self.health.remark(&self.name, self.remarks());
    }

    /// Returns what an operator should know about a token that works.
    fn remarks(&self) -> String {
        let remark = self.remark.lock();
        let remark = remark.expect("no thread panics while it holds the remark");
        let mut remarks = self.used_keys.remarks();
        remarks.extend(remark.clone());
        remarks.join("; ")
    }

    fn set_remark(&self, remark: Option<String>) {
        let kept = self.remark.lock();
        *kept.expect("no thread panics while it holds the remark") = remark;
    }

    /// Waits until no recovery holds the session pool.
    fn pool_before(
        &self,
        deadline: Instant,
    ) -> Result<RwLockReadGuard<'_, SessionPool>, TokenError> {
        loop {
            match self.pool.try_read() {
                Ok(pool) => return Ok(pool),
                Err(TryLockError::Poisoned(_)) => {
                    unreachable!("no thread panics while it holds the pool")
                }
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(RENEWAL_POLL);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(TokenError::unavailable(&self.name, "it is being recovered"));
                }
            }
        }
    }

    /// Returns the answer of a signer without a session: the cause, and a level only if no recovery
    /// is due already.
    fn absent(&self) -> TokenError {
        let WorkerHealth { state, reason, .. } = self.health.read();
        match state {
            TokenState::Starting => TokenError::unavailable(&self.name, "it is being started"),
            TokenState::Parked => TokenError::Parked {
                token: self.name.clone(),
                reason,
            },
            TokenState::Unavailable => TokenError::unavailable(&self.name, reason),
            TokenState::Ready => TokenError::Unavailable {
                token: self.name.clone(),
                reason: "no session could be opened".into(),
                level: Some(RecoveryLevel::Initialize),
            },
        }
    }

    /// Recovers by one level after a failure. `renewals` counts the renewals before it. Returns
    /// true if the operation may be tried again.
    fn recover(&self, level: RecoveryLevel, renewals: u64, signer: usize) -> bool {
        match level {
            RecoveryLevel::Session => self.renew_session(signer),
            RecoveryLevel::Login | RecoveryLevel::Initialize => self.renew(level, Some(renewals)),
        }
    }

    /// Opens a new session for this signer alone.
    fn renew_session(&self, signer: usize) -> bool {
        let pool = self
            .pool
            .read()
            .expect("no thread panics while it holds the pool");
        let mut slot = lock(&pool.slots[signer]);
        if !may_again(&mut slot.renewed, SESSION_INTERVAL) {
            return false;
        }
        self.health.count(|done| done.sessions += 1);
        let _watched = self.watch_renewal(signer);
        // The failed session is closed first: the token may have no room for one more.
        slot.token = None;
        slot.token = lock(&self.login).open().ok();
        slot.token.is_some()
    }

    /// Renews the sessions of all signers. `failed` is the number of the renewal whose sessions
    /// failed: if there has been a newer one, another thread has recovered already.
    fn renew(&self, level: RecoveryLevel, failed: Option<u64>) -> bool {
        let mut pool = self
            .pool
            .write()
            .expect("no thread panics while it holds the pool");
        if failed.is_some_and(|renewals| renewals != pool.renewals) {
            return true;
        }
        let mut login = lock(&self.login);
        if !login.may_recover(level) {
            return false;
        }
        pool.renewals += 1;
        let _watched = self.watch_renewal(pool.slots.len());
        let mut renewed = self.renewed(level, &mut pool, &mut login);
        // A test signature may have shown it.
        if let Some(error) = login.take_refused() {
            renewed = Err(error);
        }
        // A token that was reset needs more than a login. The next level follows at once: callers
        // wait, and the pool is held already.
        if level == RecoveryLevel::Login && matches!(renewed, Err(TokenError::Unavailable { .. })) {
            renewed = self.renewed(RecoveryLevel::Initialize, &mut pool, &mut login);
        }
        // Before the state: a token that is reported ready must not show the old keys.
        self.health.set_keys(self.used_keys.reports());
        self.set_remark(login.key_remark());
        match &renewed {
            Ok(()) => self
                .health
                .set(&self.name, TokenState::Ready, self.remarks()),
            Err(error) => {
                pool.drop_sessions();
                login.stop();
                self.health.set_failed(&self.name, error);
            }
        }
        renewed.is_ok()
    }

    /// Opens new sessions after a recovery of `level`, and proves the keys.
    fn renewed(
        &self,
        level: RecoveryLevel,
        pool: &mut SessionPool,
        login: &mut TokenLogin,
    ) -> Result<(), TokenError> {
        pool.drop_sessions();
        let mut tokens = login.renew(level, pool.slots.len(), &self.health)?;
        if let Some(token) = tokens.first_mut() {
            self.used_keys.prove_all(&self.name, token.as_mut())?;
        }
        pool.fill(tokens);
        Ok(())
    }

    /// Checks a token that works. If it fails, recovers before a request needs it.
    fn check_idle(&self) {
        let pool = self
            .pool
            .read()
            .expect("no thread panics while it holds the pool");
        let watched = self.watch_renewal(pool.slots.len());
        let remark = lock(&self.login).remark();
        drop(watched);
        match remark {
            Ok(remark) => {
                self.set_remark(remark);
                self.health.remark(&self.name, self.remarks());
            }
            Err(TokenError::Unavailable {
                level: Some(level),
                reason,
                ..
            }) => {
                tracing::warn!(token = self.name, reason, "idle token failed, recovering");
                let renewals = pool.renewals;
                drop(pool);
                self.renew(level.max(RecoveryLevel::Login), Some(renewals));
            }
            _ => {}
        }
    }

    /// Waits until the next [`probe`](Self::probe): briefly while the token is not ready; otherwise
    /// until it fails, or for the check interval if it has one. Returns false once closed.
    pub(super) fn wait_until_due(&self) -> bool {
        let pause = lock(&self.login).check_interval().unwrap_or(FOREVER);
        let is_ready = |health: &WorkerHealth| health.state == TokenState::Ready;
        // A new remark may change the check interval.
        let known = self.health.read().reason;
        let health = self
            .health
            .wait(pause, |health| !is_ready(health) || health.reason != known);
        if !is_ready(&health) {
            self.health.wait(PROBE_PERIOD, |_| false);
        }
        !self.health.is_closed()
    }

    /// Ends every wait, now and later.
    pub(super) fn close(&self) {
        self.health.close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.health.is_closed()
    }

    /// Checks a ready token and recovers an unavailable one, without a request.
    pub(super) fn probe(&self) {
        let is_due = match self.health.read().state {
            TokenState::Ready => return self.check_idle(),
            TokenState::Starting | TokenState::Unavailable => true,
            TokenState::Parked => lock(&self.login).may_leave_park(),
        };
        if is_due {
            self.renew(RecoveryLevel::Initialize, None);
        }
    }

    /// Returns true if a new process should try. A process in which the token was never ready keeps
    /// trying, so that an absent token does not restart one process after the other.
    pub(super) fn needs_new_process(&self) -> bool {
        self.health
            .lost_for()
            .is_some_and(|lost| lost >= NEW_PROCESS_AFTER)
    }

    /// Drops every session, then finalizes the library. No operation may follow.
    pub(super) fn stop(&self) {
        let mut pool = self
            .pool
            .write()
            .expect("no thread panics while it holds the pool");
        pool.drop_sessions();
        lock(&self.login).stop();
    }

    fn watch_renewal(&self, slot: usize) -> Watched<'_> {
        self.watchdog
            .watch(slot, "recovery", Instant::now() + RENEWAL_DEADLINE)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("no thread panics while it holds a slot or the login")
}

#[cfg(test)]
mod tests;

//! The recovery ladder: from a failed operation back to a token that signs.
//!
//! Rungs, lowest first: a new session; log out, log in and find the keys again; finalize,
//! initialise, log in and find. Each is rate-limited and counted. After every login the keys used so
//! far make a test signature that must verify, before the token counts as ready. The level above is
//! another process: [`Recovery::needs_new_process`] says when this one has tried for long enough.
//!
//! Every operation holds the pool for reading; to log in again or to finalize, it is taken for
//! writing. So nobody is inside the module when its sessions are dropped. A call that hangs keeps
//! the ladder out: that is the watchdog's case.
//!
//! Never creates or deletes a key, and never gives up: what cannot be healed now is tried again.

use super::health::{HealthCell, TokenState, WorkerHealth};
use super::login::{TokenLogin, may_again};
use super::used_keys::UsedKeys;
use super::watchdog::{Watchdog, Watched};
use crate::token::credential::{NotACredential, check_assertion, check_shared_access};
use crate::token::protocol::{Answer, Operation};
use crate::token::{RecoveryLevel, Token, TokenError};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, TryLockError};
use std::time::{Duration, Instant, SystemTime};

/// Shortest time between two new sessions of one signer.
const SESSION_INTERVAL: Duration = Duration::from_millis(100);

/// How long finalize, initialize, login and proofs may take before they count as hung.
pub(super) const RENEWAL_DEADLINE: Duration = Duration::from_secs(60);

/// How long a token that was ready may be unavailable before another process is given a try: some
/// modules can be initialised once in a process, and not again.
const NEW_PROCESS_AFTER: Duration = Duration::from_secs(15);

/// How often an unhealthy token is tended without being asked.
const TEND_PERIOD: Duration = Duration::from_secs(1);

/// Longer than any health lasts.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// How often an operation that waits for a renewal looks whether it is over.
const RENEWAL_POLL: Duration = Duration::from_millis(1);

/// A token with its signers' sessions, and the way back when it fails.
pub(super) struct Recovery {
    name: String,
    pool: RwLock<SessionPool>,
    login: Mutex<TokenLogin>,
    used_keys: UsedKeys,
    /// What the token itself had to tell at the last look.
    remark: Mutex<Option<String>>,
    health: HealthCell,
    watchdog: Arc<Watchdog>,
}

/// The signers' slots. Locks are taken in this order: pool, slot, login.
struct SessionPool {
    /// Counts renewals, so that of many who saw one failure only the first climbs.
    generation: u64,
    slots: Vec<Mutex<SessionSlot>>,
}

/// One signer's session.
#[derive(Default)]
struct SessionSlot {
    token: Option<Box<dyn Token>>,
    renewed: Option<Instant>,
}

impl Recovery {
    /// A ladder on which nothing has been tried yet.
    ///
    /// `watchdog` has a slot for each signer, and one more for renewals.
    pub(super) fn new(
        name: &str,
        signers: usize,
        login: TokenLogin,
        watchdog: Arc<Watchdog>,
    ) -> Self {
        let slots = (0..signers).map(|_| Mutex::default()).collect();
        Recovery {
            name: name.to_owned(),
            pool: RwLock::new(SessionPool {
                generation: 0,
                slots,
            }),
            login: Mutex::new(login),
            used_keys: UsedKeys::default(),
            remark: Mutex::default(),
            health: HealthCell::starting(),
            watchdog,
        }
    }

    /// How the token is.
    pub(super) fn health(&self) -> WorkerHealth {
        self.health.read()
    }

    /// How the token is once that is another health than `known`, or after `pause`.
    pub(super) fn health_unlike(&self, known: &WorkerHealth, pause: Duration) -> WorkerHealth {
        self.health.wait(pause, |health| health != known)
    }

    /// Does `operation` on the session of `signer`, and climbs when it fails for a reason that
    /// climbing may heal. What is not repeatable is not done twice, whatever was healed. An
    /// operation that has to wait for a renewal is not begun after `deadline`.
    pub(super) fn perform(
        &self,
        signer: usize,
        operation: &Operation,
        deadline: Instant,
    ) -> Result<Answer, TokenError> {
        let (mut generation, mut outcome) = self.attempt(signer, operation, deadline)?;
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
                ?level,
                reason,
                "operation failed, recovering"
            );
            if !self.recover(level, generation, signer) {
                continue;
            }
            if !operation.is_repeatable() {
                return outcome;
            }
            (generation, outcome) = self.attempt(signer, operation, deadline)?;
        }
        match outcome {
            Err(error @ TokenError::Unavailable { level: Some(_), .. }) => Err(self.stuck(error)),
            outcome => outcome,
        }
    }

    /// What is answered when climbing did not help. A ladder that was climbed too recently leaves
    /// the token to the prober; one that failed has found out more than what made it climb.
    fn stuck(&self, error: TokenError) -> TokenError {
        if self.health.read().state == TokenState::Ready {
            self.health.set_failed(&self.name, &error);
            return error;
        }
        self.absent()
    }

    /// Does it once, and tells on which generation of sessions.
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
                match operation {
                    Operation::Prove(key) => {
                        let proven = self.used_keys.prove(&self.name, token.as_mut(), key);
                        proven.map(Answer::Key)
                    }
                    _ => apply(&self.name, token.as_mut(), operation),
                }
            }
            None => Err(self.absent()),
        };
        self.note_use(operation, outcome.is_ok());
        Ok((pool.generation, outcome))
    }

    /// Remembers which key was used and for what, and has the daemon told what is new.
    fn note_use(&self, operation: &Operation, done: bool) {
        match operation {
            Operation::Prove(_) => {}
            Operation::Sign { key, .. } if done => {
                if !self.used_keys.remember(key) {
                    return;
                }
            }
            Operation::Destroy(key) if done => return self.used_keys.forget(key),
            Operation::Generate(specification) if done => {
                self.used_keys.forget_replaced(&specification.id);
            }
            Operation::SignAssertion { key, .. } if done => self.used_keys.count_assertion(key),
            Operation::Hmac { label, .. } if done => self.used_keys.count_hmac(label),
            _ => return,
        }
        self.tell_keys();
    }

    fn tell_keys(&self) {
        let remark = lock(&self.login).key_remark();
        if remark.is_some() {
            self.set_remark(remark);
        }
        self.health.set_keys(self.used_keys.reports());
        self.health.remark(&self.name, self.remarks());
    }

    /// What an operator should know of a token that works, in words.
    fn remarks(&self) -> String {
        let remark = self.remark.lock();
        let remark = remark.expect("no thread panics while it holds the remark");
        let keys = self.used_keys.remarks().into_iter();
        keys.chain(remark.clone()).collect::<Vec<_>>().join("; ")
    }

    fn set_remark(&self, remark: Option<String>) {
        let kept = self.remark.lock();
        *kept.expect("no thread panics while it holds the remark") = remark;
    }

    /// The pool, once no renewal holds it.
    fn pool_before(
        &self,
        deadline: Instant,
    ) -> Result<RwLockReadGuard<'_, SessionPool>, TokenError> {
        loop {
            match self.pool.try_read() {
                Ok(pool) => return Ok(pool),
                Err(TryLockError::Poisoned(_)) => unreachable!("nobody panics holding the pool"),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(RENEWAL_POLL);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(TokenError::unavailable(&self.name, "it is being recovered"));
                }
            }
        }
    }

    /// What a signer without session answers: the cause, and a level only if nobody is at it.
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

    /// Climbs one level after a failure on `generation`; true if it is worth trying again.
    fn recover(&self, level: RecoveryLevel, generation: u64, signer: usize) -> bool {
        match level {
            RecoveryLevel::Session => self.renew_session(signer),
            RecoveryLevel::Login | RecoveryLevel::Initialize => self.renew(level, Some(generation)),
        }
    }

    /// The lowest level: another session for this signer alone.
    fn renew_session(&self, signer: usize) -> bool {
        let pool = self.pool.read().expect("nobody panics holding the pool");
        let mut slot = lock(&pool.slots[signer]);
        if !may_again(&mut slot.renewed, SESSION_INTERVAL) {
            return false;
        }
        self.health.count(|done| done.sessions += 1);
        let _watched = self.watch_renewal(signer);
        slot.token = None;
        slot.token = lock(&self.login).open().ok();
        slot.token.is_some()
    }

    /// The higher levels, for all signers. `seen` is the generation that failed: if there is a newer
    /// one, somebody else has climbed already.
    fn renew(&self, level: RecoveryLevel, seen: Option<u64>) -> bool {
        let mut pool = self.pool.write().expect("nobody panics holding the pool");
        if seen.is_some_and(|generation| generation != pool.generation) {
            return true;
        }
        let mut login = lock(&self.login);
        if !login.may_recover(level) {
            return false;
        }
        pool.generation += 1;
        let _watched = self.watch_renewal(pool.slots.len());
        let mut renewed = self.renewed(level, &mut pool, &mut login);
        if level == RecoveryLevel::Login && matches!(renewed, Err(TokenError::Unavailable { .. })) {
            renewed = self.renewed(RecoveryLevel::Initialize, &mut pool, &mut login);
        }
        // Before the state: a token that is told to be ready must not show keys as they were.
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

    /// Everything new from `level` on, and proven.
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
        pool.slot(tokens);
        Ok(())
    }

    /// Looks at a token that works. One that fails now is healed before somebody needs it.
    fn look(&self) {
        let pool = self.pool.read().expect("nobody panics holding the pool");
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
                let generation = pool.generation;
                drop(pool);
                self.renew(level.max(RecoveryLevel::Login), Some(generation));
            }
            _ => {}
        }
    }

    /// Waits until the token has to be tended: soon, while it is not ready; if it is, when it fails
    /// or, where the token has something to tell at rest, from time to time. False once closed.
    pub(super) fn wait_until_due(&self) -> bool {
        let pause = lock(&self.login).look_interval().unwrap_or(FOREVER);
        let is_ready = |health: &WorkerHealth| health.state == TokenState::Ready;
        // A new remark may change how often the token is looked at.
        let known = self.health.read().reason;
        let health = self
            .health
            .wait(pause, |health| !is_ready(health) || health.reason != known);
        if !is_ready(&health) {
            self.health.wait(TEND_PERIOD, |_| false);
        }
        !self.health.is_closed()
    }

    /// Ends all waiting.
    pub(super) fn close(&self) {
        self.health.close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.health.is_closed()
    }

    /// What the prober does when that is due: heals without traffic.
    pub(super) fn tend(&self) {
        let is_due = match self.health.read().state {
            TokenState::Ready => return self.look(),
            TokenState::Starting | TokenState::Unavailable => true,
            TokenState::Parked => lock(&self.login).may_leave_park(),
        };
        if is_due {
            self.renew(RecoveryLevel::Initialize, None);
        }
    }

    /// Whether another process should try. Never before this one had the token: a fresh process that
    /// cannot have it tries on, so an absent token costs one process and not one after the other.
    pub(super) fn needs_new_process(&self) -> bool {
        self.health
            .lost_for()
            .is_some_and(|lost| lost >= NEW_PROCESS_AFTER)
    }

    /// Drops every session, then brings the library down. Afterwards no signer may come back.
    pub(super) fn stop(&self) {
        let mut pool = self.pool.write().expect("nobody panics holding the pool");
        pool.drop_sessions();
        lock(&self.login).stop();
    }

    fn watch_renewal(&self, slot: usize) -> Watched<'_> {
        self.watchdog
            .watch(slot, "recovery", Instant::now() + RENEWAL_DEADLINE)
    }
}

impl SessionPool {
    fn drop_sessions(&mut self) {
        for slot in &mut self.slots {
            unlocked(slot).token = None;
        }
    }

    fn slot(&mut self, tokens: Vec<Box<dyn Token>>) {
        for (slot, token) in self.slots.iter_mut().zip(tokens) {
            unlocked(slot).token = Some(token);
        }
    }
}

fn unlocked(slot: &mut Mutex<SessionSlot>) -> &mut SessionSlot {
    slot.get_mut()
        .expect("no thread panics while it holds a slot")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("no thread panics while it holds a slot or the login")
}

/// An operation of the protocol as a call of the trait. What a credential key shall sign is looked
/// at here: the client is not believed.
fn apply(name: &str, token: &mut dyn Token, operation: &Operation) -> Result<Answer, TokenError> {
    let refused = |reason: String| TokenError::Refused {
        token: name.to_owned(),
        operation: operation.name().to_owned(),
        reason,
    };
    let not_signed = |reason: NotACredential| refused(reason.to_string());
    let now = SystemTime::now();
    Ok(match operation {
        Operation::Describe => Answer::Token(token.describe()?),
        Operation::Inventory => Answer::Inventory(token.inventory()?),
        Operation::Find(key) => Answer::Key(token.find(key)?),
        Operation::FindById(id) => token.find_by_id(id)?.map_or(Answer::NoKey, Answer::Key),
        Operation::Generate(specification) => Answer::Key(token.generate(specification)?),
        Operation::Sign {
            key,
            algorithm,
            message,
        } => Answer::Signature(token.sign(key, *algorithm, message)?),
        Operation::Destroy(key) => {
            token.destroy(key)?;
            Answer::Destroyed
        }
        Operation::SignAssertion { key, input } => {
            check_assertion(input, now).map_err(not_signed)?;
            Answer::Signature(token.sign_assertion(key, input)?)
        }
        Operation::Hmac { label, text } => {
            check_shared_access(text, now).map_err(not_signed)?;
            Answer::Signature(token.hmac_sha256(label, text)?)
        }
        Operation::ImportSecret { label, secret } => {
            token.import_secret(label, &secret.expose())?;
            Answer::Imported
        }
        Operation::DestroySecret(label) => {
            token.destroy_secret(label)?;
            Answer::Destroyed
        }
        Operation::Health { .. } | Operation::Prove(_) => {
            return Err(refused("it is no operation of a token".into()));
        }
    })
}

#[cfg(test)]
mod tests;

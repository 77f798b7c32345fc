//! How a token is, as its worker tells it.

use crate::token::TokenError;
use serde::{Deserialize, Serialize};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The states of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenState {
    /// Not tried yet, or the worker is being started.
    Starting,
    /// Logged in, test signatures verified.
    Ready,
    /// It does not answer; the ladder is at work.
    Unavailable,
    /// The PIN is refused or locked; nothing is tried until the operator changes something.
    Parked,
}

impl TokenState {
    /// Its name in status and logs.
    pub fn name(self) -> &'static str {
        match self {
            TokenState::Starting => "starting",
            TokenState::Ready => "ready",
            TokenState::Unavailable => "unavailable",
            TokenState::Parked => "parked",
        }
    }
}

/// How often each rung of the ladder was climbed since the worker started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryCounters {
    /// Sessions replaced.
    pub sessions: u64,
    /// `C_Login` calls, the first one included.
    pub logins: u64,
    /// `C_Initialize` calls, the first one included.
    pub initializations: u64,
}

/// What a key was used for that is on no record, and whether it signs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyReport {
    /// SHA-256 of the SubjectPublicKeyInfo; `None` for a shared secret.
    pub spki_sha256: Option<[u8; 32]>,
    /// `CKA_LABEL`.
    pub label: String,
    /// Test signatures that the token has made with it since the worker started.
    pub proofs: u64,
    /// Assertions or codes that it has made as a credential's key since the worker started.
    pub credentials: u64,
    /// Why it does not sign; `None` if it does.
    pub unusable: Option<String>,
}

/// What a worker says of itself and its token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerHealth {
    /// Random, another one for each process: the counts of `keys` are its own.
    pub worker: [u8; 8],
    /// The state.
    pub state: TokenState,
    /// Why, for the operator; empty when there is nothing to say.
    pub reason: String,
    /// Since when, in milliseconds of Unix time.
    pub since_unix_ms: u64,
    /// The ladder's work so far.
    pub recoveries: RecoveryCounters,
    /// The keys that were used so far.
    pub keys: Vec<KeyReport>,
}

/// The health that a worker's threads keep between them.
pub(super) struct HealthCell {
    kept: Mutex<Kept>,
    changed: Condvar,
}

struct Kept {
    health: WorkerHealth,
    /// Since when it has been unavailable, if it was ready before.
    lost: Option<Instant>,
    /// The worker ends: nobody waits any more.
    closed: bool,
}

impl HealthCell {
    pub(super) fn starting() -> Self {
        let mut worker = [0; 8];
        aws_lc_rs::rand::fill(&mut worker).expect("aws-lc's generator has passed its self-test");
        let health = WorkerHealth {
            worker,
            state: TokenState::Starting,
            reason: String::new(),
            since_unix_ms: unix_ms(SystemTime::now()),
            recoveries: RecoveryCounters::default(),
            keys: Vec::new(),
        };
        HealthCell {
            kept: Mutex::new(Kept {
                health,
                lost: None,
                closed: false,
            }),
            changed: Condvar::new(),
        }
    }

    pub(super) fn read(&self) -> WorkerHealth {
        self.lock().health.clone()
    }

    /// The health once `is_awaited`, after `pause` at the latest, and at once when closed.
    pub(super) fn wait(
        &self,
        pause: Duration,
        is_awaited: impl Fn(&WorkerHealth) -> bool,
    ) -> WorkerHealth {
        let waited = self.changed.wait_timeout_while(self.lock(), pause, |kept| {
            !kept.closed && !is_awaited(&kept.health)
        });
        let (kept, _) = waited.expect("no thread panics while it holds the health");
        kept.health.clone()
    }

    /// Whoever waits, now or later, waits no more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// For how long a token has been unavailable that was ready once in this process.
    pub(super) fn lost_for(&self) -> Option<Duration> {
        self.lock().lost.map(|since| since.elapsed())
    }

    /// Sets state and reason; `since` moves with the state only. Logged when it is news.
    pub(super) fn set(&self, token: &str, state: TokenState, reason: String) {
        let mut kept = self.lock();
        kept.lost = match (kept.health.state, state) {
            (_, TokenState::Starting | TokenState::Ready | TokenState::Parked) => None,
            (TokenState::Ready, TokenState::Unavailable) => Some(Instant::now()),
            (_, TokenState::Unavailable) => kept.lost,
        };
        let health = &mut kept.health;
        if (health.state, &health.reason) != (state, &reason) {
            tracing::info!(token, ?state, reason, "token health");
        }
        if health.state != state {
            health.since_unix_ms = unix_ms(SystemTime::now());
        }
        (health.state, health.reason) = (state, reason);
        self.changed.notify_all();
    }

    /// What an operator should know of a token that works. One that has failed meanwhile stays so.
    pub(super) fn remark(&self, token: &str, reason: String) {
        let health = &mut self.lock().health;
        if health.state == TokenState::Ready && health.reason != reason {
            tracing::info!(token, reason, "token remark");
            health.reason = reason;
            self.changed.notify_all();
        }
    }

    /// Takes state and reason from what went wrong.
    pub(super) fn set_failed(&self, token: &str, error: &TokenError) {
        match error {
            TokenError::Parked { reason, .. } => {
                self.set(token, TokenState::Parked, reason.clone());
            }
            TokenError::Unavailable { reason, .. } => {
                self.set(token, TokenState::Unavailable, reason.clone());
            }
            other => self.set(token, TokenState::Unavailable, other.to_string()),
        }
    }

    /// Tells what became of the keys.
    pub(super) fn set_keys(&self, keys: Vec<KeyReport>) {
        let health = &mut self.lock().health;
        if health.keys != keys {
            health.keys = keys;
            self.changed.notify_all();
        }
    }

    pub(super) fn count(&self, add: impl FnOnce(&mut RecoveryCounters)) {
        add(&mut self.lock().health.recoveries);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept
            .lock()
            .expect("no thread panics while it holds the health")
    }
}

/// Milliseconds of Unix time; zero for a clock before 1970.
pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

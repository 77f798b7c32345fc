//! Shares the health of the token between the worker's threads.

use hallmark_protocol::TokenError;
use hallmark_protocol::health::{KeyReport, RecoveryCounters, Refusals, TokenState, WorkerHealth};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The health, shared by the worker's threads.
pub(super) struct HealthCell {
    kept: Mutex<Kept>,
    changed: Condvar,
}

struct Kept {
    health: WorkerHealth,
    /// When it became unavailable, if it was ready before.
    lost: Option<Instant>,
    /// The worker ends, and every wait returns at once.
    closed: bool,
}

impl HealthCell {
    pub(super) fn starting() -> Self {
        let mut worker = [0; 8];
        aws_lc_rs::rand::fill(&mut worker).expect("aws-lc's generator has passed its self-test");
        let health = WorkerHealth {
            worker,
            version: env!("CARGO_PKG_VERSION").into(),
            state: TokenState::Starting,
            reason: String::new(),
            since_unix_ms: unix_ms(SystemTime::now()),
            recoveries: RecoveryCounters::default(),
            refusals: Refusals::default(),
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

    /// Waits until `is_awaited`, for `pause` at most; returns the health. Returns at once when
    /// closed.
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

    /// Ends every wait, now and later.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Lets every waiting thread check again for what it waits.
    pub(super) fn wake_waiters(&self) {
        // With the lock: a thread that has just checked already waits for the notification.
        drop(self.lock());
        self.changed.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Returns for how long the token has been unavailable, if it was ready in this process before.
    pub(super) fn lost_for(&self) -> Option<Duration> {
        self.lock().lost.map(|since| since.elapsed())
    }

    /// Sets state and reason, and logs a change. `since` changes with the state only.
    pub(super) fn set(&self, token: &str, state: TokenState, reason: String) {
        let mut kept = self.lock();
        kept.lost = match (kept.health.state, state) {
            (_, TokenState::Starting | TokenState::Ready | TokenState::Parked) => None,
            (TokenState::Ready, TokenState::Unavailable) => Some(Instant::now()),
            (_, TokenState::Unavailable) => kept.lost,
        };
        let health = &mut kept.health;
        if (health.state, &health.reason) != (state, &reason) {
            tracing::info!(token, ?state, reason, "token state changed");
        }
        if health.state != state {
            health.since_unix_ms = unix_ms(SystemTime::now());
        }
        (health.state, health.reason) = (state, reason);
        self.changed.notify_all();
    }

    /// Sets the remark about a token that is ready; no effect if it is not ready any more.
    pub(super) fn remark(&self, token: &str, reason: String) {
        let health = &mut self.lock().health;
        if health.state == TokenState::Ready && health.reason != reason {
            tracing::info!(token, reason, "token remark changed");
            health.reason = reason;
            self.changed.notify_all();
        }
    }

    /// Sets state and reason from an error.
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

    /// Sets the reports about keys.
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

    /// Counts what the worker has refused; `what` has the operation, the key and the reason.
    pub(super) fn count_refusal(&self, what: String) {
        let refusals = &mut self.lock().health.refusals;
        refusals.count += 1;
        refusals.last = what;
        refusals.last_unix_ms = unix_ms(SystemTime::now());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept
            .lock()
            .expect("no thread panics while it holds the health")
    }
}

/// Returns milliseconds of Unix time; zero for a clock before 1970.
fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

//! What the service manager is told of a worker: how the token is, and that the worker lives.
//!
//! A token that is away is no failure of the worker: it is told as its status, and the watchdog is
//! fed. It is not fed when a thread of the worker hangs ([`watchdog`](super::watchdog)), nor when the
//! whole process does.

use super::health::WorkerHealth;
use super::recovery::Recovery;
use crate::notify::ServiceManager;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many times the service manager's watchdog is fed in its time.
const PINGS: u32 = 4;

/// How long nothing is told when there is no news.
const STATUS_PAUSE: Duration = Duration::from_secs(3600);

/// The service manager's watchdog, and when it is fed next.
pub(super) struct WatchdogPing {
    manager: Arc<dyn ServiceManager>,
    every: Duration,
    due: Instant,
}

impl WatchdogPing {
    /// If the service manager waits for it; due at once.
    pub(super) fn requested(manager: &Arc<dyn ServiceManager>) -> Option<Self> {
        Some(Self {
            every: manager.watchdog()? / PINGS,
            manager: Arc::clone(manager),
            due: Instant::now(),
        })
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Feeds it, if that is due.
    pub(super) fn send_if_due(&mut self, now: Instant) {
        if now >= self.due {
            self.manager.alive();
            self.due = now + self.every;
        }
    }
}

/// Tells how the token is whenever that changes, until the ladder is closed.
pub(super) fn tell_health(manager: &dyn ServiceManager, token: &str, recovery: &Recovery) {
    let mut health = recovery.health();
    while !recovery.is_closed() {
        manager.status(&status(token, &health));
        health = recovery.health_unlike(&health, STATUS_PAUSE);
    }
}

fn status(token: &str, health: &WorkerHealth) -> String {
    let state = health.state.name();
    match health.reason.as_str() {
        "" => format!("token {token} is {state}"),
        reason => format!("token {token} is {state}: {reason}"),
    }
}

//! Reports the token's state to the service manager, and pings its watchdog.
//!
//! An unavailable token is not a failure of the worker: the state is reported and the pings
//! continue. They stop when a thread of the worker hangs ([`watchdog`](super::watchdog)) or the
//! whole process does.

use super::recovery::Recovery;
use hallmark_base::notify::ServiceManager;
use hallmark_protocol::health::WorkerHealth;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pings within the watchdog's timeout.
const PINGS: u32 = 4;

/// How long to wait for a change of the state.
const STATUS_PAUSE: Duration = Duration::from_secs(3600);

/// Pings the service manager's watchdog.
pub(super) struct WatchdogPing {
    manager: Arc<dyn ServiceManager>,
    every: Duration,
    due: Instant,
}

impl WatchdogPing {
    /// Returns pings, the first due at once, if the service manager has a watchdog.
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

    /// Sends a ping if one is due.
    pub(super) fn send_if_due(&mut self, now: Instant) {
        if now >= self.due {
            self.manager.alive();
            self.due = now + self.every;
        }
    }
}

/// Reports the token's state whenever it changes, until the recovery is closed.
pub(super) fn report_health(manager: &dyn ServiceManager, token: &str, recovery: &Recovery) {
    while !recovery.is_closed() {
        let health = recovery.health();
        manager.status(&status(token, &health));
        recovery.wait_for_change(&health, STATUS_PAUSE, || false);
    }
}

fn status(token: &str, health: &WorkerHealth) -> String {
    let state = health.state.name();
    match health.reason.as_str() {
        "" => format!("token {token} is {state}"),
        reason => format!("token {token} is {state}: {reason}"),
    }
}

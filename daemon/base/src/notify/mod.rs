//! Sends the state of a process to systemd (`sd_notify(3)`), and its log to the journal.
//!
//! Without `$NOTIFY_SOCKET` nothing is sent. This module never decides what to report: its callers
//! do. A message that cannot be sent is logged and dropped; after a missing watchdog ping, systemd
//! restarts the service.

pub mod journal;

use crate::printable;
use std::iter::once;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use systemd::daemon;

/// Environment variables by which systemd hands sockets, notifications and watchdog to one process.
/// A child process must not inherit them.
pub const SERVICE_VARIABLES: [&str; 6] = [
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// Receives the state of a process: systemd, where it started the process.
pub trait ServiceManager: Send + Sync {
    /// Reports that the process does its work.
    fn ready(&self);
    /// Shows the state of the process in one line, for `systemctl status`.
    fn status(&self, line: &str);
    /// Reports that everything makes progress.
    fn alive(&self);
    /// Returns how long [`alive`](Self::alive) may stay away before the process is ended, if
    /// limited.
    fn watchdog(&self) -> Option<Duration>;
}

/// The longest status line, in characters: it is one line of `systemctl status`.
const STATUS_LENGTH_MAX: usize = 512;

/// The service manager of this process.
#[derive(Debug, Default)]
pub struct Systemd {
    /// The last status line; an equal one is not sent again.
    status: Mutex<String>,
}

impl Systemd {
    /// Returns systemd, if it started this process as a service that notifies.
    pub fn here() -> Option<Self> {
        std::env::var_os("NOTIFY_SOCKET").map(|_| Self::default())
    }

    /// Reports that the configuration is read again; [`ready`](ServiceManager::ready) follows in
    /// every case.
    pub fn reloading(&self) {
        tell(daemon::STATE_RELOADING, "1");
    }

    /// Reports that the process ends, as requested.
    pub fn stopping(&self) {
        tell(daemon::STATE_STOPPING, "1");
    }
}

impl ServiceManager for Systemd {
    fn ready(&self) {
        tell(daemon::STATE_READY, "1");
    }

    fn status(&self, line: &str) {
        let line: String = printable::line(line)
            .chars()
            .take(STATUS_LENGTH_MAX)
            .collect();
        let mut sent = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if *sent != line {
            tell(daemon::STATE_STATUS, &line);
            *sent = line;
        }
    }

    fn alive(&self) {
        tell(daemon::STATE_WATCHDOG, "1");
    }

    fn watchdog(&self) -> Option<Duration> {
        match daemon::watchdog_enabled() {
            Ok(0) => None,
            Ok(microseconds) => Some(Duration::from_micros(microseconds)),
            Err(error) => {
                tracing::warn!(%error, "watchdog interval of systemd unreadable");
                None
            }
        }
    }
}

fn tell(name: &str, value: &str) {
    if let Err(error) = daemon::notify(once(&(name, value))) {
        tracing::warn!(%error, name, "systemd notification failed");
    }
}

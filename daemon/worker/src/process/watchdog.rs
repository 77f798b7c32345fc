//! Ends the process when a call into the module does not return.
//!
//! No code of this process can end such a call. The supervisor starts the worker again; under
//! systemd `Restart=on-failure` does. The supervisor of the daemon also watches from outside,
//! for a process that is stopped as a whole.

use super::deadline_timer::DeadlineTimer;
use super::service_watchdog::WatchdogPing;
use rustix::process::{Signal, getpid, kill_process};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How far beyond its deadline an operation may run before it counts as hung.
const GRACE: Duration = Duration::from_secs(3);

/// The current call of each watched thread, with its deadline.
pub(super) struct Watchdog {
    threads: Vec<Mutex<Option<Call>>>,
    timer: DeadlineTimer,
}

#[derive(Clone, Copy)]
struct Call {
    operation: &'static str,
    deadline: Instant,
}

/// A watched call; dropping it ends the watch.
pub(super) struct Watched<'a>(&'a Mutex<Option<Call>>);

impl Watchdog {
    /// Makes a watchdog of this many threads and the prober.
    pub(super) fn new(threads: usize) -> Self {
        Watchdog {
            threads: (0..=threads).map(|_| Mutex::new(None)).collect(),
            timer: DeadlineTimer::default(),
        }
    }

    /// Watches one call of `thread`.
    pub(super) fn watch(
        &self,
        thread: usize,
        operation: &'static str,
        deadline: Instant,
    ) -> Watched<'_> {
        let thread = &self.threads[thread];
        *thread
            .lock()
            .expect("no thread panics while it holds a watch") = Some(Call {
            operation,
            deadline,
        });
        self.timer.arm(hung_after(deadline));
        Watched(thread)
    }

    /// Watches the prober, which may wait for another watched thread.
    pub(super) fn watch_prober(&self, deadline: Instant) -> Watched<'_> {
        self.watch(self.threads.len() - 1, "probe", deadline)
    }

    /// Runs for ever. Pings the service manager's watchdog while no call hangs.
    pub(super) fn run(&self, token: &str, mut ping: Option<WatchdogPing>) {
        loop {
            if let Some(ping) = &ping {
                self.timer.arm(ping.due());
            }
            self.timer.wait();
            if let Some(call) = self.hung(Instant::now()) {
                tracing::error!(
                    token,
                    operation = call.operation,
                    "module call hangs, ending worker"
                );
                // `exit` would run the module's destructors while a thread is inside the module.
                let _ = kill_process(getpid(), Signal::KILL);
            }
            if let Some(ping) = &mut ping {
                ping.send_if_due(Instant::now());
            }
            if let Some(next) = self.calls().map(|call| hung_after(call.deadline)).min() {
                self.timer.arm(next);
            }
        }
    }

    fn hung(&self, now: Instant) -> Option<Call> {
        self.calls().find(|call| now >= hung_after(call.deadline))
    }

    fn calls(&self) -> impl Iterator<Item = Call> {
        self.threads.iter().filter_map(|thread| {
            *thread
                .lock()
                .expect("no thread panics while it holds a watch")
        })
    }
}

fn hung_after(deadline: Instant) -> Instant {
    deadline + GRACE
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        *self
            .0
            .lock()
            .expect("no thread panics while it holds a watch") = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_as_hung_after_deadline_and_grace_and_not_once_it_is_back() {
        let watchdog = Watchdog::new(2);
        let now = Instant::now();
        let watched = watchdog.watch(1, "sign", now);
        assert!(watchdog.hung(now).is_none());
        let late = now + GRACE;
        assert_eq!(watchdog.hung(late).map(|call| call.operation), Some("sign"));
        drop(watched);
        assert!(watchdog.hung(late).is_none());
    }
}

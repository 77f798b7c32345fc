//! Wakes a thread at the earliest of many deadlines.
//!
//! The thread sleeps for ever while there is no deadline. A later deadline does not wake it, so
//! under load it wakes once per deadline period and not at each call. It may wake for a deadline
//! that does not exist any more; then it checks and sleeps again.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The earliest known deadline.
#[derive(Default)]
pub(super) struct DeadlineTimer {
    next: Mutex<Option<Instant>>,
    earlier: Condvar,
}

impl DeadlineTimer {
    /// Makes [`wait`](Self::wait) return at `moment` or before.
    pub(super) fn arm(&self, moment: Instant) {
        let mut next = self.next();
        if next.is_none_or(|next| moment < next) {
            *next = Some(moment);
            self.earlier.notify_one();
        }
    }

    /// Waits for the earliest deadline, and clears it: deadlines that still hold must be set again.
    pub(super) fn wait(&self) {
        let mut next = self.next();
        loop {
            let left = next.map(|next| next.saturating_duration_since(Instant::now()));
            next = match left {
                Some(Duration::ZERO) => break,
                Some(left) => {
                    let waited = self.earlier.wait_timeout(next, left);
                    waited
                        .expect("no thread panics while it holds the moment")
                        .0
                }
                None => {
                    let waited = self.earlier.wait(next);
                    waited.expect("no thread panics while it holds the moment")
                }
            };
        }
        *next = None;
    }

    fn next(&self) -> MutexGuard<'_, Option<Instant>> {
        self.next
            .lock()
            .expect("no thread panics while it holds the moment")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_deadline_counts_in_any_order() {
        let timer = DeadlineTimer::default();
        let now = Instant::now();
        std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                timer.wait();
                Instant::now()
            });
            for milliseconds in [600_000, 50, 900_000] {
                timer.arm(now + Duration::from_millis(milliseconds));
            }
            let looked = watcher.join().expect("does not panic");
            assert!(looked >= now + Duration::from_millis(50));
            assert!(looked < now + Duration::from_secs(600));
        });
        assert_eq!(*timer.next(), None, "a deadline is cleared");
    }
}

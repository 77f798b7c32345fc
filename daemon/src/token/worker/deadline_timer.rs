//! When somebody has to look at something: the earliest of many deadlines.
//!
//! Who watches sleeps until then, and for ever while there is no deadline at all. A later deadline
//! wakes nobody, so under load a watcher wakes once in the length of a deadline and not at each call.
//! It may wake for a deadline that is no more: it looks, and sleeps on.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The earliest deadline that is known.
#[derive(Default)]
pub(super) struct DeadlineTimer {
    next: Mutex<Option<Instant>>,
    earlier: Condvar,
}

impl DeadlineTimer {
    /// Sees to it that there is a look at `moment` or before.
    pub(super) fn arm(&self, moment: Instant) {
        let mut next = self.next();
        if next.is_none_or(|next| moment < next) {
            *next = Some(moment);
            self.earlier.notify_one();
        }
    }

    /// Waits until it is time to look. What has to be looked at again afterwards is said again.
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
    fn the_earliest_deadline_counts_whenever_it_was_said() {
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
        assert_eq!(*timer.next(), None, "what is still due is said again");
    }
}

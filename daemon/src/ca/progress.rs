//! What is under way, and by when it should be done: promises that the loops around the application
//! make, and that the watchdog looks at.
//!
//! A promise is kept by dropping it in time. It must not be made for longer than what it stands for
//! may really take: a bound is named where the work is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// All promises that stand.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<Standing>>);

#[derive(Debug, Default)]
struct Standing {
    made: u64,
    promises: BTreeMap<u64, (String, Instant)>,
}

/// One promise; dropping it keeps it.
#[derive(Debug)]
pub struct Promise {
    progress: Progress,
    number: u64,
}

impl Progress {
    /// Promises that `what` is done within `bound`.
    pub fn promise(&self, what: impl Into<String>, bound: Duration) -> Promise {
        let what = what.into();
        let until = Instant::now() + bound_of(&what, bound);
        let mut standing = self.standing();
        standing.made += 1;
        let number = standing.made;
        standing.promises.insert(number, (what, until));
        Promise {
            progress: self.clone(),
            number,
        }
    }

    /// What should be done at `now` and is not.
    pub fn broken(&self, now: Instant) -> Option<String> {
        let standing = self.standing();
        let mut promises = standing.promises.values();
        let broken = promises.find(|(_, until)| now > *until);
        broken.map(|(what, _)| what.clone())
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        super::lock(&self.0)
    }
}

/// `bound`; no time at all for what a test names: `FAILPOINTS="overdue=return(PART OF IT)"`.
#[cfg_attr(not(feature = "failpoints"), expect(unused_variables))]
fn bound_of(what: &str, bound: Duration) -> Duration {
    fail::fail_point!("overdue", |named| {
        let is_named = named.is_some_and(|named| what.contains(&named));
        if is_named { Duration::ZERO } else { bound }
    });
    bound
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.progress.standing().promises.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_broken_when_it_is_late_and_no_more_when_it_is_kept() {
        let progress = Progress::default();
        let minute = Duration::from_secs(60);
        let slow = progress.promise("slow", 10 * minute);
        let quick = progress.promise("quick", minute);
        let now = Instant::now();
        assert_eq!(progress.broken(now), None);
        let late = now + 2 * minute;
        assert_eq!(progress.broken(late).as_deref(), Some("quick"));
        drop(quick);
        assert_eq!(progress.broken(late), None);
        assert_eq!(progress.broken(now + 20 * minute).as_deref(), Some("slow"));
        drop(slow);
    }
}

//! Records what is being done and until when it must be done, so that the watchdog can tell whether
//! the daemon makes progress.
//!
//! The loops around the application set a deadline before each step and drop it afterwards. A
//! deadline must not allow more time than the step can really take; the constant that sets the time
//! is beside the step.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// All open deadlines.
#[derive(Clone, Debug, Default)]
pub struct Liveness(Arc<Mutex<Deadlines>>);

#[derive(Debug, Default)]
struct Deadlines {
    set: u64,
    open: BTreeMap<u64, (String, Instant)>,
}

/// One open deadline; dropping it closes it.
#[derive(Debug)]
pub struct Deadline {
    liveness: Liveness,
    number: u64,
}

impl Liveness {
    /// Opens a deadline: `what` must be done within `bound`.
    pub fn deadline(&self, what: impl Into<String>, bound: Duration) -> Deadline {
        let what = what.into();
        let until = Instant::now() + bound_of(&what, bound);
        let mut deadlines = self.deadlines();
        deadlines.set += 1;
        let number = deadlines.set;
        deadlines.open.insert(number, (what, until));
        Deadline {
            liveness: self.clone(),
            number,
        }
    }

    /// Returns what should have been done before `now` and is not.
    pub fn overdue(&self, now: Instant) -> Option<String> {
        let deadlines = self.deadlines();
        let overdue = deadlines.open.values().find(|(_, until)| now > *until);
        overdue.map(|(what, _)| what.clone())
    }

    fn deadlines(&self) -> MutexGuard<'_, Deadlines> {
        super::lock(&self.0)
    }
}
/// Returns `bound`, or zero for what a test names: `FAILPOINTS="overdue=return(PART OF IT)"`.
#[cfg_attr(not(feature = "failpoints"), expect(unused_variables))]
fn bound_of(what: &str, bound: Duration) -> Duration {
    fail::fail_point!("overdue", |named| {
        let is_named = named.is_some_and(|named| what.contains(&named));
        if is_named { Duration::ZERO } else { bound }
    });
    bound
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.liveness.deadlines().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_overdue_when_it_is_late_and_not_after_it_is_closed() {
        let liveness = Liveness::default();
        let minute = Duration::from_secs(60);
        let slow = liveness.deadline("slow", 10 * minute);
        let quick = liveness.deadline("quick", minute);
        let now = Instant::now();
        assert_eq!(liveness.overdue(now), None);
        let late = now + 2 * minute;
        assert_eq!(liveness.overdue(late).as_deref(), Some("quick"));
        drop(quick);
        assert_eq!(liveness.overdue(late), None);
        assert_eq!(liveness.overdue(now + 20 * minute).as_deref(), Some("slow"));
        drop(slow);
    }
}

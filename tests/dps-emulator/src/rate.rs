//! The service's rate limits (contract section 5): so many operations in any minute.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// When the operations of the last minute happened, by kind of limit.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    pub(crate) service: Rate,
    pub(crate) registrations: Rate,
}

#[derive(Debug, Default)]
pub(crate) struct Rate {
    taken: Mutex<VecDeque<Instant>>,
}

impl Rate {
    /// Take one operation of `limit` a minute, or say how many seconds to wait.
    pub(crate) fn take(&self, limit: Option<u32>, now: Instant) -> Result<(), u64> {
        let Some(limit) = limit else {
            return Ok(());
        };
        let mut taken = crate::lock(&self.taken);
        while taken
            .front()
            .is_some_and(|first| now.duration_since(*first) >= MINUTE)
        {
            taken.pop_front();
        }
        if taken.len() < usize::try_from(limit).unwrap_or(usize::MAX) {
            taken.push_back(now);
            return Ok(());
        }
        let oldest = taken
            .front()
            .map_or(Duration::ZERO, |first| now.duration_since(*first));
        Err(MINUTE.saturating_sub(oldest).as_secs() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_slides() {
        let rate = Rate::default();
        let start = Instant::now();
        assert_eq!(rate.take(Some(2), start), Ok(()));
        assert_eq!(rate.take(Some(2), start + Duration::from_secs(30)), Ok(()));
        assert_eq!(rate.take(Some(2), start + Duration::from_secs(40)), Err(21));
        assert_eq!(rate.take(Some(2), start + Duration::from_secs(60)), Ok(()));
        assert!(rate.take(Some(2), start + Duration::from_secs(61)).is_err());
    }
}

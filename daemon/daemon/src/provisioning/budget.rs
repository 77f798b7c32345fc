//! Limits all calls to a service to its operations per minute.
//!
//! Azure allows 1,000 operations of the service plane per minute and service; a client that uses
//! more is throttled, together with all other clients of that service. In any minute this budget
//! passes at most the configured number, bursts included.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The limit of Azure for the service plane.
pub const OPERATIONS_PER_MINUTE_DEFAULT: u32 = 1000;

/// How many operations may go at once after a quiet time, at most.
pub const BURST_MAX: u32 = 50;

/// A call that would have to wait longer is refused; the caller retries.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

const MINUTE: Duration = Duration::from_secs(60);

/// The rate as arithmetic: time since an arbitrary origin is a parameter.
///
/// `busy_until` is the moment at which everything granted would be paid for at the steady rate; an
/// operation goes as soon as that moment is at most a burst ahead.
#[derive(Debug)]
pub struct Bucket {
    per_operation: Duration,
    burst: u32,
    busy_until: Duration,
}

impl Bucket {
    /// For at most `per_minute` operations in any minute, bursts included.
    pub fn new(per_minute: u32) -> Self {
        let burst = (per_minute / 10).clamp(1, BURST_MAX);
        let refill = per_minute.saturating_sub(burst).max(1);
        Self {
            per_operation: MINUTE / refill,
            burst,
            busy_until: Duration::ZERO,
        }
    }

    /// Reserves `operations`, and says how long to wait before they may go. `Err` is the same
    /// when that is longer than `wait_max`; nothing is reserved then.
    pub fn reserve(
        &mut self,
        now: Duration,
        operations: u32,
        wait_max: Duration,
    ) -> Result<Duration, Duration> {
        let busy_until = self.busy_until.max(now) + self.per_operation * operations;
        let ahead = self.per_operation * self.burst.max(operations);
        let wait = busy_until.saturating_sub(ahead).saturating_sub(now);
        if wait > wait_max {
            return Err(wait);
        }
        self.busy_until = busy_until;
        Ok(wait)
    }

    /// Lets nothing new go before `until`, and no burst then: the service has asked for it.
    pub fn pause(&mut self, until: Duration) {
        let spent = self.per_operation * (self.burst - 1);
        self.busy_until = self.busy_until.max(until + spent);
    }
}

/// One budget, for all callers of one service.
#[derive(Debug)]
pub struct Budget {
    origin: Instant,
    bucket: Mutex<Bucket>,
}

impl Budget {
    /// For at most `per_minute` operations in any minute.
    pub fn new(per_minute: u32) -> Self {
        Self {
            origin: Instant::now(),
            bucket: Mutex::new(Bucket::new(per_minute)),
        }
    }

    /// Waits until `operations` may go. `Err` says when to come back, if that is too far off.
    ///
    /// A caller that gives up while it waits has spent its share all the same.
    pub async fn acquire(&self, operations: u32) -> Result<(), Duration> {
        let now = self.origin.elapsed();
        let wait = self.with_bucket(|bucket| bucket.reserve(now, operations, WAIT_MAX))?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// All callers wait for `pause`: one of them was throttled.
    pub fn pause(&self, pause: Duration) {
        let until = self.origin.elapsed() + pause;
        self.with_bucket(|bucket| bucket.pause(until));
    }

    fn with_bucket<T>(&self, use_bucket: impl FnOnce(&mut Bucket) -> T) -> T {
        // A panic cannot leave a bucket half changed: its arithmetic is assigned last.
        use_bucket(&mut self.bucket.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pause_holds_everybody() {
        let mut bucket = Bucket::new(1000);
        bucket.pause(Duration::from_secs(7));
        let wait = bucket.reserve(Duration::from_secs(2), 1, WAIT_MAX);
        assert_eq!(wait, Ok(Duration::from_secs(5)));
        bucket.pause(Duration::from_secs(100));
        assert!(bucket.reserve(Duration::from_secs(2), 1, WAIT_MAX).is_err());
    }

    #[tokio::test]
    async fn a_quiet_budget_lets_a_call_go_at_once() {
        let budget = Budget::new(1000);
        tokio::time::timeout(Duration::from_secs(1), budget.acquire(10))
            .await
            .unwrap()
            .unwrap();
    }

    proptest! {
        #[test]
        fn no_minute_sees_more_than_was_configured(
            per_minute in 10u32..2000,
            calls in prop::collection::vec(
                (0u64..3000, 1u32..10, prop::bool::weighted(0.05)), 1..400
            ),
        ) {
            let mut bucket = Bucket::new(per_minute);
            let (mut now, mut granted) = (Duration::ZERO, Vec::new());
            for (later_ms, operations, throttled) in calls {
                now += Duration::from_millis(later_ms);
                if throttled {
                    bucket.pause(now + Duration::from_secs(20));
                }
                if let Ok(wait) = bucket.reserve(now, operations, WAIT_MAX) {
                    prop_assert!(wait <= WAIT_MAX);
                    granted.push((now + wait, operations));
                }
            }
            granted.sort();
            for (start, _) in &granted {
                let window = granted.iter().filter(|(at, _)| at >= start && *at < *start + MINUTE);
                let spent: u32 = window.map(|(_, operations)| operations).sum();
                // One call of several operations may exceed a burst that is smaller than itself.
                prop_assert!(spent <= per_minute + 10, "{} in a minute of {}", spent, per_minute);
            }
        }
    }
}

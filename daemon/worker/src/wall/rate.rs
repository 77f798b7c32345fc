//! Bounds how many signatures of one class a key makes within an hour.

use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3600);

/// Signatures that a key may still make. It is full at first, and is full again after an hour
/// without signatures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    pub(super) fn full(per_hour: u32, now: Instant) -> Self {
        Self {
            left: f64::from(per_hour),
            at: now,
        }
    }

    /// Takes one signature. Returns false if none is left.
    pub(super) fn take(&mut self, per_hour: u32, now: Instant) -> bool {
        let most = f64::from(per_hour);
        let passed = now.saturating_duration_since(self.at).as_secs_f64() / HOUR.as_secs_f64();
        self.left = (self.left + passed * most).min(most);
        self.at = now;
        let is_left = self.left >= 1.0;
        if is_left {
            self.left -= 1.0;
        }
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_signs_so_often_in_an_hour_and_goes_on_as_time_passes() {
        let begun = Instant::now();
        let mut budget = Budget::full(60, begun);
        let taken = (0..100).filter(|_| budget.take(60, begun)).count();
        assert_eq!(taken, 60);
        let later = begun + Duration::from_secs(121);
        let taken = (0..100).filter(|_| budget.take(60, later)).count();
        assert_eq!(taken, 2);
        let next_day = begun + Duration::from_secs(86_400);
        let taken = (0..100).filter(|_| budget.take(60, next_day)).count();
        assert_eq!(taken, 60, "no more than a whole hour is saved");
    }

    #[test]
    fn a_limit_of_none_signs_nothing() {
        let now = Instant::now();
        assert!(!Budget::full(0, now).take(0, now + HOUR));
    }
}

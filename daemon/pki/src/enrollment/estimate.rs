//! Estimates how long the rest of a rollover takes, from what was measured.
//!
//! Pure. An estimate is the rate of the time that was measured, or the limit of the service that
//! does the work, or a date that is known. Where none of these says anything there is none.

use crate::unix_seconds::UnixSeconds;

/// The longest time that is measured, in seconds.
pub const WINDOW_SECONDS: i64 = 3_600;
/// A shorter time than this says nothing about a rate.
const RATE_FROM_SECONDS: i64 = 60;
/// A shorter time than this without progress says nothing.
const NO_PROGRESS_FROM_SECONDS: i64 = 300;

/// Work that was measured until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// The work that is left.
    pub open: u64,
    /// The work that was done in these seconds.
    pub done: u64,
    pub seconds: i64,
    /// How much a minute is allowed at most.
    pub per_minute: Option<u32>,
}

/// How long the rest takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Estimate {
    /// So many seconds, if it goes on as in the last `measured` seconds.
    AtRate { seconds: i64, measured: i64 },
    /// Nothing was done in the last `measured` seconds.
    NoProgress { measured: i64 },
    /// At least so many seconds, by the limit of the service.
    AtLeast { seconds: i64, per_minute: u32 },
    /// It does not end before: until then the old certificate is valid.
    NotBefore(UnixSeconds),
}

impl Measured {
    /// Estimates the rest; none if nothing is left, or nothing can be said.
    pub fn estimate(self) -> Option<Estimate> {
        if self.open == 0 {
            return None;
        }
        let least = self
            .per_minute
            .map(|limit| rest(self.open, limit.into(), 60));
        if self.done > 0 && self.seconds >= RATE_FROM_SECONDS {
            let seconds = rest(self.open, self.done, self.seconds);
            return Some(Estimate::AtRate {
                seconds: seconds.max(least.unwrap_or_default()),
                measured: self.seconds,
            });
        }
        if self.done == 0 && self.seconds >= NO_PROGRESS_FROM_SECONDS {
            return Some(Estimate::NoProgress {
                measured: self.seconds,
            });
        }
        let per_minute = self.per_minute?;
        let seconds = least.filter(|it| *it >= 60)?;
        Some(Estimate::AtLeast {
            seconds,
            per_minute,
        })
    }
}

/// How many seconds `open` takes if `done` took `seconds`.
fn rest(open: u64, done: u64, seconds: i64) -> i64 {
    let all = u128::from(open) * u128::from(seconds.unsigned_abs());
    i64::try_from(all.div_ceil(u128::from(done.max(1)))).unwrap_or(i64::MAX)
}

impl Estimate {
    /// The sentence for people.
    pub fn text(self) -> String {
        match self {
            Self::AtRate { seconds, measured } => {
                format!("{} at the rate of {}", about(seconds), last(measured))
            }
            Self::NoProgress { measured } => format!("no progress in {}", last(measured)),
            Self::AtLeast {
                seconds,
                per_minute,
            } => format!(
                "at least {} at the {per_minute} operations a minute that the service allows",
                words(seconds)
            ),
            Self::NotBefore(until) => {
                format!("not before {until}, when the old certificate ends")
            }
        }
    }
}

fn about(seconds: i64) -> String {
    if seconds < 60 {
        return "less than a minute".into();
    }
    format!("about {}", words(seconds))
}

fn last(measured: i64) -> String {
    if measured >= WINDOW_SECONDS {
        return "the last hour".into();
    }
    format!("the last {}", words(measured))
}

/// A duration in one unit, rounded to the nearest: more digits would promise too much.
fn words(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    let (unit, name) = match seconds {
        it if it < 100 * MINUTE => (MINUTE, "min"),
        it if it < 48 * HOUR => (HOUR, "h"),
        _ => (DAY, "days"),
    };
    let count = seconds.saturating_add(unit / 2) / unit;
    format!("{} {name}", count.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn measured(open: u64, done: u64, seconds: i64, per_minute: Option<u32>) -> Measured {
        Measured {
            open,
            done,
            seconds,
            per_minute,
        }
    }

    #[test]
    fn an_estimate_says_what_it_is_made_from() {
        for (open, done, seconds, limit, words) in [
            (
                3_600,
                1_200,
                3_600,
                None,
                "about 3 h at the rate of the last hour",
            ),
            (
                90,
                10,
                600,
                None,
                "about 90 min at the rate of the last 10 min",
            ),
            (
                5,
                10,
                60,
                None,
                "less than a minute at the rate of the last 1 min",
            ),
            (
                10_000,
                1,
                3_600,
                None,
                "about 417 days at the rate of the last hour",
            ),
            (7, 0, 3_600, None, "no progress in the last hour"),
            (7, 0, 1_200, Some(100), "no progress in the last 20 min"),
            // Faster than the service allows.
            (
                6_000,
                6_000,
                60,
                Some(100),
                "about 60 min at the rate of the last 1 min",
            ),
            (
                6_000,
                0,
                30,
                Some(100),
                "at least 60 min at the 100 operations a minute that the service allows",
            ),
        ] {
            let estimate = measured(open, done, seconds, limit).estimate();
            assert_eq!(estimate.map(Estimate::text).as_deref(), Some(words));
        }
        let end = Estimate::NotBefore(UnixSeconds::new(0)).text();
        assert_eq!(
            end,
            "not before 1970-01-01T00:00:00Z, when the old certificate ends"
        );
    }

    #[test]
    fn nothing_is_said_that_nothing_says() {
        for (open, done, seconds, limit) in [
            (0, 100, 3_600, Some(100)),
            (7, 0, 299, None),
            (7, 3, 59, None),
            // Less than a minute of work.
            (7, 0, 10, Some(100)),
            (7, 0, 0, None),
        ] {
            assert_eq!(measured(open, done, seconds, limit).estimate(), None);
        }
    }

    proptest! {
        #[test]
        fn any_measure_has_an_estimate_of_some_seconds_or_none(
            open: u64, done: u64, seconds in 0..=WINDOW_SECONDS, limit: Option<u32>,
        ) {
            let estimate = measured(open, done, seconds, limit).estimate();
            let rest = match estimate {
                Some(
                    Estimate::AtRate { seconds, .. } | Estimate::AtLeast { seconds, .. },
                ) => seconds,
                _ => 1,
            };
            prop_assert!(rest > 0);
            prop_assert!(open > 0 || estimate.is_none());
            let _ = estimate.map(Estimate::text);
        }
    }
}

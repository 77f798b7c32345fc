//! Defines the time of records and parameters: whole seconds since 1970-01-01.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, Sub};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment, counted as `SystemTime` counts seconds since 1970-01-01. In JSON and in the database
/// it is that integer; [`Display`](fmt::Display) writes RFC 3339.
///
/// The difference of two moments is an `i64` in seconds. A moment and a number of seconds cannot be
/// confused, and two moments cannot be added.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(transparent)]
pub struct UnixSeconds(i64);

impl UnixSeconds {
    /// The first moment: before every other one.
    pub const MIN: Self = Self(i64::MIN);
    /// The last moment: after every other one.
    pub const MAX: Self = Self(i64::MAX);

    /// Makes a moment from the seconds that a clock, a certificate or the database has.
    pub const fn new(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Returns the seconds, for the database, for metrics and for other libraries.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// Returns the date, unless it is beyond the year 9999, where RFC 3339 ends.
    pub fn date(self) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp(self.0).ok()
    }

    /// Returns the moment so many seconds later; at most [`Self::MAX`].
    #[must_use]
    pub const fn saturating_add(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Returns the moment so many seconds earlier; at least [`Self::MIN`].
    #[must_use]
    pub const fn saturating_sub(self, seconds: i64) -> Self {
        Self(self.0.saturating_sub(seconds))
    }

    /// Returns the moment so many seconds later; at most [`Self::MAX`].
    #[must_use]
    pub const fn saturating_add_unsigned(self, seconds: u64) -> Self {
        Self(self.0.saturating_add_unsigned(seconds))
    }

    /// Returns the moment so many seconds earlier; at least [`Self::MIN`].
    #[must_use]
    pub const fn saturating_sub_unsigned(self, seconds: u64) -> Self {
        Self(self.0.saturating_sub_unsigned(seconds))
    }

    /// Returns how many seconds after `earlier` this moment is; negative if it is before.
    pub const fn seconds_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<i64> for UnixSeconds {
    type Output = Self;

    fn add(self, seconds: i64) -> Self {
        Self(self.0 + seconds)
    }
}

impl Sub<i64> for UnixSeconds {
    type Output = Self;

    fn sub(self, seconds: i64) -> Self {
        Self(self.0 - seconds)
    }
}

impl Sub for UnixSeconds {
    type Output = i64;

    fn sub(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }
}

impl fmt::Display for UnixSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.date().and_then(|date| date.format(&Rfc3339).ok());
        match text {
            Some(text) => f.write_str(&text),
            None => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_date_for_people_and_an_integer_for_programs() {
        let moment = UnixSeconds::new(1_767_225_600);
        assert_eq!(moment.to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(serde_json::to_string(&moment).unwrap(), "1767225600");
        assert_eq!(UnixSeconds::MAX.to_string(), i64::MAX.to_string());
    }
}

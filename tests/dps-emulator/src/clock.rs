//! The emulator's idea of now.
//!
//! A test ages a certificate by moving this clock, never by waiting. Dates in records and the
//! validity of certificates follow it. SAS and bearer tokens do not (`sas`, `entra`): their makers
//! cannot be moved along, and a token that lives for an hour would be dead after every jump.

use std::sync::Mutex;
use time::{Duration, OffsetDateTime};

/// How far the emulator's clock departs from the machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    /// The machine's clock and a distance that may be negative; time goes on.
    Offset(Duration),
    Stopped(OffsetDateTime),
}

/// A clock that a test can set. Cheap to read, shared by all planes.
#[derive(Debug)]
pub struct Clock {
    setting: Mutex<Setting>,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            setting: Mutex::new(Setting::Offset(Duration::ZERO)),
        }
    }
}

impl Clock {
    /// The emulator's current time.
    pub fn now(&self) -> OffsetDateTime {
        let machine = OffsetDateTime::now_utc();
        match *crate::lock(&self.setting) {
            Setting::Offset(offset) => machine.checked_add(offset).unwrap_or(machine),
            Setting::Stopped(at) => at,
        }
    }

    /// Jump to `at`; from there time goes on.
    pub fn set(&self, at: OffsetDateTime) {
        self.write(Setting::Offset(at - OffsetDateTime::now_utc()));
    }

    /// Run `offset` ahead of the machine's clock, or behind it.
    pub fn set_offset(&self, offset: Duration) {
        self.write(Setting::Offset(offset));
    }

    /// Jump to `at` and stay there.
    pub fn stop_at(&self, at: OffsetDateTime) {
        self.write(Setting::Stopped(at));
    }

    /// Move by `step` from where the clock is now.
    pub fn advance(&self, step: Duration) {
        let mut setting = crate::lock(&self.setting);
        *setting = match *setting {
            Setting::Offset(offset) => Setting::Offset(offset.saturating_add(step)),
            Setting::Stopped(at) => Setting::Stopped(at.saturating_add(step)),
        };
    }

    /// Back to the machine's clock.
    pub fn reset(&self) {
        self.write(Setting::Offset(Duration::ZERO));
    }

    fn write(&self, setting: Setting) {
        *crate::lock(&self.setting) = setting;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn a_stopped_clock_moves_only_when_told() {
        let clock = Clock::default();
        clock.stop_at(datetime!(2030-01-01 0:00 UTC));
        clock.advance(Duration::days(2));
        assert_eq!(clock.now(), datetime!(2030-01-03 0:00 UTC));
    }

    #[test]
    fn an_absurd_offset_does_not_panic() {
        let clock = Clock::default();
        clock.set_offset(Duration::MAX);
        clock.advance(Duration::MAX);
        let _ = clock.now();
    }
}

//! Reads moments and lengths of time as operators write them.

use crate::unix_seconds::UnixSeconds;
use crate::x509::profile::human_seconds;
use schemars::JsonSchema;
use serde::Deserialize;
use std::str::FromStr;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

/// A length of time in whole seconds, as people write it: `30d`, `12h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub struct Span(u64);

impl Span {
    /// Returns the seconds.
    pub const fn seconds(self) -> u64 {
        self.0
    }
}

impl FromStr for Span {
    type Err = String;

    /// Fails with the reason in words.
    fn from_str(text: &str) -> Result<Self, String> {
        human_seconds::parse(within_limit(text)?).map(Self)
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// A moment as people write it: a date, RFC 3339, or how long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub enum Moment {
    At(UnixSeconds),
    Ago(Span),
}

impl Moment {
    /// Returns the moment, as it is at `now`.
    pub const fn before(self, now: UnixSeconds) -> UnixSeconds {
        match self {
            Moment::At(moment) => moment,
            Moment::Ago(span) => now.saturating_sub_unsigned(span.seconds()),
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    /// A date alone is its beginning in UTC. Fails with the reason in words.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = within_limit(text)?;
        if let Ok(moment) = OffsetDateTime::parse(text, &Rfc3339) {
            return Ok(Self::At(UnixSeconds::new(moment.unix_timestamp())));
        }
        if let Ok(date) = Date::parse(text, format_description!("[year]-[month]-[day]")) {
            let begin = date.midnight().assume_utc();
            return Ok(Self::At(UnixSeconds::new(begin.unix_timestamp())));
        }
        text.parse().map(Self::Ago).map_err(|_| {
            format!(
                "{text:?} is no date (2026-11-30), no time (2026-11-30T12:00:00Z) and no time \
                     ago (7d)"
            )
        })
    }
}

impl TryFrom<String> for Moment {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// The longest text of a time, in bytes.
const TEXT_BYTES_MAX: usize = 64;

fn within_limit(text: &str) -> Result<&str, String> {
    if text.len() <= TEXT_BYTES_MAX {
        return Ok(text);
    }
    Err(format!("a time has at most {TEXT_BYTES_MAX} characters"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: UnixSeconds = UnixSeconds::new(1_767_225_600);

    #[test]
    fn a_moment_is_a_date_a_time_or_how_long_ago() {
        for (text, before_now) in [
            ("2026-01-01", 0),
            ("2026-01-01T00:00:00Z", 0),
            ("2026-01-01T01:00:00+02:00", 3_600),
            ("2025-12-31T23:59:59.5Z", 1),
            ("7d", 7 * 86_400),
            ("1h 30m", 5_400),
        ] {
            let moment: Moment = text.parse().unwrap();
            assert_eq!(NOW - moment.before(NOW), before_now, "{text}");
        }
        for text in [
            "",
            "2026-13-01",
            "2026-1-1",
            "tomorrow",
            "-7d",
            "1.5s",
            "30",
        ] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
        let long = format!("{}d", "0".repeat(TEXT_BYTES_MAX));
        assert!(long.parse::<Moment>().is_err() && long.parse::<Span>().is_err());
    }

    proptest! {
        /// Any text is read or refused, and no moment is after the present one.
        #[test]
        fn no_text_fails_otherwise(text in ".{0,80}") {
            if let Ok(Moment::Ago(span)) = text.parse::<Moment>() {
                prop_assert!(Moment::Ago(span).before(NOW) <= NOW);
                prop_assert_eq!(text.parse::<Span>(), Ok(span));
            }
        }

        #[test]
        fn a_moment_is_read_as_it_is_shown(seconds in 0_i64..253_402_300_800) {
            let moment = UnixSeconds::new(seconds);
            prop_assert_eq!(moment.to_string().parse::<Moment>(), Ok(Moment::At(moment)));
        }
    }
}

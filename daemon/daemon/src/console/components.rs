//! Renders what many pages have: times, and digits to be copied.

use crate::unix_seconds::UnixSeconds;
use askama::Template;
use askama::filters::HtmlSafe;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::{Deserialize, Deserializer, Error};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A moment of the API: RFC 3339, or Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At(pub(super) UnixSeconds);

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Form {
            Seconds(UnixSeconds),
            Text(String),
        }
        match Form::deserialize(from)? {
            Form::Seconds(seconds) => Ok(Self(seconds)),
            Form::Text(text) => Self::read(&text).ok_or_else(|| D::Error::custom("no time")),
        }
    }
}

/// A time as a page shows it: absolute, then relative to the time of the page.
#[derive(Template)]
#[template(path = "when.html")]
pub(super) struct When {
    exact: String,
    date: String,
    seconds: i64,
    relative: String,
}

impl HtmlSafe for When {}

impl At {
    /// Reads RFC 3339.
    pub(super) fn read(text: &str) -> Option<Self> {
        let date = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        Some(Self(UnixSeconds::new(date.unix_timestamp())))
    }

    /// How a page of this time shows it.
    pub(super) fn when(self, now: &UnixSeconds) -> When {
        let exact = self.0.to_string();
        When {
            date: minutes(&exact),
            seconds: self.0.get(),
            relative: relative(self.0.seconds_since(*now)),
            exact,
        }
    }
}

/// RFC 3339 up to the minute, with a space instead of the `T`.
fn minutes(exact: &str) -> String {
    let date = exact.get(..16).unwrap_or(exact);
    date.replace('T', " ")
}

/// Says how far a moment is, in the largest unit of which there are two.
fn relative(seconds: i64) -> String {
    let amount = seconds.unsigned_abs();
    let units = [(DAY, "days"), (HOUR, "hours"), (MINUTE, "minutes")];
    let fits = units
        .iter()
        .find(|(unit, _)| amount >= 2 * unit.unsigned_abs());
    let (count, name) = match fits {
        Some((unit, name)) => (amount / unit.unsigned_abs(), *name),
        None => (amount, "seconds"),
    };
    if seconds < 0 {
        format!("{count} {name} ago")
    } else {
        format!("in {count} {name}")
    }
}

/// A serial number, thumbprint or other digits, with a button that copies all of them.
#[derive(Template)]
#[template(path = "digits.html")]
pub(super) struct Digits<'a> {
    text: &'a str,
    what: &'static str,
}

impl HtmlSafe for Digits<'_> {}

/// Shows digits, `what` they are said to be.
pub(super) fn digits<'a>(text: &'a str, what: &'static str) -> Digits<'a> {
    Digits { text, what }
}

/// All but the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Encodes a part of an address.
pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// A sentence in which commands are between backquotes.
pub(super) struct Sentence<'a>(pub(super) &'a str);

/// A part of a sentence.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Text(&'a str),
    Command(&'a str),
    /// RFC 3339, and the same as pages show a time.
    Time(&'a str, String),
}

/// The length of RFC 3339 in UTC, in bytes.
const TIME_BYTES: usize = "2026-11-30T00:00:00Z".len();

impl<'a> Sentence<'a> {
    /// Its parts, in their order.
    pub(super) fn parts(&self) -> Vec<Part<'a>> {
        let parts = self.0.split('`').enumerate();
        let parts = parts.flat_map(|(index, text)| {
            if index % 2 == 1 {
                return vec![Part::Command(text)];
            }
            with_times(text)
        });
        parts.collect()
    }
}

/// Separates the times from the words around them.
fn with_times(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut said = 0;
    for (at, _) in text.match_indices('T') {
        let begin = at.saturating_sub("2026-11-30".len());
        let found = text.get(begin..begin + TIME_BYTES);
        let is_time = |it: &&str| it.ends_with('Z') && OffsetDateTime::parse(it, &Rfc3339).is_ok();
        if let Some(time) = found.filter(is_time) {
            parts.push(Part::Text(&text[said..begin]));
            parts.push(Part::Time(time, minutes(time)));
            said = begin + TIME_BYTES;
        }
    }
    parts.push(Part::Text(&text[said..]));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_absolute_and_relative() {
        let now = UnixSeconds::new(1_000_000);
        for (seconds, words) in [
            (0, "in 0 seconds"),
            (119, "in 119 seconds"),
            (120, "in 2 minutes"),
            (-3 * HOUR, "3 hours ago"),
            (47 * HOUR, "in 47 hours"),
            (-3 * DAY, "3 days ago"),
        ] {
            assert_eq!(relative(seconds), words);
        }
        let shown = At(now).when(&now).to_string();
        assert!(shown.contains("1970-01-12 13:46<small"), "{shown}");
    }

    #[test]
    fn digits_from_outside_are_escaped() {
        let shown = digits("\"><script>", "serial number").to_string();
        assert!(!shown.contains("<script>"), "{shown}");
    }

    #[test]
    fn a_sentence_has_its_commands_and_times_apart() {
        let sentence = Sentence("T: `a T b` until 2031-09-02T01:10:14Z, or ÄT2");
        let time = "2031-09-02T01:10:14Z";
        let parts = [
            Part::Text("T: "),
            Part::Command("a T b"),
            Part::Text(" until "),
            Part::Time(time, "2031-09-02 01:10".into()),
            Part::Text(", or ÄT2"),
        ];
        assert_eq!(sentence.parts(), parts);
    }

    #[test]
    fn a_moment_is_read_in_both_forms() {
        let read = |text| serde_json::from_str::<At>(text).ok().map(|it| it.0.get());
        assert_eq!(read("7"), Some(7));
        assert_eq!(read("\"1970-01-01T00:00:07Z\""), Some(7));
        assert_eq!(read("\"yesterday\""), None);
    }
}

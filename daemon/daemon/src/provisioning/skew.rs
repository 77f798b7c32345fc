//! Compares the clock of a plane with this machine's, by the `Date` of its answers (RFC 9110,
//! section 6.6.1), also of those that are refusals.

use reqwest::header::{DATE, HeaderMap};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::SystemTime;

/// The difference at the last answer, in seconds.
#[derive(Debug, Default)]
pub(super) struct Skew(Mutex<Option<i64>>);

impl Skew {
    /// Takes the headers of an answer that has arrived at `now`.
    pub(super) fn note(&self, headers: &HeaderMap, now: SystemTime) {
        let date = headers.get(DATE).and_then(|it| it.to_str().ok());
        let date = date.and_then(|it| httpdate::parse_http_date(it).ok());
        if let Some(date) = date {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead(date, now));
        }
    }

    pub(super) fn seconds(&self) -> Option<i64> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far `date` is ahead of `now`, in whole seconds; a `Date` has no fractions.
fn ahead(date: SystemTime, now: SystemTime) -> i64 {
    let seconds = |it: std::time::Duration| i64::try_from(it.as_secs()).unwrap_or(i64::MAX);
    match date.duration_since(now) {
        Ok(ahead) => seconds(ahead),
        Err(behind) => -seconds(behind.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn the_date_of_an_answer_is_compared_with_the_clock() {
        let now = UNIX_EPOCH + Duration::from_millis(1_000_000_500);
        for (date, seconds) in [
            ("Mon, 12 Jan 1970 13:46:40 GMT", Some(0)),
            ("Mon, 12 Jan 1970 13:56:41 GMT", Some(600)),
            ("Mon, 12 Jan 1970 13:36:40 GMT", Some(-600)),
            ("yesterday", None),
        ] {
            let skew = Skew::default();
            let mut headers = HeaderMap::new();
            headers.insert(DATE, date.parse().expect("a value"));
            skew.note(&headers, now);
            assert_eq!(skew.seconds(), seconds, "{date}");
        }
    }
}

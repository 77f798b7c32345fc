//! Refusals in the audit journal. Each one of somebody who is known is an entry. Of strangers, who
//! cost nothing to be, the first of each kind in a minute are; the others are counted, and the count
//! is an entry: so the journal says that somebody knocks, and how often, and does not grow with it.

use super::authorize::Caller;
use super::{CertificateAuthority, Error};
use crate::store::AuditEntry;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::PoisonError;

/// So many refusals of strangers with one code are written down in a minute, each as an entry.
const REFUSALS_PER_MINUTE_MAX: u32 = 20;
/// How long a minute is, in seconds.
const MINUTE_SECONDS: i64 = 60;

/// What strangers were refused in the minute that began at `since`, by code. Codes are ours, so there
/// are few.
#[derive(Debug, Default)]
pub(super) struct RefusalCounts {
    since: i64,
    codes: BTreeMap<&'static str, u32>,
}

/// How often one code was refused beyond the entries that there are.
#[derive(Debug, PartialEq, Eq)]
struct Counted {
    code: &'static str,
    times: u32,
    since: i64,
}

impl RefusalCounts {
    /// Counts one refusal. Whether it is an entry of its own.
    fn count(&mut self, code: &'static str) -> bool {
        let times = self.codes.entry(code).or_default();
        *times = times.saturating_add(1);
        *times <= REFUSALS_PER_MINUTE_MAX
    }

    /// What was only counted in the minute before, once that is over; `now` begins the next.
    fn over(&mut self, now: i64, at_once: bool) -> Vec<Counted> {
        let running = (self.since..self.since.saturating_add(MINUTE_SECONDS)).contains(&now);
        if running && !at_once {
            return Vec::new();
        }
        let since = std::mem::replace(&mut self.since, now);
        std::mem::take(&mut self.codes)
            .into_iter()
            .filter(|(_, times)| *times > REFUSALS_PER_MINUTE_MAX)
            .map(|(code, times)| Counted {
                code,
                times: times - REFUSALS_PER_MINUTE_MAX,
                since,
            })
            .collect()
    }
}

impl CertificateAuthority {
    /// Writes down that a request was refused. Best effort: the refusal stands without it.
    pub async fn record_refusal(
        &self,
        caller: &Caller,
        subject: &str,
        profile: &str,
        error: &Error,
    ) {
        self.record_refused(&caller.to_string(), subject, profile, error)
            .await;
    }

    /// The same, before the caller's permission is known.
    pub async fn record_refused(&self, actor: &str, subject: &str, profile: &str, error: &Error) {
        let entry = AuditEntry {
            at: self.now(),
            actor: actor.to_owned(),
            action: "certificate.refused",
            subject: subject.chars().take(128).collect(),
            detail: json!({
                "code": error.code,
                "reason": error.message.chars().take(512).collect::<String>(),
                "profile": profile.chars().take(128).collect::<String>(),
            }),
        };
        self.write_refusal(entry).await;
    }

    /// The same, for somebody who could not even be named: beyond [`REFUSALS_PER_MINUTE_MAX`] it is
    /// only counted.
    pub async fn record_refused_stranger(&self, error: &Error) {
        let (counted, is_entry) = {
            let refusals = self.refusals.lock();
            let mut refusals = refusals.unwrap_or_else(PoisonError::into_inner);
            (refusals.over(self.now(), false), refusals.count(error.code))
        };
        for it in counted {
            self.write_refusal(self.counted_entry(&it)).await;
        }
        if is_entry {
            self.record_refused(STRANGER, "", "", error).await;
        }
    }

    /// Writes down what was only counted, for an orderly stop and when its minute is over.
    pub fn record_counted_refusals(&self, at_once: bool) {
        let counted = {
            let refusals = self.refusals.lock();
            let mut refusals = refusals.unwrap_or_else(PoisonError::into_inner);
            refusals.over(self.now(), at_once)
        };
        for it in counted {
            pollster::block_on(self.write_refusal(self.counted_entry(&it)));
        }
    }

    fn counted_entry(&self, counted: &Counted) -> AuditEntry {
        AuditEntry {
            at: self.now(),
            actor: STRANGER.to_owned(),
            action: "certificate.refusals_counted",
            subject: String::new(),
            detail: json!({
                "code": counted.code, "times": counted.times, "since": counted.since,
            }),
        }
    }

    async fn write_refusal(&self, entry: AuditEntry) {
        if let Err(error) = self.store.record_audit(entry).await {
            tracing::error!(%error, "a refusal could not be written into the audit journal");
        }
    }
}

/// The actor in the journal of whoever has no client certificate that is known.
const STRANGER: &str = "unauthenticated";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_minute_the_first_are_entries_and_the_rest_is_one_count() {
        let mut counts = RefusalCounts::default();
        assert!(counts.over(1_000, false).is_empty());
        let entries = (0..1_000).filter(|_| counts.count("unknown")).count();
        assert_eq!(entries, REFUSALS_PER_MINUTE_MAX as usize);
        assert!(counts.count("expired"), "each code for itself");
        assert!(counts.over(1_059, false).is_empty(), "not over yet");
        let counted = Counted {
            code: "unknown",
            times: 1_000 - REFUSALS_PER_MINUTE_MAX,
            since: 1_000,
        };
        assert_eq!(counts.over(1_060, false), [counted]);
        assert!(counts.count("unknown"), "a new minute");
        assert!(
            counts.over(1_061, true).is_empty(),
            "nothing was only counted"
        );
    }

    /// A clock that is set back ends the minute, and nothing is counted for ever.
    #[test]
    fn a_clock_that_is_set_back_begins_a_new_minute() {
        let mut counts = RefusalCounts::default();
        counts.over(1_000, false);
        let _ = (0..=REFUSALS_PER_MINUTE_MAX)
            .map(|_| counts.count("unknown"))
            .count();
        assert_eq!(counts.over(500, false).len(), 1);
    }
}

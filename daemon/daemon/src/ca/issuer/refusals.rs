//! Rate-limits audit entries for refused requests, per caller and code. The first of a kind in a
//! minute are entries; the others are counted, and the count is one entry. Unauthenticated callers
//! share one budget.

use super::Issuer;
use super::issue::{IssueRequest, Issued};
use crate::ca::authorize::{Authorized, Caller, Issue};
use crate::ca::{Code, Error, lock};
use crate::store::AuditEntry;
use crate::unix_seconds::UnixSeconds;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// So many refusals of strangers with one code are written down in a minute, each as an entry.
const STRANGERS_PER_MINUTE_MAX: u32 = 20;
/// The same of one caller who is known: more than a line that has something wrong comes to.
const REFUSALS_PER_MINUTE_MAX: u32 = 200;
/// Callers and codes that are counted apart in a minute; the rest count as strangers.
const COUNTS_MAX: usize = 4_096;
/// How long a minute is, in seconds.
const MINUTE_SECONDS: i64 = 60;
/// How much of a name that a caller sent is written down, in characters.
const SAID_CHARS_MAX: usize = 128;
/// The action of a refused request for a certificate.
pub const CERTIFICATE_REFUSED: &str = "certificate.refused";
/// The action of any other refused request.
pub const REQUEST_REFUSED: &str = "request.refused";

/// A refusal and its caller.
pub struct Refused {
    /// The action in the journal.
    pub action: &'static str,
    /// The caller; `None` for clients that could not be identified.
    pub actor: Option<String>,
    /// The subject of the request.
    pub subject: String,
    /// Where it came from, and what it asked for: a JSON object.
    pub detail: Value,
}

/// The refusals of the minute that began at `since`, by caller and code.
#[derive(Debug, Default)]
pub(super) struct RefusalCounts {
    since: UnixSeconds,
    counts: BTreeMap<(String, Code), u32>,
}

/// How often one caller was refused with one code, beyond the entries that there are.
#[derive(Debug, PartialEq, Eq)]
struct Counted {
    actor: String,
    code: Code,
    times: u32,
    since: UnixSeconds,
}

impl RefusalCounts {
    /// Counts one refusal. Whether it is an entry of its own.
    fn count(&mut self, actor: &str, code: Code) -> bool {
        let mut key = (actor.to_owned(), code);
        if self.counts.len() >= COUNTS_MAX && !self.counts.contains_key(&key) {
            // Codes are ours, so there are few.
            key.0 = STRANGER.to_owned();
        }
        let most = entries_max(&key.0);
        let times = self.counts.entry(key).or_default();
        *times = times.saturating_add(1);
        *times <= most
    }

    /// Returns the counts of the previous minute, once that is over; `now` begins the next.
    fn over(&mut self, now: UnixSeconds, at_once: bool) -> Vec<Counted> {
        let running = (self.since..self.since.saturating_add(MINUTE_SECONDS)).contains(&now);
        if running && !at_once {
            return Vec::new();
        }
        let since = std::mem::replace(&mut self.since, now);
        let counted = |((actor, code), times): ((String, _), u32)| {
            let times = times
                .checked_sub(entries_max(&actor))
                .filter(|it| *it > 0)?;
            Some(Counted {
                actor,
                code,
                times,
                since,
            })
        };
        std::mem::take(&mut self.counts)
            .into_iter()
            .filter_map(counted)
            .collect()
    }
}

fn entries_max(actor: &str) -> u32 {
    match actor {
        STRANGER => STRANGERS_PER_MINUTE_MAX,
        _ => REFUSALS_PER_MINUTE_MAX,
    }
}

impl Issuer {
    /// Issues one leaf and audits a refusal.
    pub async fn issue_audited(
        &self,
        permission: &Authorized<Issue>,
        request: &IssueRequest,
    ) -> Result<Issued, Error> {
        let outcome = self.issue_certificate(permission, request).await;
        if let Err(error) = &outcome
            && error.is_refusal()
        {
            let subject = &request.registration_id;
            self.record_refusal(permission.caller(), subject, &request.profile, error)
                .await;
        }
        outcome
    }

    /// Writes down that a request for a certificate was refused. Best effort: the refusal stands
    /// without it.
    pub async fn record_refusal(
        &self,
        caller: &Caller,
        subject: &str,
        profile: &str,
        error: &Error,
    ) {
        let refused = Refused {
            action: CERTIFICATE_REFUSED,
            actor: Some(caller.to_string()),
            subject: subject.to_owned(),
            detail: json!({ "profile": profile.chars().take(SAID_CHARS_MAX).collect::<String>() }),
        };
        self.record_refused(refused, error).await;
    }

    /// Writes down that the configuration in `file` was refused, and the one before stays. Best
    /// effort.
    pub async fn record_refused_configuration(&self, actor: &str, file: &str, error: &Error) {
        let refused = Refused {
            action: "configuration.refused",
            actor: Some(actor.to_owned()),
            subject: file.to_owned(),
            detail: json!({}),
        };
        self.record_refused(refused, error).await;
    }

    /// Writes down a refusal and logs it, or only counts it if there were many in this minute. Best
    /// effort: the refusal stands without it.
    pub async fn record_refused(&self, refused: Refused, error: &Error) {
        let actor = refused.actor.as_deref().unwrap_or(STRANGER);
        let (counted, is_entry) = {
            let mut refusals = lock(&self.shared.refusals);
            let counted = refusals.over(self.now(), false);
            (counted, refusals.count(actor, error.code))
        };
        for it in counted {
            self.write_counted(&it).await;
        }
        if !is_entry {
            return;
        }
        let action = refused.action;
        let code = error.code;
        let mut detail = refused.detail;
        let subject: String = refused.subject.chars().take(SAID_CHARS_MAX).collect();
        tracing::warn!(action, actor, subject, code = code.name(), %detail, "refused");
        detail["code"] = code.name().into();
        detail["reason"] = error.message.chars().take(512).collect::<String>().into();
        let entry = AuditEntry {
            at: self.now(),
            actor: actor.to_owned(),
            action,
            subject,
            detail,
        };
        self.write_refusal(entry).await;
    }

    /// Writes down what was only counted, for an orderly stop and when its minute is over.
    pub fn record_counted_refusals(&self, at_once: bool) {
        let counted = {
            let mut refusals = lock(&self.shared.refusals);
            refusals.over(self.now(), at_once)
        };
        for it in counted {
            pollster::block_on(self.write_counted(&it));
        }
    }

    async fn write_counted(&self, counted: &Counted) {
        let Counted {
            actor, code, times, ..
        } = counted;
        tracing::warn!(actor, code = code.name(), times, "refusals counted");
        self.write_refusal(self.counted_entry(counted)).await;
    }

    fn counted_entry(&self, counted: &Counted) -> AuditEntry {
        AuditEntry {
            at: self.now(),
            actor: counted.actor.clone(),
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

/// The actor in the journal for a caller without a known client certificate.
const STRANGER: &str = "unauthenticated";

#[cfg(test)]
mod tests {
    use super::*;

    fn knock(counts: &mut RefusalCounts, actor: &str, times: u32) -> usize {
        (0..times)
            .filter(|_| counts.count(actor, Code::ClientCertificateUnknown))
            .count()
    }

    #[test]
    fn in_a_minute_the_first_are_entries_and_the_rest_is_one_count() {
        for (actor, most) in [
            (STRANGER, STRANGERS_PER_MINUTE_MAX),
            ("station-7", REFUSALS_PER_MINUTE_MAX),
        ] {
            let mut counts = RefusalCounts::default();
            assert!(counts.over(UnixSeconds::new(1_000), false).is_empty());
            assert_eq!(knock(&mut counts, actor, 1_000), most as usize);
            assert!(
                counts.count(actor, Code::ClientCertificateExpired),
                "each code for itself"
            );
            assert!(
                counts.count("station-8", Code::ClientCertificateUnknown),
                "and each caller"
            );
            assert!(
                counts.over(UnixSeconds::new(1_059), false).is_empty(),
                "not over yet"
            );
            let counted = Counted {
                actor: actor.to_owned(),
                code: Code::ClientCertificateUnknown,
                times: 1_000 - most,
                since: UnixSeconds::new(1_000),
            };
            assert_eq!(counts.over(UnixSeconds::new(1_060), false), [counted]);
            assert!(
                counts.count(actor, Code::ClientCertificateUnknown),
                "a new minute"
            );
            assert!(
                counts.over(UnixSeconds::new(1_061), true).is_empty(),
                "nothing was only counted"
            );
        }
    }

    #[test]
    fn callers_beyond_those_that_are_told_apart_count_as_strangers() {
        let mut counts = RefusalCounts::default();
        counts.over(UnixSeconds::new(1_000), false);
        for station in 0..COUNTS_MAX + 30 {
            counts.count(
                &format!("station-{station}"),
                Code::ClientCertificateUnknown,
            );
        }
        assert_eq!(counts.counts.len(), COUNTS_MAX + 1);
        let [counted] = &counts.over(UnixSeconds::new(1_060), false)[..] else {
            panic!("one count of all other callers");
        };
        assert_eq!((&counted.actor[..], counted.times), (STRANGER, 10));
    }

    /// A clock that is set back ends the minute, and nothing is counted for ever.
    #[test]
    fn a_clock_that_is_set_back_begins_a_new_minute() {
        let mut counts = RefusalCounts::default();
        counts.over(UnixSeconds::new(1_000), false);
        knock(&mut counts, STRANGER, STRANGERS_PER_MINUTE_MAX + 1);
        assert_eq!(counts.over(UnixSeconds::new(500), false).len(), 1);
    }
}

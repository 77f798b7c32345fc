//! Paces signatures of the daemon's own work: a pause after each signature that failed, and a bound
//! per minute.
//!
//! Loops that many events wake repeat failed work. A signature that failed after it was sent costs
//! a serial number or the number of a revocation list, so its source waits here, however often its
//! loop is woken. Callers of the API and of EST are not paced here: their permits bound their
//! requests, and a key whose signature failed must prove that it signs
//! (`TokenClient::ready_to_sign`).

use super::Issuer;
use crate::ca::{Code, Error, lock};
use crate::ids::{CaCertificateId, GenerationId, RollId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Most signatures of one source in a minute.
pub(super) const SIGNATURES_PER_MINUTE_MAX: usize = 60;
/// The first pause after a failed signature; it doubles.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause after failed signatures.
const FAILURE_PAUSE_MAX: Duration = Duration::from_secs(300);
const MINUTE: Duration = Duration::from_secs(60);

/// A source of signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::ca) enum Source {
    /// A caller of the API, of EST or of the admin socket.
    Caller,
    /// The certificate of the daemon's own listener.
    Listener,
    /// A proof of possession, by the row id of its CA certificate.
    Possession(CaCertificateId),
    /// The next generation of an authority, by its row id.
    Generation(GenerationId),
    /// The key of that generation, which is made and has to show that it signs.
    Key(GenerationId),
    /// A cross-certificate, by the row id of the certified generation.
    Cross(GenerationId),
    /// The request to an issuer elsewhere, by the row id of its generation.
    Request(GenerationId),
    /// The canary of a roll, by the roll's row id.
    Canary(RollId),
    /// The revocation lists of one partition of a generation, by its row id and counted from 1.
    RevocationList(GenerationId, u16),
    /// The certificate of the OCSP responder of a generation, by its row id.
    Responder(GenerationId),
    /// The key of that responder, which is made and has to show that it signs.
    ResponderKey(GenerationId),
}

/// The recent signatures of each source, and the end of its pause.
#[derive(Default)]
pub(super) struct Pace(Mutex<BTreeMap<Source, Lately>>);

#[derive(Default)]
struct Lately {
    signatures: VecDeque<Instant>,
    failures: u32,
    wait_until: Option<Instant>,
}

impl Lately {
    fn forget_before(&mut self, now: Instant) {
        while let Some(first) = self.signatures.front() {
            if now.duration_since(*first) < MINUTE {
                return;
            }
            self.signatures.pop_front();
        }
    }

    /// How long the source has to wait.
    fn wait(&self, now: Instant) -> Option<Duration> {
        let failed = self.wait_until.filter(|until| *until > now);
        let first = self.signatures.front();
        let full = first.filter(|_| self.signatures.len() >= SIGNATURES_PER_MINUTE_MAX);
        let until = failed.max(full.map(|first| *first + MINUTE))?;
        Some(until.saturating_duration_since(now))
    }

    fn is_forgettable(&self, now: Instant) -> bool {
        let rested = |until: Instant| now.duration_since(until) > FAILURE_PAUSE_MAX;
        self.signatures.is_empty() && self.wait_until.is_none_or(rested)
    }
}

impl Pace {
    /// Counts one signature of `source`, or says how long it has to wait.
    fn count_signature(&self, source: Source, now: Instant) -> Result<(), Duration> {
        if source == Source::Caller {
            return Ok(());
        }
        let mut sources = lock(&self.0);
        sources.retain(|_, lately| {
            lately.forget_before(now);
            !lately.is_forgettable(now)
        });
        let lately = sources.entry(source).or_default();
        match lately.wait(now) {
            Some(wait) => Err(wait),
            None => {
                lately.signatures.push_back(now);
                Ok(())
            }
        }
    }

    fn failed(&self, source: Source, now: Instant) {
        if source == Source::Caller {
            return;
        }
        let mut sources = lock(&self.0);
        let lately = sources.entry(source).or_default();
        let pause = FAILURE_PAUSE.saturating_mul(1 << lately.failures.min(8));
        lately.failures += 1;
        lately.wait_until = Some(now + pause.min(FAILURE_PAUSE_MAX));
    }

    fn succeeded(&self, source: Source) {
        if let Some(lately) = lock(&self.0).get_mut(&source) {
            lately.failures = 0;
        }
    }
}

impl Issuer {
    /// To be asked right before something is recorded that is to be signed.
    pub(in crate::ca) fn may_have_signed(&self, source: Source) -> Result<(), Error> {
        let counted = self.shared.pace.count_signature(source, Instant::now());
        counted.map_err(|wait| {
            let seconds = u32::try_from(wait.as_secs() + 1).unwrap_or(u32::MAX);
            let message = format!(
                "this is signed again in {seconds} s: a signature failed before, or there were \
                 {SIGNATURES_PER_MINUTE_MAX} in a minute; the log says why"
            );
            Error::later(seconds, Code::SigningPaused, message)
        })
    }

    /// Records the result of a signature of `source` that a token was asked for.
    pub(in crate::ca) fn note_signature(&self, source: Source, is_good: bool) {
        if is_good {
            self.shared.pace.succeeded(source);
        } else {
            self.shared.pace.failed(source, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of the attempts of so many minutes, ten in each second, are counted.
    fn counted(pace: &Pace, source: Source, minutes: u32, fails: bool) -> usize {
        let begun = Instant::now();
        let attempts = (0..minutes * 600).map(|tenth| begun + Duration::from_millis(100) * tenth);
        let counted = attempts.filter(|now| {
            let is_counted = pace.count_signature(source, *now).is_ok();
            if is_counted && fails {
                pace.failed(source, *now);
            }
            is_counted
        });
        counted.count()
    }

    #[test]
    fn signatures_are_bounded_in_each_minute() {
        let pace = Pace::default();
        let count = counted(&pace, Source::Listener, 3, false);
        assert_eq!(count, 3 * SIGNATURES_PER_MINUTE_MAX);
        assert_eq!(counted(&pace, Source::Caller, 1, false), 600);
    }

    #[test]
    fn failures_make_pauses_that_double() {
        let pace = Pace::default();
        // At 0, 5, 15, 35, 75, 155 and 315 seconds, and then after five minutes each.
        assert_eq!(
            counted(&pace, Source::Possession(CaCertificateId::new(1)), 10, true),
            7
        );
    }

    #[test]
    fn a_success_ends_the_doubling_and_one_source_holds_up_no_other() {
        let pace = Pace::default();
        let now = Instant::now();
        let source = Source::RevocationList(GenerationId::new(1), 1);
        let later = now + Duration::from_secs(6);
        pace.count_signature(source, now).unwrap();
        pace.failed(source, now);
        assert!(pace.count_signature(source, now).is_err());
        pace.count_signature(Source::RevocationList(GenerationId::new(2), 1), now)
            .unwrap();
        pace.count_signature(Source::RevocationList(GenerationId::new(1), 2), now)
            .unwrap();
        pace.count_signature(source, later).unwrap();
        pace.succeeded(source);
        pace.failed(source, later);
        pace.count_signature(source, later + Duration::from_secs(6))
            .unwrap();
    }
}

//! Keeps signed answers in memory, and bounds how many are signed in a second.

use crate::der_bytes::Der;
use crate::ids::GenerationId;
use crate::unix_seconds::UnixSeconds;
use crate::x509::ocsp::{AnswerContent, CertificateId, CertificateStatus, SignedAnswer};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Most answers that are kept, of about one KiB each.
const KEPT_MAX: usize = 4_096;
const SECOND: Duration = Duration::from_secs(1);

/// A signed answer.
#[derive(Debug)]
pub struct KeptAnswer {
    pub(super) issuer: GenerationId,
    pub der: Der,
    /// The status of each certificate that was asked for.
    pub statuses: Vec<CertificateStatus>,
    pub this_update: UnixSeconds,
    pub next_update: UnixSeconds,
    /// Whether it answers a question that others ask, too, until its end: for one certificate that
    /// was issued, without a nonce (RFC 5019 2.1.1).
    pub is_for_all: bool,
    /// The value of `Store::revocations` when the record last said this status.
    revocations: AtomicU64,
}

impl KeptAnswer {
    pub(super) fn new(
        issuer: GenerationId,
        signed: &SignedAnswer,
        content: &AnswerContent<'_>,
    ) -> Self {
        let statuses: Vec<_> = content.singles.iter().map(|it| it.status).collect();
        let is_of_one_issued =
            matches!(statuses.as_slice(), [one] if *one != CertificateStatus::Unknown);
        Self {
            issuer,
            der: signed.der().clone(),
            statuses,
            this_update: content.this_update,
            next_update: content.next_update,
            is_for_all: is_of_one_issued && content.nonce.is_none(),
            revocations: AtomicU64::default(),
        }
    }

    pub(super) fn read_at(&self, revocations: u64) {
        self.revocations.store(revocations, Ordering::Release);
    }

    pub(super) fn is_read_at(&self, revocations: u64) -> bool {
        self.revocations.load(Ordering::Acquire) == revocations
    }

    /// Returns true if it says this and has not ended.
    pub(super) fn says(&self, statuses: &[CertificateStatus], now: UnixSeconds) -> bool {
        self.statuses == statuses && self.this_update <= now && now < self.next_update
    }

    /// Returns true until shortly before its end.
    pub(super) fn is_fresh(&self, now: UnixSeconds) -> bool {
        let validity = self.next_update - self.this_update;
        self.this_update <= now && now < self.next_update - validity / 8
    }
}

/// The kept answers by their `CertID`.
#[derive(Default)]
pub(super) struct Answers {
    by_certificate: BTreeMap<Vec<u8>, Arc<KeptAnswer>>,
    /// The keys of `by_certificate`, the oldest first.
    order: VecDeque<Vec<u8>>,
}

impl Answers {
    /// Finds the answer for these certificates. Answers for several are not kept: there is no end
    /// of different ones.
    pub(super) fn find(&self, certificates: &[CertificateId]) -> Option<Arc<KeptAnswer>> {
        let [certificate] = certificates else {
            return None;
        };
        self.by_certificate.get(certificate.der().as_ref()).cloned()
    }

    pub(super) fn keep(
        &mut self,
        certificate: &CertificateId,
        answer: &Arc<KeptAnswer>,
        now: UnixSeconds,
    ) {
        let key = certificate.der().to_vec();
        let is_new = self
            .by_certificate
            .insert(key.clone(), Arc::clone(answer))
            .is_none();
        if is_new {
            self.order.push_back(key);
        }
        while let Some(oldest) = self.order.front() {
            let kept = self.by_certificate.get(oldest);
            let has_ended = kept.is_none_or(|it| it.next_update <= now);
            if !has_ended && self.order.len() <= KEPT_MAX {
                return;
            }
            self.by_certificate.remove(oldest);
            self.order.pop_front();
        }
    }
}

/// The signatures of the last second.
#[derive(Default)]
pub(super) struct Rate(VecDeque<Instant>);

impl Rate {
    /// Counts one more signature, unless there were `most` in the last second.
    pub(super) fn admits(&mut self, most: usize) -> bool {
        let now = Instant::now();
        while self
            .0
            .front()
            .is_some_and(|it| now.duration_since(*it) >= SECOND)
        {
            self.0.pop_front();
        }
        let admits = self.0.len() < most;
        if admits {
            self.0.push_back(now);
        }
        admits
    }
}

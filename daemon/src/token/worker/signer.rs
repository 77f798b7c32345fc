//! The signer threads: each takes a job, does it on its own session, and sees to the answer.

use super::Job;
use super::ladder::Ladder;
use super::queue::Queue;
use crate::token::outbox::Outbox;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a finished answer may wait for the next one, to leave with it in one system call. Only
/// while work is queued and the token is that fast: a slow token's answers leave at once.
const GATHER: Duration = Duration::from_micros(250);

/// One signer: its number is its seat on the ladder's bench.
pub(super) struct Signer {
    pub(super) token: String,
    pub(super) seat: usize,
    pub(super) queue: Arc<Queue<Job>>,
    pub(super) ladder: Arc<Ladder>,
}

impl Signer {
    /// Works until the queue is closed.
    pub(super) fn run(self) {
        let mut gathered: Option<Gathered> = None;
        while let Some(job) = self.queue.pop() {
            let begun = Instant::now();
            let result = (!job.is_expired()).then(|| {
                self.ladder
                    .perform(self.seat, &job.request.operation, job.deadline)
            });
            if gathered
                .as_ref()
                .is_some_and(|gathered| !Arc::ptr_eq(&gathered.outbox, &job.outbox))
            {
                gathered = send(gathered);
            }
            match result {
                Some(result) => job.answer(result),
                None => job.answer_expired(&self.token),
            }
            let since = gathered.map_or(begun, |gathered| gathered.since);
            gathered = Some(Gathered {
                outbox: job.outbox,
                since,
            });
            if since.elapsed() >= GATHER || self.queue.is_empty() {
                gathered = send(gathered);
            }
        }
        send(gathered);
    }
}

/// Answers appended and not yet sent.
struct Gathered {
    outbox: Arc<Outbox>,
    /// When work on the first of them began.
    since: Instant,
}

/// Sends what was gathered. A peer that is gone is its reader's business.
fn send(gathered: Option<Gathered>) -> Option<Gathered> {
    if let Some(gathered) = gathered
        && let Err(error) = gathered.outbox.flush()
    {
        tracing::debug!(%error, "an answer was not sent");
    }
    None
}

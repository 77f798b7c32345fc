//! The signer threads: each takes a job, does it on its own session, and sees to the answer.

use super::Job;
use super::queue::Queue;
use super::recovery::Recovery;
use crate::token::frame_writer::FrameWriter;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a finished answer may wait for the next one, to leave with it in one system call. Only
/// while work is queued and the token is that fast: a slow token's answers leave at once.
const GATHER: Duration = Duration::from_micros(250);

/// One signer: its number is its number on the ladder's bench.
pub(super) struct Signer {
    pub(super) token: String,
    pub(super) number: usize,
    pub(super) queue: Arc<Queue<Job>>,
    pub(super) recovery: Arc<Recovery>,
}

impl Signer {
    /// Works until the queue is closed.
    pub(super) fn run(self) {
        let mut gathered: Option<Gathered> = None;
        loop {
            // Who holds answers back must not wait: another signer may take the last job.
            let job = match &gathered {
                Some(_) => self.queue.pop_now(),
                None => match self.queue.pop() {
                    Some(job) => Some(job),
                    None => return,
                },
            };
            gathered = match job {
                Some(job) => self.gather(gathered, job),
                None => send(gathered),
            };
        }
    }

    /// Does the job, and adds its answer to those gathered.
    fn gather(&self, mut gathered: Option<Gathered>, job: Job) -> Option<Gathered> {
        let begun = Instant::now();
        if job.is_expired() {
            job.answer_expired(&self.token);
        } else {
            let operation = &job.request.operation;
            job.answer(self.recovery.perform(self.number, operation, job.deadline));
        }
        if gathered
            .as_ref()
            .is_some_and(|gathered| !gathered.is_for(&job))
        {
            gathered = send(gathered);
        }
        let since = gathered.map_or(begun, |gathered| gathered.since);
        let gathered = Some(Gathered {
            writer: job.writer,
            since,
        });
        if since.elapsed() >= GATHER {
            send(gathered)
        } else {
            gathered
        }
    }
}

/// Answers appended and not yet sent.
struct Gathered {
    writer: Arc<FrameWriter>,
    /// When work on the first of them began.
    since: Instant,
}

impl Gathered {
    fn is_for(&self, job: &Job) -> bool {
        Arc::ptr_eq(&self.writer, &job.writer)
    }
}

/// Sends what was gathered. A peer that is gone is its reader's business.
fn send(gathered: Option<Gathered>) -> Option<Gathered> {
    if let Some(gathered) = gathered
        && let Err(error) = gathered.writer.flush()
    {
        tracing::debug!(%error, "an answer was not sent");
    }
    None
}

//! Runs the signer threads: each takes a job, performs it on its own session, and sends the answer.

use super::Job;
use super::late_answers::LateAnswers;
use super::queue::Queue;
use super::recovery::Recovery;
use hallmark_base::trace;
use hallmark_protocol::TokenError;
use hallmark_protocol::frame_writer::FrameWriter;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the answers of a fast token are gathered, to be sent in one system call. A token that
/// takes longer for one counts as slow. Answers wait only while jobs are queued.
const GATHER: Duration = Duration::from_micros(250);
/// How many answers are sent together once they have been gathered for so long. The daemon goes on
/// with them together: its store records them in one commit.
const SLOW_MAX: usize = 5;
/// How long the first of them may wait: a token that is slower still sends each at once.
const GATHER_SLOW: Duration = Duration::from_millis(20);

/// One signer; `number` is its slot in the session pool.
pub(super) struct SignerThread {
    pub(super) token: String,
    pub(super) number: usize,
    pub(super) queue: Arc<Queue<Job>>,
    pub(super) recovery: Arc<Recovery>,
    pub(super) late: Arc<LateAnswers>,
}

impl SignerThread {
    /// Runs until the queue is closed.
    pub(super) fn run(self) {
        let mut gathered: Option<Gathered> = None;
        loop {
            // A signer that holds answers must not wait: another one may take the last job. And it
            // holds none while it makes a key.
            let job = match &gathered {
                Some(held) => {
                    let job = self.queue.pop_of(held.least_queued(), Job::is_signature);
                    if job.is_some() {
                        // Its call may hang, or take long.
                        self.late.hold(&held.writer, held.since + GATHER_SLOW);
                    }
                    job
                }
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

    /// Performs the job, and adds its answer to the gathered ones.
    fn gather(&self, mut gathered: Option<Gathered>, job: Job) -> Option<Gathered> {
        let begun = Instant::now();
        if job.is_expired() {
            job.answer_expired(&self.token);
        } else {
            let operation = &job.request.operation;
            let answer = trace::within(job.request.trace.clone(), || {
                let answer = self.recovery.perform(self.number, operation, job.deadline);
                let failure = answer.as_ref().err().map(TokenError::kind);
                tracing::debug!(operation = operation.name(), failure, "operation performed");
                answer
            });
            job.answer(answer);
        }
        if gathered
            .as_ref()
            .is_some_and(|gathered| !gathered.is_for(&job))
        {
            gathered = send(gathered);
        }
        let (since, before) = gathered.map_or((begun, 0), |it| (it.since, it.count));
        let count = before + 1;
        let gathered = Some(Gathered {
            writer: job.writer,
            since,
            count,
        });
        if gathered.as_ref().is_some_and(Gathered::is_due) {
            send(gathered)
        } else {
            gathered
        }
    }
}

/// Answers that were appended and not sent yet.
struct Gathered {
    writer: Arc<FrameWriter>,
    /// When the first of them was begun.
    since: Instant,
    count: usize,
}

impl Gathered {
    fn is_due(&self) -> bool {
        let held = self.since.elapsed();
        held >= GATHER_SLOW || (held >= GATHER && self.count >= SLOW_MAX)
    }

    fn is_of_a_slow_token(&self) -> bool {
        self.since.elapsed() >= GATHER
    }

    /// How many jobs must be queued so that it may wait. Of a slow token as many as it holds: the
    /// token is not idle when the next requests are those of the answers.
    fn least_queued(&self) -> usize {
        if self.is_of_a_slow_token() {
            self.count
        } else {
            1
        }
    }

    fn is_for(&self, job: &Job) -> bool {
        Arc::ptr_eq(&self.writer, &job.writer)
    }
}

/// Sends the gathered answers. If the peer has gone, its reading thread ends the connection.
fn send(gathered: Option<Gathered>) -> Option<Gathered> {
    if let Some(gathered) = gathered
        && let Err(error) = gathered.writer.flush()
    {
        tracing::debug!(%error, "cannot send answer");
    }
    None
}

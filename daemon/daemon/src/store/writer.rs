//! Runs all writes on one thread: takes what is queued, commits it as one group, then answers.
//!
//! A commit costs more than an operation: it waits for the disk, and writes again every page that
//! the commit before it wrote. So while one group is committed, the operations that arrive are the
//! next group. The thread never waits for a group to grow: callers that wait for their answers send
//! nothing more, so the time would pass in vain.
//!
//! Refusals are rare, so a group runs without savepoints: SQLite copies every page that a savepoint
//! changes, which would cost more than the operation. When an operation is refused, the whole
//! transaction is rolled back and run again, each operation in a savepoint of its own.

use super::StoreError;
use super::engine::Tx;
use super::health::WriteHealth;
use super::probe::{Probing, needs_another_connection, probe};
use crate::measured;
use crate::request_task;
use crate::trace::{self, TraceContext};
use futures_channel::oneshot;
use rusqlite::hooks::Action;
use rusqlite::{Connection, TransactionBehavior};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

/// The most operations that may be queued; one more fails with `Unavailable`.
const QUEUE_MAX: usize = 1_024;
/// The most operations in one commit.
const GROUP_MAX: usize = 256;

/// A queued operation: runs inside the group's transaction, answers after the commit.
trait Job: Send {
    /// Runs the operation; a second time if the group was rolled back.
    fn run(&mut self, tx: &Tx<'_>) -> Result<(), Refused>;
    /// Sends the caller the outcome of `run`, or why the whole group was lost.
    fn answer(self: Box<Self>, lost: Option<StoreError>);
}

/// An operation was refused.
struct Refused {
    /// Why the database cannot be written, if that is the cause.
    unwritable: Option<String>,
}

/// Opens the writer's connection; called again when a connection has failed for good.
pub(super) type Opener = Box<dyn FnMut() -> Result<Connection, StoreError> + Send>;

#[derive(Clone)]
pub(super) struct Writer {
    queue: SyncSender<Box<dyn Job>>,
}

/// The writer's connection, and what it shares with the store.
pub(super) struct WriterState {
    /// `None` while the database cannot be opened for writing.
    pub(super) connection: Option<Connection>,
    pub(super) open: Opener,
    pub(super) health: Arc<WriteHealth>,
    /// Counts the changes of certificates, which only revocations make, and those of blocks.
    pub(super) revocations: Arc<AtomicU64>,
}

struct WriterThread {
    state: WriterState,
    /// Whether the current group has changed a certificate.
    revoked: Arc<AtomicBool>,
    probing: Option<Probing>,
}

impl Writer {
    /// Starts the writer's thread; the thread ends when the last handle is dropped.
    pub(super) fn start(mut state: WriterState) -> Result<Self, StoreError> {
        let (queue, jobs) = sync_channel(QUEUE_MAX);
        let revoked = Arc::new(AtomicBool::new(false));
        if let Some(connection) = &mut state.connection {
            watch(connection, &revoked, &state.revocations)?;
        }
        let mut thread = WriterThread {
            probing: None,
            revoked,
            state,
        };
        if thread.state.health.fault().is_some() {
            thread.begin_to_probe();
        }
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || thread.work(&jobs))
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self { queue })
    }

    /// Returns a writer that refuses every operation, for a store that is only read.
    pub(super) fn ended() -> Self {
        Self {
            queue: sync_channel(0).0,
        }
    }

    /// Queues `operation` at once. The future is ready when the operation's group is durable.
    pub(super) fn run<T, F>(&self, operation: F) -> impl Future<Output = Result<T, StoreError>>
    where
        T: Send + 'static,
        F: FnMut(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let queued = self.queue(Box::new(Operation {
            operation,
            outcome: None,
            reply,
            trace: trace::current(),
        }));
        async move {
            queued?;
            answer.await.unwrap_or_else(|_| Err(ended()))
        }
    }

    /// Returns when the writer has taken a job from the queue; writes nothing.
    pub(super) async fn answers(&self) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue(Box::new(LivenessCheck(reply)))?;
        answer.await.map_err(|_| ended())
    }

    fn queue(&self, job: Box<dyn Job>) -> Result<(), StoreError> {
        self.queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => {
                StoreError::Unavailable(format!("{QUEUE_MAX} writes are waiting already"))
            }
            TrySendError::Disconnected(_) => ended(),
        })
    }
}

/// Counts each change of a certificate and of a block in `revocations` at once, because operations
/// of the same group must see it, and sets `revoked`, by which the commit is counted for readers.
fn watch(
    connection: &Connection,
    revoked: &Arc<AtomicBool>,
    revocations: &Arc<AtomicU64>,
) -> Result<(), rusqlite::Error> {
    let revoked = revoked.clone();
    let revocations = revocations.clone();
    connection.update_hook(Some(move |action: Action, _: &str, table: &str, _: i64| {
        // A certificate is inserted valid; a block may exclude what was compromised before.
        let is_revocation = action == Action::SQLITE_UPDATE && table == "certificate";
        // A generation counts what its lists have to change for, also serial numbers alone.
        if is_revocation || table == "block" || table == "generation" {
            revoked.store(true, Ordering::Relaxed);
            revocations.fetch_add(1, Ordering::Release);
        }
    }))
}

impl WriterThread {
    fn work(mut self, jobs: &Receiver<Box<dyn Job>>) {
        loop {
            match self.next(jobs) {
                Ok(first) => self.serve(first, jobs),
                Err(RecvTimeoutError::Timeout) => self.probe(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Returns the next operation; `Timeout` when a probe is due.
    fn next(&self, jobs: &Receiver<Box<dyn Job>>) -> Result<Box<dyn Job>, RecvTimeoutError> {
        let Some(probing) = &self.probing else {
            return jobs.recv().map_err(|_| RecvTimeoutError::Disconnected);
        };
        match probing.due_in() {
            Duration::ZERO => Err(RecvTimeoutError::Timeout),
            pause => jobs.recv_timeout(pause),
        }
    }

    fn serve(&mut self, first: Box<dyn Job>, jobs: &Receiver<Box<dyn Job>>) {
        let mut group = vec![first];
        group.extend(jobs.try_iter().take(GROUP_MAX - 1));
        let begun = Instant::now();
        let outcome = self.commit(&mut group);
        measured::commit(begun, group.len());
        if self.revoked.swap(false, Ordering::Relaxed) {
            self.state.revocations.fetch_add(1, Ordering::Release);
        }
        let lost = match outcome {
            Ok(unwritable) => {
                self.note(unwritable.as_deref());
                None
            }
            Err(error) => {
                if let StoreError::Unavailable(reason) = &error {
                    self.note(Some(reason));
                }
                tracing::debug!(%error, operations = group.len(), "a group of writes was lost");
                Some(error)
            }
        };
        request_task::answering(|| {
            for job in group {
                job.answer(lost.clone());
            }
        });
    }

    /// Commits a group. Returns the reason if an operation could not write.
    fn commit(&mut self, group: &mut [Box<dyn Job>]) -> Result<Option<String>, StoreError> {
        match &mut self.state.connection {
            Some(connection) => commit(connection, group),
            None => {
                let fault = self.state.health.fault();
                let reason = fault.map_or_else(|| "it is not open".into(), |it| it.reason);
                Err(StoreError::Unavailable(reason))
            }
        }
    }

    /// Updates the write health after a group: the store cannot write, or may be able to again.
    fn note(&mut self, unwritable: Option<&str>) {
        match (unwritable, &mut self.probing) {
            (Some(reason), _) => {
                self.state.health.failed(reason);
                self.begin_to_probe();
            }
            (None, Some(probing)) => probing.shorten(),
            (None, None) => {}
        }
    }

    fn begin_to_probe(&mut self) {
        self.probing.get_or_insert_with(Probing::begin);
    }

    /// Writes a probe and records the result in the write health.
    fn probe(&mut self) {
        match self.write_probe() {
            Ok(()) => {
                self.probing = None;
                self.state.health.healed();
            }
            Err(error) => {
                self.probing = Some(Probing::after(self.probing.take()));
                self.state.health.failed(&cause(error));
            }
        }
    }

    fn write_probe(&mut self) -> Result<(), StoreError> {
        if let Some(connection) = &mut self.state.connection {
            match probe(connection) {
                Err(error) if needs_another_connection(&error) => {}
                outcome => return Ok(outcome?),
            }
        }
        // The old connection is closed first: its files may have been replaced.
        self.state.connection = None;
        let connection = self.state.connection.insert((self.state.open)()?);
        watch(connection, &self.revoked, &self.state.revocations)?;
        Ok(probe(connection)?)
    }
}

/// Returns the cause alone, without the sentence for callers.
fn cause(error: StoreError) -> String {
    match error {
        StoreError::Unavailable(reason) => reason,
        other => other.to_string(),
    }
}

fn ended() -> StoreError {
    StoreError::Unavailable("the writer ended".into())
}

/// A job that does nothing: its answer shows that the writer works.
struct LivenessCheck(oneshot::Sender<()>);

impl Job for LivenessCheck {
    fn run(&mut self, _: &Tx<'_>) -> Result<(), Refused> {
        Ok(())
    }

    fn answer(self: Box<Self>, _: Option<StoreError>) {
        // A caller that stopped waiting has made its decision already.
        let _ = self.0.send(());
    }
}

struct Operation<T, F> {
    operation: F,
    outcome: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
    /// The trace of the caller; changes for a service are recorded with it.
    trace: Option<Arc<TraceContext>>,
}

impl<T, F> Job for Operation<T, F>
where
    T: Send,
    F: FnMut(&Tx<'_>) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, tx: &Tx<'_>) -> Result<(), Refused> {
        let outcome = trace::within(self.trace.clone(), || (self.operation)(tx));
        let refused = outcome.as_ref().err().map(|error| Refused {
            unwritable: match error {
                StoreError::Unavailable(reason) => Some(reason.clone()),
                _ => None,
            },
        });
        self.outcome = Some(outcome);
        refused.map_or(Ok(()), Err)
    }

    fn answer(self: Box<Self>, lost: Option<StoreError>) {
        let result = match (self.outcome, lost) {
            (Some(Err(refused)), _) => Err(refused),
            (_, Some(lost)) => Err(lost),
            (Some(done), None) => done,
            (None, None) => Err(StoreError::Unavailable("the operation was not run".into())),
        };
        // A caller that stopped waiting loses only the answer.
        let _ = self.reply.send(result);
    }
}

/// Runs and commits a group. Returns the reason if an operation could not write.
fn commit(
    connection: &mut Connection,
    group: &mut [Box<dyn Job>],
) -> Result<Option<String>, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let tx = Tx::new(&transaction);
    // On a full disk SQLite rolls back by itself: what follows would commit alone.
    let is_done = |job: &mut Box<dyn Job>| job.run(&tx).is_ok() && !transaction.is_autocommit();
    if group.iter_mut().all(is_done) {
        transaction.commit()?;
        return Ok(None);
    }
    drop(transaction);
    let mut unwritable = None;
    match commit_one_by_one(connection, group, &mut unwritable) {
        Ok(()) => Ok(unwritable),
        // After SQLite has rolled back by itself, its next error is not the cause.
        Err(error) => Err(unwritable.map_or_else(|| error.into(), StoreError::Unavailable)),
    }
}

fn commit_one_by_one(
    connection: &mut Connection,
    group: &mut [Box<dyn Job>],
    unwritable: &mut Option<String>,
) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let execute = |sql| transaction.prepare_cached(sql)?.execute([]);
    for job in group {
        // On a full disk SQLite rolls back by itself; the next operation would commit alone.
        if transaction.is_autocommit() {
            break;
        }
        execute("SAVEPOINT operation")?;
        if let Err(refused) = job.run(&Tx::new(&transaction)) {
            *unwritable = unwritable.take().or(refused.unwritable);
            execute("ROLLBACK TO operation")?;
        }
        execute("RELEASE operation")?;
    }
    transaction.commit()
}

#[cfg(test)]
mod tests;

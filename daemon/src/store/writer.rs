//! The one writer: takes all that is queued, commits once, then answers all.
//!
//! A commit costs more than an operation: it waits for the disk, and writes again every page that the
//! one before has written to. So where many come at a time it waits for more of them, a little, and
//! only while they do come; who comes alone does not wait.
//!
//! Refusals are rare, so a group runs bare: SQLite copies every page that a savepoint changes, and a
//! savepoint per operation would cost more than the operation. When one of the group is refused, the
//! whole transaction is rolled back and run again, each operation in a savepoint of its own.

use super::StoreError;
use futures_channel::oneshot;
use rusqlite::hooks::Action;
use rusqlite::{Connection, TransactionBehavior};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

/// Operations that may wait; one more is refused as unavailable.
const QUEUE_MAX: usize = 1_024;
/// Operations that one commit may carry.
const GROUP_MAX: usize = 256;

/// So many operations in one group are a crowd: the next group is gathered …
const CROWD: usize = 4;
/// … if it begins so soon after.
const CROWD_LASTS: Duration = Duration::from_millis(20);
/// How long it waits then for one operation more …
const GATHER_STEP: Duration = Duration::from_micros(500);
/// … and how often, while each time there was one.
const GATHER_STEPS_MAX: usize = 4;

/// A queued operation: runs inside the group's transaction, answers after its commit.
trait Job: Send {
    /// Runs, once more if the group was rolled back. `Err` means that it was refused.
    fn run(&mut self, connection: &Connection) -> Result<(), ()>;
    /// Tells whoever waits: what `run` left, or why the whole group was lost.
    fn answer(self: Box<Self>, lost: Option<StoreError>);
}

#[derive(Clone)]
pub(super) struct Writer {
    queue: SyncSender<Box<dyn Job>>,
}

impl Writer {
    /// Starts the writer thread; it ends when the last handle is gone. It counts the commits that
    /// changed a certificate, which only a revocation does.
    pub(super) fn start(
        connection: Connection,
        revocations: Arc<AtomicU64>,
    ) -> Result<Self, StoreError> {
        let (queue, jobs) = sync_channel(QUEUE_MAX);
        let revoked = Arc::new(AtomicBool::new(false));
        let changed = revoked.clone();
        connection.update_hook(Some(move |action: Action, _: &str, table: &str, _: i64| {
            if action == Action::SQLITE_UPDATE && table == "certificate" {
                changed.store(true, Ordering::Relaxed);
            }
        }))?;
        let committed = move || {
            if revoked.swap(false, Ordering::Relaxed) {
                revocations.fetch_add(1, Ordering::Release);
            }
        };
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || write_groups(connection, &jobs, committed))
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self { queue })
    }

    /// Runs `operation` in the next group; ready when that group is durable. It is queued at once,
    /// whether or not anybody waits.
    pub(super) fn run<T, F>(&self, operation: F) -> impl Future<Output = Result<T, StoreError>>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let queued = self.queue(Box::new(Operation {
            operation,
            outcome: None,
            reply,
        }));
        async move {
            queued?;
            answer.await.unwrap_or_else(|_| Err(ended()))
        }
    }

    /// Ready when the writer has come to it; nothing is written for that.
    pub(super) async fn answers(&self) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue(Box::new(Question(reply)))?;
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

fn ended() -> StoreError {
    StoreError::Unavailable("the writer ended".into())
}

/// Nothing to do: only the answer counts, whatever became of the group.
struct Question(oneshot::Sender<()>);

impl Job for Question {
    fn run(&mut self, _: &Connection) -> Result<(), ()> {
        Ok(())
    }

    fn answer(self: Box<Self>, _: Option<StoreError>) {
        // Whoever stopped waiting has judged already.
        let _ = self.0.send(());
    }
}

struct Operation<T, F> {
    operation: F,
    outcome: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for Operation<T, F>
where
    T: Send,
    F: FnMut(&Connection) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, connection: &Connection) -> Result<(), ()> {
        let outcome = (self.operation)(connection);
        let kept = outcome.is_ok();
        self.outcome = Some(outcome);
        if kept { Ok(()) } else { Err(()) }
    }

    fn answer(self: Box<Self>, lost: Option<StoreError>) {
        let result = match (self.outcome, lost) {
            (Some(Err(refused)), _) => Err(refused),
            (_, Some(lost)) => Err(lost),
            (Some(done), None) => done,
            (None, None) => Err(StoreError::Unavailable("the operation was not run".into())),
        };
        // A caller that stopped waiting has lost nothing but the answer.
        let _ = self.reply.send(result);
    }
}

fn write_groups(mut connection: Connection, jobs: &Receiver<Box<dyn Job>>, committed: impl Fn()) {
    let mut crowded_at: Option<Instant> = None;
    while let Ok(first) = jobs.recv() {
        let is_crowded = crowded_at.is_some_and(|at| at.elapsed() < CROWD_LASTS);
        let mut group = gather(first, jobs, is_crowded);
        let is_crowd = group.len() >= CROWD;
        let lost = commit(&mut connection, &mut group)
            .err()
            .map(StoreError::from);
        committed();
        if let Some(error) = &lost {
            tracing::error!(%error, operations = group.len(), "a group of writes was lost whole");
        }
        for job in group {
            job.answer(lost.clone());
        }
        crowded_at = is_crowd.then(Instant::now);
    }
}

/// What is queued, and in a crowd what comes within a moment.
fn gather(
    first: Box<dyn Job>,
    jobs: &Receiver<Box<dyn Job>>,
    is_crowded: bool,
) -> Vec<Box<dyn Job>> {
    let mut group = vec![first];
    group.extend(jobs.try_iter().take(GROUP_MAX - 1));
    let steps = if is_crowded { GATHER_STEPS_MAX } else { 0 };
    for _ in 0..steps {
        let before = group.len();
        if before == GROUP_MAX {
            break;
        }
        // Asleep, not waiting at the queue, which would wake us for each of them.
        std::thread::sleep(GATHER_STEP);
        group.extend(jobs.try_iter().take(GROUP_MAX - before));
        if group.len() == before {
            break;
        }
    }
    group
}

fn commit(connection: &mut Connection, group: &mut [Box<dyn Job>]) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if group.iter_mut().all(|job| job.run(&transaction).is_ok()) {
        return transaction.commit();
    }
    drop(transaction);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let execute = |sql| transaction.prepare_cached(sql)?.execute([]);
    for job in group {
        // A full disk makes SQLite roll back by itself; what ran then would commit alone.
        if transaction.is_autocommit() {
            break;
        }
        execute("SAVEPOINT operation")?;
        if job.run(&transaction).is_err() {
            execute("ROLLBACK TO operation")?;
        }
        execute("RELEASE operation")?;
    }
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(value: i64, outcome: Result<(), StoreError>) -> Box<dyn Job> {
        let (reply, _) = oneshot::channel();
        let operation = move |connection: &Connection| {
            connection.execute("INSERT INTO t VALUES (?1)", [value])?;
            outcome.clone()
        };
        Box::new(Operation {
            operation,
            outcome: None,
            reply,
        })
    }

    #[test]
    fn a_refused_operation_takes_nothing_of_its_neighbours_with_it() {
        let mut connection = Connection::open_in_memory().expect("memory");
        connection
            .execute("CREATE TABLE t (value INTEGER)", [])
            .expect("valid SQL");
        let refusal = || Err(StoreError::Conflict("refused".into()));
        let mut group = [
            insert(1, Ok(())),
            insert(2, refusal()),
            insert(3, refusal()),
            insert(4, Ok(())),
        ];
        commit(&mut connection, &mut group).expect("the group is committed");
        let kept: Vec<i64> = connection
            .prepare("SELECT value FROM t ORDER BY value")
            .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
            .expect("readable");
        assert_eq!(kept, [1, 4]);
    }
}

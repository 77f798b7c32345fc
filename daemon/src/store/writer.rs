//! The one writer: takes all that is queued, commits once, then answers all.

use super::StoreError;
use rusqlite::{Connection, TransactionBehavior};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// Operations that may wait; one more is refused as unavailable.
const QUEUE_MAX: usize = 1_024;
/// Operations that one commit may carry.
const GROUP_MAX: usize = 256;

/// A queued operation: runs inside the group's transaction, answers after its commit.
trait Job: Send {
    /// Runs in a savepoint of its own. `Err` rolls only this operation back.
    fn run(&mut self, connection: &Connection) -> Result<(), ()>;
    /// Tells the waiting caller: what `run` left, or why the whole group was lost.
    fn answer(self: Box<Self>, lost: Option<StoreError>);
}

#[derive(Clone)]
pub(super) struct Writer {
    queue: SyncSender<Box<dyn Job>>,
}

impl Writer {
    /// Starts the writer thread; it ends when the last handle is gone.
    pub(super) fn start(connection: Connection) -> Result<Self, StoreError> {
        let (queue, jobs) = sync_channel(QUEUE_MAX);
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || write_groups(connection, &jobs))
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self { queue })
    }

    /// Runs `operation` in the next group and waits until that group is durable.
    pub(super) fn run<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = sync_channel(1);
        let job = Box::new(Operation {
            operation: Some(operation),
            outcome: None,
            reply,
        });
        self.queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => {
                StoreError::Unavailable(format!("{QUEUE_MAX} writes are waiting already"))
            }
            TrySendError::Disconnected(_) => StoreError::Unavailable("the writer ended".into()),
        })?;
        answer
            .recv()
            .unwrap_or_else(|_| Err(StoreError::Unavailable("the writer ended".into())))
    }
}

struct Operation<T, F> {
    operation: Option<F>,
    outcome: Option<Result<T, StoreError>>,
    reply: SyncSender<Result<T, StoreError>>,
}

impl<T, F> Job for Operation<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, connection: &Connection) -> Result<(), ()> {
        let outcome = match self.operation.take() {
            Some(operation) => operation(connection),
            None => Err(StoreError::Unavailable("the operation ran already".into())),
        };
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

fn write_groups(mut connection: Connection, jobs: &Receiver<Box<dyn Job>>) {
    while let Ok(first) = jobs.recv() {
        let mut group = vec![first];
        group.extend(jobs.try_iter().take(GROUP_MAX - 1));
        let lost = commit(&mut connection, &mut group)
            .err()
            .map(StoreError::from);
        if let Some(error) = &lost {
            tracing::error!(%error, operations = group.len(), "a group of writes was lost whole");
        }
        for job in group {
            job.answer(lost.clone());
        }
    }
}

fn commit(connection: &mut Connection, group: &mut [Box<dyn Job>]) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Twice per operation: worth being prepared once, which `Transaction::savepoint` is not.
    let execute = |sql| transaction.prepare_cached(sql)?.execute([]);
    for job in group {
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
        let (reply, _) = sync_channel(1);
        let operation = move |connection: &Connection| {
            connection.execute("INSERT INTO t VALUES (?1)", [value])?;
            outcome
        };
        Box::new(Operation {
            operation: Some(operation),
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

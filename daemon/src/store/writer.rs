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
use super::health::WriteHealth;
use super::probe::probe;
use futures_channel::oneshot;
use rusqlite::hooks::Action;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
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

/// While writes fail: the first pause before a probe is written; it doubles …
const PROBE_PAUSE: Duration = Duration::from_secs(1);
/// … up to this.
const PROBE_PAUSE_MAX: Duration = Duration::from_secs(10);

/// A queued operation: runs inside the group's transaction, answers after its commit.
trait Job: Send {
    /// Runs, once more if the group was rolled back.
    fn run(&mut self, connection: &Connection) -> Result<(), Refused>;
    /// Tells whoever waits: what `run` left, or why the whole group was lost.
    fn answer(self: Box<Self>, lost: Option<StoreError>);
}

/// An operation was refused.
struct Refused {
    /// Why nothing can be written, if that is the cause.
    unwritable: Option<String>,
}

/// Opens the connection of the writer, again where an earlier one is of no use any more.
pub(super) type Opener = Box<dyn FnMut() -> Result<Connection, StoreError> + Send>;

#[derive(Clone)]
pub(super) struct Writer {
    queue: SyncSender<Box<dyn Job>>,
}

/// What the writer's thread works with.
pub(super) struct Desk {
    /// `None` while the database cannot be opened for writing.
    pub(super) connection: Option<Connection>,
    pub(super) open: Opener,
    pub(super) health: Arc<WriteHealth>,
    /// How many commits have changed a certificate, which only a revocation does.
    pub(super) revocations: Arc<AtomicU64>,
}

/// The writer's thread.
struct Clerk {
    desk: Desk,
    /// The group under way has changed a certificate.
    revoked: Arc<AtomicBool>,
    crowded_at: Option<Instant>,
    /// While writes fail.
    probing: Option<Probing>,
}

/// When the next probe is written.
struct Probing {
    /// The last one, or the failure that began it.
    last: Instant,
    pause: Duration,
}

impl Writer {
    /// Starts the writer thread; it ends when the last handle is gone.
    pub(super) fn start(mut desk: Desk) -> Result<Self, StoreError> {
        let (queue, jobs) = sync_channel(QUEUE_MAX);
        let revoked = Arc::new(AtomicBool::new(false));
        if let Some(connection) = &mut desk.connection {
            watch(connection, &revoked, &desk.revocations)?;
        }
        let mut clerk = Clerk {
            probing: None,
            revoked,
            crowded_at: None,
            desk,
        };
        if clerk.desk.health.fault().is_some() {
            clerk.begin_to_probe();
        }
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || clerk.work(&jobs))
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self { queue })
    }

    /// A writer that refuses every operation, for a store that is only read.
    pub(super) fn ended() -> Self {
        Self {
            queue: sync_channel(0).0,
        }
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

/// Notes in `revoked` that a certificate is changed, and counts it in `revocations` at once:
/// operations of the same group have to see it. Readers see it by the count after the commit.
fn watch(
    connection: &Connection,
    revoked: &Arc<AtomicBool>,
    revocations: &Arc<AtomicU64>,
) -> Result<(), rusqlite::Error> {
    let revoked = revoked.clone();
    let revocations = revocations.clone();
    connection.update_hook(Some(move |action: Action, _: &str, table: &str, _: i64| {
        if action == Action::SQLITE_UPDATE && table == "certificate" {
            revoked.store(true, Ordering::Relaxed);
            revocations.fetch_add(1, Ordering::Release);
        }
    }))
}

impl Clerk {
    fn work(mut self, jobs: &Receiver<Box<dyn Job>>) {
        loop {
            match self.next(jobs) {
                Ok(first) => self.serve(first, jobs),
                Err(RecvTimeoutError::Timeout) => self.probe(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// The next operation; `Timeout` when a probe is due.
    fn next(&self, jobs: &Receiver<Box<dyn Job>>) -> Result<Box<dyn Job>, RecvTimeoutError> {
        let Some(probing) = &self.probing else {
            return jobs.recv().map_err(|_| RecvTimeoutError::Disconnected);
        };
        match probing.pause.saturating_sub(probing.last.elapsed()) {
            Duration::ZERO => Err(RecvTimeoutError::Timeout),
            pause => jobs.recv_timeout(pause),
        }
    }

    fn serve(&mut self, first: Box<dyn Job>, jobs: &Receiver<Box<dyn Job>>) {
        let crowded_at = self.crowded_at;
        let is_crowded = crowded_at.is_some_and(|at| at.elapsed() < CROWD_LASTS);
        let mut group = gather(first, jobs, is_crowded);
        let is_crowd = group.len() >= CROWD;
        let outcome = self.commit(&mut group);
        if self.revoked.swap(false, Ordering::Relaxed) {
            self.desk.revocations.fetch_add(1, Ordering::Release);
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
        for job in group {
            job.answer(lost.clone());
        }
        self.crowded_at = is_crowd.then(Instant::now);
    }

    /// Commits a group. Gives the reason if an operation in it could not write.
    fn commit(&mut self, group: &mut [Box<dyn Job>]) -> Result<Option<String>, StoreError> {
        match &mut self.desk.connection {
            Some(connection) => commit(connection, group),
            None => {
                let fault = self.desk.health.fault();
                let reason = fault.map_or_else(|| "it is not open".into(), |it| it.reason);
                Err(StoreError::Unavailable(reason))
            }
        }
    }

    /// Takes what a group has shown: that the store cannot write, or that it may be able to again.
    fn note(&mut self, unwritable: Option<&str>) {
        match (unwritable, &mut self.probing) {
            (Some(reason), _) => {
                self.desk.health.failed(reason);
                self.begin_to_probe();
            }
            (None, Some(probing)) => probing.pause = PROBE_PAUSE,
            (None, None) => {}
        }
    }

    fn begin_to_probe(&mut self) {
        self.probing.get_or_insert(Probing {
            last: Instant::now(),
            pause: PROBE_PAUSE,
        });
    }

    /// Writes a probe, and says what came of it.
    fn probe(&mut self) {
        match self.write_probe() {
            Ok(()) => {
                self.probing = None;
                self.desk.health.healed();
            }
            Err(error) => {
                let pause = self.probing.take().map_or(PROBE_PAUSE, |it| it.pause * 2);
                self.probing = Some(Probing {
                    last: Instant::now(),
                    pause: pause.min(PROBE_PAUSE_MAX),
                });
                self.desk.health.failed(&cause(error));
            }
        }
    }

    fn write_probe(&mut self) -> Result<(), StoreError> {
        if let Some(connection) = &mut self.desk.connection {
            match probe(connection) {
                Err(error) if needs_another_connection(&error) => {}
                outcome => return Ok(outcome?),
            }
        }
        // The old one goes first: its files may have been replaced.
        self.desk.connection = None;
        let connection = self.desk.connection.insert((self.desk.open)()?);
        watch(connection, &self.revoked, &self.desk.revocations)?;
        Ok(probe(connection)?)
    }
}

/// Whether a connection that failed so may fail for ever, whatever becomes of the disk.
fn needs_another_connection(error: &rusqlite::Error) -> bool {
    !matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// Without the words that a caller gets to hear.
fn cause(error: StoreError) -> String {
    match error {
        StoreError::Unavailable(reason) => reason,
        other => other.to_string(),
    }
}

fn ended() -> StoreError {
    StoreError::Unavailable("the writer ended".into())
}

/// Nothing to do: only the answer counts, whatever became of the group.
struct Question(oneshot::Sender<()>);

impl Job for Question {
    fn run(&mut self, _: &Connection) -> Result<(), Refused> {
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
    fn run(&mut self, connection: &Connection) -> Result<(), Refused> {
        let outcome = (self.operation)(connection);
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
        // A caller that stopped waiting has lost nothing but the answer.
        let _ = self.reply.send(result);
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

/// Runs and commits a group. Gives the reason if an operation in it could not write.
fn commit(
    connection: &mut Connection,
    group: &mut [Box<dyn Job>],
) -> Result<Option<String>, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if group.iter_mut().all(|job| job.run(&transaction).is_ok()) {
        transaction.commit()?;
        return Ok(None);
    }
    drop(transaction);
    let mut unwritable = None;
    match commit_one_by_one(connection, group, &mut unwritable) {
        Ok(()) => Ok(unwritable),
        // What SQLite says after it has rolled back by itself is not the cause.
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
        // A full disk makes SQLite roll back by itself; what ran then would commit alone.
        if transaction.is_autocommit() {
            break;
        }
        execute("SAVEPOINT operation")?;
        if let Err(refused) = job.run(&transaction) {
            *unwritable = unwritable.take().or(refused.unwritable);
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

    /// A clerk over a database that has room for `pages`, and how often it was opened.
    fn clerk(path: &std::path::Path, pages: u32) -> (Clerk, Arc<AtomicU64>) {
        let path = path.to_owned();
        let opened = Arc::new(AtomicU64::new(0));
        let counted = opened.clone();
        let open = move || -> Result<Connection, StoreError> {
            counted.fetch_add(1, Ordering::Relaxed);
            let connection = Connection::open(&path)?;
            connection.execute_batch(
                "CREATE TABLE IF NOT EXISTS write_probe (only INTEGER PRIMARY KEY, filler BLOB);
                 CREATE TABLE IF NOT EXISTS t (value INTEGER)",
            )?;
            connection.pragma_update(None, "max_page_count", pages)?;
            Ok(connection)
        };
        let mut open: Opener = Box::new(open);
        let clerk = Clerk {
            desk: Desk {
                connection: Some(open().expect("a database")),
                open,
                health: Arc::default(),
                revocations: Arc::default(),
            },
            revoked: Arc::default(),
            crowded_at: None,
            probing: None,
        };
        (clerk, opened)
    }

    fn serve(clerk: &mut Clerk, job: Box<dyn Job>) {
        let (_queue, jobs) = sync_channel(1);
        clerk.serve(job, &jobs);
    }

    /// SQLite says SQLITE_FULL of a limit of pages as it does of a disk.
    fn fills_the_disk() -> Box<dyn Job> {
        let (reply, _) = oneshot::channel();
        Box::new(Operation {
            operation: |connection: &Connection| {
                let sql = "INSERT INTO write_probe VALUES (2, zeroblob(1000000))";
                Ok(connection.execute(sql, [])?)
            },
            outcome: None,
            reply,
        })
    }

    #[test]
    fn a_full_disk_is_known_from_the_first_write_that_fails_to_the_first_probe_that_succeeds() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut clerk, _) = clerk(&folder.path().join("t.db"), 16);
        serve(&mut clerk, insert(1, Ok(())));
        assert_eq!(clerk.desk.health.fault(), None);
        serve(&mut clerk, fills_the_disk());
        let fault = clerk.desk.health.fault().expect("it is known");
        assert!(
            fault.reason.contains("the disk is full: make room"),
            "{fault:?}"
        );

        // A small write may still fit, and shows nothing.
        serve(&mut clerk, insert(2, Ok(())));
        assert!(clerk.desk.health.fault().is_some());
        clerk.probe();
        assert!(clerk.desk.health.fault().is_some());
        let connection = clerk.desk.connection.as_ref().expect("it stays open");
        connection
            .pragma_update(None, "max_page_count", 4_096)
            .expect("room");
        clerk.probe();
        assert_eq!(clerk.desk.health.fault(), None);
        assert!(clerk.probing.is_none());
    }

    #[test]
    fn a_refusal_is_no_fault_of_the_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut clerk, _) = clerk(&folder.path().join("t.db"), 4_096);
        serve(
            &mut clerk,
            insert(1, Err(StoreError::Conflict("refused".into()))),
        );
        assert_eq!(clerk.desk.health.fault(), None);
    }

    #[test]
    fn a_connection_that_can_only_read_is_opened_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut clerk, opened) = clerk(&folder.path().join("t.db"), 4_096);
        let connection = clerk.desk.connection.as_ref().expect("open");
        connection
            .pragma_update(None, "query_only", true)
            .expect("it reads");
        serve(&mut clerk, insert(1, Ok(())));
        let fault = clerk.desk.health.fault().expect("it is known");
        assert!(fault.reason.contains("read-only"), "{fault:?}");
        clerk.probe();
        assert_eq!(clerk.desk.health.fault(), None);
        assert_eq!(opened.load(Ordering::Relaxed), 2);
    }

    /// Verifies the number of attempts: while the disk is full, whatever is asked, a
    /// probe is written after 1, 2, 4, 8 seconds, and then every ten.
    #[test]
    fn probes_are_rare() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut clerk, _) = clerk(&folder.path().join("t.db"), 16);
        serve(&mut clerk, fills_the_disk());
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let probing = clerk.probing.as_ref().expect("it goes on");
            pauses.push(probing.pause.as_secs());
            serve(&mut clerk, fills_the_disk());
            clerk.probe();
        }
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
    }
}

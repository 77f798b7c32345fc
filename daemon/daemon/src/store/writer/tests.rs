//! Tests what the writer commits, and its probes while the disk takes no write.

use super::*;
use crate::store::engine::params;

fn insert(value: i64, outcome: Result<(), StoreError>) -> Box<dyn Job> {
    let (reply, _) = oneshot::channel();
    let operation = move |tx: &Tx<'_>| {
        tx.execute("INSERT INTO t VALUES (?1)", params![value])?;
        outcome.clone()
    };
    Box::new(Operation {
        trace: None,
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

/// SQLite rolls back by itself within the second operation, which takes that for a refusal of its
/// own. Verifies: nothing of the group is on record, and each of its callers hears so.
#[test]
fn nothing_commits_alone_after_sqlite_has_rolled_back_by_itself() {
    let mut connection = Connection::open_in_memory().expect("memory");
    connection
        .execute("CREATE TABLE t (value INTEGER)", [])
        .expect("valid SQL");
    let (reply, _) = oneshot::channel();
    let rolled_back = Box::new(Operation {
        trace: None,
        operation: |tx: &Tx<'_>| tx.execute("ROLLBACK", params![]).map(|_| ()),
        outcome: None,
        reply,
    });
    let mut group = [insert(1, Ok(())), rolled_back, insert(2, Ok(()))];
    assert!(commit(&mut connection, &mut group).is_err());
    let kept = connection.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
    assert_eq!(kept, Ok(0));
}

/// Returns a writer over a database that has room for `pages`, and counts how often it is opened.
fn thread(path: &std::path::Path, pages: u32) -> (WriterThread, Arc<AtomicU64>) {
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
    let thread = WriterThread {
        state: WriterState {
            connection: Some(open().expect("a database")),
            open,
            health: Arc::default(),
            revocations: Arc::default(),
        },
        revoked: Arc::default(),
        probing: None,
    };
    (thread, opened)
}

fn serve(thread: &mut WriterThread, job: Box<dyn Job>) {
    let (_queue, jobs) = sync_channel(1);
    thread.serve(job, &jobs);
}

/// SQLite says SQLITE_FULL of a limit of pages as it does of a disk.
fn fills_the_disk() -> Box<dyn Job> {
    let (reply, _) = oneshot::channel();
    Box::new(Operation {
        trace: None,
        operation: |tx: &Tx<'_>| {
            let sql = "INSERT INTO write_probe VALUES (2, zeroblob(1000000))";
            tx.execute(sql, params![])
        },
        outcome: None,
        reply,
    })
}

#[test]
fn a_full_disk_is_known_from_the_first_write_that_fails_to_the_first_probe_that_succeeds() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut thread, _) = thread(&folder.path().join("t.db"), 16);
    serve(&mut thread, insert(1, Ok(())));
    assert_eq!(thread.state.health.fault(), None);
    serve(&mut thread, fills_the_disk());
    let fault = thread.state.health.fault().expect("it is known");
    assert!(
        fault.reason.contains("the disk is full: make room"),
        "{fault:?}"
    );

    // A small write may still fit, and shows nothing.
    serve(&mut thread, insert(2, Ok(())));
    assert!(thread.state.health.fault().is_some());
    thread.probe();
    assert!(thread.state.health.fault().is_some());
    let connection = thread.state.connection.as_ref().expect("it stays open");
    connection
        .pragma_update(None, "max_page_count", 4_096)
        .expect("room");
    thread.probe();
    assert_eq!(thread.state.health.fault(), None);
    assert!(thread.probing.is_none());
}

#[test]
fn a_refusal_is_no_fault_of_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut thread, _) = thread(&folder.path().join("t.db"), 4_096);
    serve(
        &mut thread,
        insert(1, Err(StoreError::Conflict("refused".into()))),
    );
    assert_eq!(thread.state.health.fault(), None);
}

#[test]
fn a_connection_that_can_only_read_is_opened_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut thread, opened) = thread(&folder.path().join("t.db"), 4_096);
    let connection = thread.state.connection.as_ref().expect("open");
    connection
        .pragma_update(None, "query_only", true)
        .expect("it reads");
    serve(&mut thread, insert(1, Ok(())));
    let fault = thread.state.health.fault().expect("it is known");
    assert!(fault.reason.contains("read-only"), "{fault:?}");
    thread.probe();
    assert_eq!(thread.state.health.fault(), None);
    assert_eq!(opened.load(Ordering::Relaxed), 2);
}

/// Verifies the number of attempts: while the disk is full, whatever is asked, a
/// probe is written after 1, 2, 4, 8 seconds, and then every ten.
#[test]
fn probes_are_rare() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut thread, _) = thread(&folder.path().join("t.db"), 16);
    serve(&mut thread, fills_the_disk());
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let probing = thread.probing.as_ref().expect("it goes on");
        pauses.push(probing.pause.as_secs());
        serve(&mut thread, fills_the_disk());
        thread.probe();
    }
    assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
}

//! Reads the whole database beside the writer, for a bounded time, to find what is damaged.
//!
//! Each inspection has a connection of its own, so it takes no reader from requests.

use super::engine::Tx;
use super::unchanged::Unchanged;
use super::{AuditVerdict, Store, StoreError, audit, configure, database_file};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::path::Path;
use std::time::{Duration, Instant};

/// How many steps of SQLite's machine run between two looks at the time.
const STEPS: i32 = 10_000;

/// The result of reading every page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageInspection {
    Good,
    /// The first fault, in SQLite's words.
    Damaged(String),
    /// The time was over, and no fault was found until then.
    OutOfTime,
}

/// The result of reading the journal.
#[derive(Clone, Debug)]
pub struct JournalInspection {
    pub verdict: AuditVerdict,
    /// Whether the last entry was read.
    pub complete: bool,
}

impl Store {
    /// Reads every page, index and constraint, for `bound` at most.
    pub fn inspect_pages(&self, bound: Duration) -> Result<PageInspection, StoreError> {
        pages(&beside_writer(&self.path)?, bound)
    }

    /// Checks every hash of the journal, for `bound` at most.
    pub fn inspect_journal(&self, bound: Duration) -> Result<JournalInspection, StoreError> {
        journal(&beside_writer(&self.path)?, bound)
    }

    /// Returns the version of the schema.
    pub fn schema_version(&self) -> Result<i64, StoreError> {
        let connection = beside_writer(&self.path)?;
        Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
    }
}

/// [`Store::inspect_pages`] of a database without a daemon, but for constraints; changes no file.
pub fn unchanged_pages(database: &Path, bound: Duration) -> Result<PageInspection, StoreError> {
    pages(&Unchanged::of(database)?.connect()?, bound)
}

/// [`Store::inspect_journal`] of a database without a daemon; changes no file.
pub fn unchanged_journal(
    database: &Path,
    bound: Duration,
) -> Result<JournalInspection, StoreError> {
    journal(&Unchanged::of(database)?.connect()?, bound)
}

/// Connects as a reader. Where the disk takes no write, the files are read as they are. Opened for
/// writing, because SQLite forgets the CHECK constraints of a database that it opens read-only.
fn beside_writer(database: &Path) -> Result<Connection, StoreError> {
    let connected = database_file::connect(database, OpenFlags::SQLITE_OPEN_READ_WRITE);
    let configured = connected.and_then(|it| {
        configure(&it)?;
        it.pragma_update(None, "query_only", true)?;
        it.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(it)
    });
    match configured {
        Err(StoreError::Unavailable(_)) => Unchanged::of(database)?.connect(),
        connected => connected,
    }
}

fn pages(connection: &Connection, bound: Duration) -> Result<PageInspection, StoreError> {
    let until = Instant::now() + bound;
    connection.progress_handler(STEPS, Some(move || Instant::now() >= until))?;
    let found = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0));
    connection.progress_handler(0, None::<fn() -> bool>)?;
    let is_over = |error: &rusqlite::Error| {
        error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted)
    };
    match found {
        Ok(found) => Ok(judged(found)),
        Err(error) if is_over(&error) => Ok(PageInspection::OutOfTime),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
            Ok(PageInspection::Damaged(error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

fn judged(found: String) -> PageInspection {
    match found.as_str() {
        "ok" => PageInspection::Good,
        _ => PageInspection::Damaged(found),
    }
}

fn journal(connection: &Connection, bound: Duration) -> Result<JournalInspection, StoreError> {
    let (verdict, complete) = audit::verify_until(&Tx::new(connection), Instant::now() + bound)?;
    Ok(JournalInspection { verdict, complete })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(folder: &Path) -> Store {
        Store::open(&folder.join("hallmark.db")).expect("a store")
    }

    #[test]
    fn a_row_that_a_constraint_forbids_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path());
        let bound = Duration::from_secs(20);
        assert_eq!(
            store.inspect_pages(bound).expect("read"),
            PageInspection::Good
        );
        let other = Connection::open(store.path()).expect("the database");
        let sql = "PRAGMA ignore_check_constraints = 1; \
                   CREATE TABLE t (x CHECK (x > 0)); INSERT INTO t VALUES (0)";
        other.execute_batch(sql).expect("valid SQL");
        let found = store.inspect_pages(bound).expect("read");
        assert!(
            matches!(&found, PageInspection::Damaged(it) if it.contains("CHECK")),
            "{found:?}"
        );
    }

    #[test]
    fn an_inspection_ends_in_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path());
        let other = Connection::open(store.path()).expect("the database");
        let sql = "CREATE TABLE t (x PRIMARY KEY, y); \
                   WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) \
                   INSERT INTO t SELECT i, hex(randomblob(64)) FROM n";
        other.execute_batch(sql).expect("valid SQL");
        let found = store.inspect_pages(Duration::ZERO).expect("read");
        assert_eq!(found, PageInspection::OutOfTime);
    }
}

//! Opens the database for reading and changes no file: no schema, no write-ahead log, no index of
//! it.
//!
//! SQLite makes `-wal` and `-shm` files even for a reader, and on a full or read-only disk it
//! cannot, and fails. So each state of the files is opened in the way that needs no file to be
//! made:
//!
//! | `-shm` | `-wal` | way |
//! |---|---|---|
//! | there | there | read the index, or make one in memory (`readonly_shm`) |
//! | not there | empty | everything is in the database (`immutable`) |
//! | any | not there | everything is in the database (`immutable`) |
//! | not there | has content | a copy in a temporary folder |

use super::{BUSY_TIMEOUT_MS, StoreError, database_file};
use crate::files;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use rusqlite::{Connection, OpenFlags};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Characters of a path that are escaped in a URI (sqlite.org/uri.html).
const NOT_IN_PATHS: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'?').add(b'#');

/// A way to read a database as it is.
pub(super) struct Unchanged {
    uri: String,
    /// The copy that is read, where it must be one.
    _copy: Option<TempDir>,
}

impl Unchanged {
    /// Chooses the way for the database at `path`, which must exist.
    pub(super) fn of(path: &Path) -> Result<Self, StoreError> {
        database_file::check_files(path)?;
        let path = &database_file::real(path)?;
        let log = fs::metadata(beside(path, "-wal"));
        if log.is_ok() && beside(path, "-shm").exists() {
            return Ok(Self::in_place(path, "mode=ro&readonly_shm=1"));
        }
        if log.map_or(0, |it| it.len()) == 0 {
            return Ok(Self::in_place(path, "mode=ro&immutable=1"));
        }
        let folder = copy(path).map_err(|error| {
            let text = format!("the database cannot be copied to a temporary folder: {error}");
            StoreError::Unavailable(text)
        })?;
        let copied = database_file::real(&folder.path().join("copy.db"))?;
        Ok(Self {
            _copy: Some(folder),
            ..Self::in_place(&copied, "mode=ro")
        })
    }

    fn in_place(path: &Path, parameters: &str) -> Self {
        let path = path.display().to_string();
        let path = utf8_percent_encode(&path, NOT_IN_PATHS);
        Self {
            uri: format!("file:{path}?{parameters}"),
            _copy: None,
        }
    }

    /// A connection that has read the database once.
    pub(super) fn connect(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW
            | OpenFlags::SQLITE_OPEN_URI;
        let connection = Connection::open_with_flags(&self.uri, flags)?;
        connection.busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    }
}

/// A file of SQLite's beside the database.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// For this user alone.
fn copy(path: &Path) -> io::Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("hallmark-").tempdir()?;
    for suffix in ["", "-wal"] {
        let mut from = files::open_ours(&beside(path, suffix))?;
        let to = folder.path().join(format!("copy.db{suffix}"));
        let mut to = files::create_new(&to, 0o600)?;
        io::copy(&mut from, &mut to)?;
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Everything in a folder, byte for byte.
    fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(folder).expect("a folder");
        let paths = entries.map(|it| it.expect("an entry").path());
        paths
            .map(|path| (path.clone(), fs::read(path).expect("a file")))
            .collect()
    }

    /// A database as a crash leaves it, without the files `removed`.
    fn crashed(folder: &Path, removed: &[&str]) -> PathBuf {
        let live = folder.join("live.db");
        let dead = folder.join("a %20 ?#.db");
        let connection = Connection::open(&live).expect("a database");
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (7)",
            )
            .expect("valid SQL");
        for suffix in ["", "-wal", "-shm"] {
            if !removed.contains(&suffix) {
                fs::copy(beside(&live, suffix), beside(&dead, suffix)).expect("there");
            }
        }
        drop(connection);
        dead
    }

    #[test]
    fn every_state_of_the_files_is_read_and_left_alone() {
        for removed in [&[][..], &["-shm"]] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = crashed(folder.path(), removed);
            let before = files(folder.path());
            let unchanged = Unchanged::of(&path).expect("readable");
            let connection = unchanged.connect().expect("readable");
            let x: i64 = connection
                .query_row("SELECT x FROM t", [], |row| row.get(0))
                .expect("what was committed");
            assert_eq!(x, 7, "without {removed:?}");
            drop(connection);
            assert_eq!(files(folder.path()), before, "without {removed:?}");
        }
    }

    #[test]
    fn a_database_that_was_closed_is_read_and_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("closed.db");
        let connection = Connection::open(&path).expect("a database");
        connection
            .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)")
            .expect("valid SQL");
        drop(connection);
        let before = files(folder.path());
        let connection = Unchanged::of(&path).expect("readable").connect();
        drop(connection.expect("readable"));
        assert_eq!(files(folder.path()), before);
    }
}

//! Creates and connects to the database's files, which only their owner can use.
//!
//! SQLite gives a new database the mode 0644 less the umask, and its logs the database's mode. So
//! the files are made and restricted here, before SQLite opens them. SQLite opens by path: a
//! symbolic link in the place of a file is refused, and root gets here only with the rights of the
//! folder's owner (`files::as_owner`).

use super::StoreError;
use crate::files;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, OpenFlags};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The suffixes of the files that SQLite puts beside a database.
pub const LOGS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The characters of a path that are not escaped in a URI.
const IN_URI: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'.')
    .remove(b'-')
    .remove(b'_');

/// Makes the database's file if there is none, and restricts all its files to their owner.
pub(super) fn make_private(database: &Path) -> Result<(), StoreError> {
    files::make_private(database).map_err(|error| unusable(database, &error))?;
    for log in logs(database) {
        files::restrict(&log).map_err(|error| unusable(&log, &error))?;
    }
    Ok(())
}

/// Refuses a link, FIFO or device in the place of the database or a log: SQLite would follow the
/// link or wait for the FIFO.
pub(super) fn check_files(database: &Path) -> Result<(), StoreError> {
    for file in [database.to_owned()].into_iter().chain(logs(database)) {
        files::check_regular(&file).map_err(|error| unusable(&file, &error))?;
    }
    Ok(())
}

/// A disk that cannot be written may recover; a file that must not be there needs an operator.
fn unusable(path: &Path, error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::Other => StoreError::Unreadable(error.to_string()),
        _ => StoreError::Unavailable(format!("{}: {error}", path.display())),
    }
}

/// Returns the paths of the logs that may be beside a database.
pub fn logs(database: &Path) -> impl Iterator<Item = PathBuf> {
    LOGS.into_iter().map(|suffix| {
        let mut log = database.as_os_str().to_owned();
        log.push(suffix);
        PathBuf::from(log)
    })
}

/// Connects to a database that exists.
pub(super) fn connect(database: &Path, access: OpenFlags) -> Result<Connection, StoreError> {
    check_files(database)?;
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    Ok(Connection::open_with_flags(real(database)?, flags)?)
}

/// Connects to a file that no program writes. SQLite ignores a log beside it.
pub(super) fn connect_unchanging(database: &Path) -> Result<Connection, StoreError> {
    let path = real(database)?;
    let path = percent_encode(path.as_os_str().as_bytes(), IN_URI);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW
        | OpenFlags::SQLITE_OPEN_URI;
    let uri = format!("file:{path}?immutable=1");
    Ok(Connection::open_with_flags(uri, flags)?)
}

/// Resolves the links in the folders above, which may be the operator's: SQLite would refuse those
/// too.
pub(super) fn real(database: &Path) -> Result<PathBuf, StoreError> {
    let folder = database.parent().filter(|it| !it.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let real = folder
        .canonicalize()
        .map_err(|error| StoreError::Unavailable(format!("{}: {error}", folder.display())))?;
    Ok(real.join(database.file_name().unwrap_or_default()))
}

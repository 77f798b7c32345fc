//! Opens the database for writing where that is possible, else for reading until it is.
//!
//! A daemon that starts on a full or read-only disk can still serve revocation lists, its state and
//! its metrics, so such a disk does not end the start. Readers then read the files as they are
//! ([`Unchanged`]), every write is refused, and the writer tries to open the database again.

use super::engine::{Tx, remedy};
use super::health::WriteHealth;
use super::probe::probe;
use super::unchanged::Unchanged;
use super::writer::{Writer, WriterState};
use super::{Store, StoreError, configure, database_file, migrations};
use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags};
use rustix::fs::{Access, access};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many connections serve reads concurrently.
const READERS: usize = 4;
/// The writer's page cache. Serial numbers, digests and keys are spread over their indexes: with
/// SQLite's default of 2 MiB nearly every page is read from the file again. A larger cache never
/// shrinks, and each commit walks through it.
const WRITER_CACHE_KIB: i64 = 7 * 1024;
/// The length of the write-ahead log, in pages of 4 KiB, at which it is copied into the database.
/// A page that changed a hundred times until then is copied once.
const CHECKPOINT_PAGES: i64 = 4_096;

/// A database that was opened for reading only.
pub enum ReadOnly {
    /// Its schema is of this version.
    Current(Store),
    /// Its schema is of an earlier version; the next start of the daemon migrates it.
    Older,
}

/// The connections that serve reads.
pub(super) struct Readers {
    pub(super) connections: [Mutex<Connection>; READERS],
    mode: Mutex<Mode>,
}

/// How the readers read.
enum Mode {
    /// While another connection writes.
    BesideWriter,
    /// The files as they are, until the database can be written.
    Unchanged(Unchanged),
    /// An empty database in memory, until a file can be made.
    Nothing,
}

impl Store {
    /// Opens the database at `path`, creating and migrating it as needed. Where the disk takes no
    /// write, the store reads only, and [`Store::write_fault`] returns why.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let health = Arc::new(WriteHealth::default());
        let (connection, readers) = match open_to_write(path) {
            Ok(mut connection) => {
                if let Err(error) = probe(&mut connection) {
                    note(&health, error.into())?;
                }
                (Some(connection), Readers::new(Mode::BesideWriter, path)?)
            }
            Err(error) => {
                note(&health, error)?;
                (None, Readers::without_a_writer(path)?)
            }
        };
        let readers = Arc::new(readers);
        let revocations = Arc::default();
        let refreshed = Arc::clone(&readers);
        let database = path.to_owned();
        let writer = Writer::start(WriterState {
            connection,
            open: Box::new(move || refreshed.make_way(&database)),
            health: Arc::clone(&health),
            revocations: Arc::clone(&revocations),
        })?;
        Ok(Self {
            writer,
            readers,
            health,
            revocations,
            certificates_counted: Arc::default(),
            path: path.to_owned(),
        })
    }

    /// Opens the database at `path` for reading and changes no file. Every write is refused.
    pub fn open_read_only(path: &Path) -> Result<ReadOnly, StoreError> {
        let unchanged = Unchanged::of(path)?;
        if missing_migrations(&unchanged.connect()?)? > 0 {
            return Ok(ReadOnly::Older);
        }
        Ok(ReadOnly::Current(Self {
            writer: Writer::ended(),
            readers: Arc::new(Readers::new(Mode::Unchanged(unchanged), path)?),
            health: Arc::default(),
            revocations: Arc::default(),
            certificates_counted: Arc::default(),
            path: path.to_owned(),
        }))
    }
}

/// Records a disk that takes no write; returns every other error, which ends the start.
fn note(health: &WriteHealth, error: StoreError) -> Result<(), StoreError> {
    match error {
        StoreError::Unavailable(reason) => {
            health.failed(&reason);
            Ok(())
        }
        other => Err(other),
    }
}

fn open_to_write(path: &Path) -> Result<Connection, StoreError> {
    database_file::make_private(path)?;
    let mut connection = database_file::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    configure(&connection)?;
    // SQLite opens a file read-only where it may not write, and would never try to write again.
    if connection.is_readonly(MAIN_DB)? {
        let error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY);
        return Err(rusqlite::Error::SqliteFailure(error, None).into());
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    if missing_migrations(&connection)? > 0 {
        migrate(&mut connection)?;
    }
    Ok(connection)
}

/// Asks the system, which costs less than an attempt to open.
fn is_writable(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    access(folder, Access::WRITE_OK).map_err(|error| {
        // The same remedy as when SQLite meets it first.
        let remedy = remedy(ErrorCode::ReadOnly).unwrap_or_default();
        StoreError::Unavailable(format!("{remedy} ({}: {error})", folder.display()))
    })
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    migrations()
        .to_latest(connection)
        .map_err(|error| match error {
            rusqlite_migration::Error::RusqliteError { err, .. } => err.into(),
            other => StoreError::Unreadable(other.to_string()),
        })
}

/// Returns how many migrations the database lacks; an error if it is newer than this program.
fn missing_migrations(connection: &Connection) -> Result<i32, StoreError> {
    match migrations().pending_migrations(connection) {
        Ok(missing) if missing >= 0 => Ok(missing),
        Ok(_) => Err(StoreError::Unreadable(
            "the database is from a newer version of Hallmark; install that version".into(),
        )),
        Err(rusqlite_migration::Error::RusqliteError { err, .. }) => Err(err.into()),
        Err(other) => Err(StoreError::Unreadable(other.to_string())),
    }
}

fn reader(path: &Path) -> Result<Connection, StoreError> {
    let connection = database_file::connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    configure(&connection)?;
    Ok(connection)
}

/// Returns an empty database in memory.
fn nothing() -> Result<Connection, StoreError> {
    let mut connection = Connection::open_in_memory()?;
    migrate(&mut connection)?;
    Ok(connection)
}

impl Mode {
    fn connect(&self, path: &Path) -> Result<Connection, StoreError> {
        match self {
            Mode::BesideWriter => reader(path),
            Mode::Unchanged(unchanged) => unchanged.connect(),
            Mode::Nothing => nothing(),
        }
    }
}

impl Readers {
    fn new(mode: Mode, path: &Path) -> Result<Self, StoreError> {
        let open = || mode.connect(path).map(Mutex::new);
        Ok(Self {
            connections: [open()?, open()?, open()?, open()?],
            mode: Mutex::new(mode),
        })
    }

    /// Returns readers of the files as they are, or of an empty database where there is no file.
    fn without_a_writer(path: &Path) -> Result<Self, StoreError> {
        if !path.try_exists().unwrap_or(true) {
            return Self::new(Mode::Nothing, path);
        }
        let unchanged = Unchanged::of(path)?;
        if missing_migrations(&unchanged.connect()?)? > 0 {
            return Err(StoreError::Unreadable(
                "the database is from an earlier version and cannot be changed now: make its disk \
                 writable"
                    .into(),
            ));
        }
        Self::new(Mode::Unchanged(unchanged), path)
    }

    /// Opens the database for writing and moves the readers beside that connection.
    fn make_way(&self, path: &Path) -> Result<Connection, StoreError> {
        let mut mode = lock(&self.mode);
        if matches!(*mode, Mode::BesideWriter) {
            return open_to_write(path);
        }
        is_writable(path)?;
        // A process shares one index of the write-ahead log, and it must not be one that was opened
        // read-only. So the readers are closed first, and reads wait for that long.
        let mut held: Vec<_> = self.connections.iter().map(lock).collect();
        for connection in &mut held {
            **connection = Connection::open_in_memory()?;
        }
        let opened = open_to_write(path);
        if opened.is_ok() {
            *mode = Mode::BesideWriter;
        }
        for connection in &mut held {
            **connection = mode.connect(path)?;
        }
        opened
    }

    /// Runs `operation` on a free connection; waits for the first connection if none is free.
    pub(super) fn read<T>(
        &self,
        operation: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let free = self
            .connections
            .iter()
            .find_map(|reader| reader.try_lock().ok());
        operation(&Tx::new(
            &free.unwrap_or_else(|| lock(&self.connections[0])),
        ))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

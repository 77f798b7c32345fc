//! How the database is opened: for writing where that is possible, else for reading until it is.
//!
//! A daemon that starts on a full or read-only disk has much to serve: revocation lists, its state,
//! its metrics. So such a disk does not end the start. What is read is read as it is
//! ([`Unchanged`]), every write is refused, and the writer tries to open the database again.

use super::health::WriteHealth;
use super::probe::probe;
use super::unchanged::Unchanged;
use super::writer::{Desk, Writer};
use super::{Store, StoreError, configure, migrations, place};
use rusqlite::{Connection, MAIN_DB, OpenFlags};
use rustix::fs::{Access, access};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many connections serve reads side by side.
const READERS: usize = 4;
/// What the writer keeps of the database in memory, in KiB. Serial numbers, digests and keys fall
/// anywhere into their indexes; with SQLite's own 2 MiB nearly every one is read from the file again.
/// What is taken once is not given back, and each commit looks through it.
const WRITER_CACHE_KIB: i64 = 8 * 1024;
/// How long the write-ahead log may get before it is copied into the database, in pages of 4 KiB.
/// A page that changed a hundred times until then is copied once.
const CHECKPOINT_PAGES: i64 = 4_096;

/// A database that was opened for reading alone.
pub enum Looked {
    /// It is of this version.
    Current(Store),
    /// It is from an earlier version, and the next start of the daemon changes it.
    Older,
}

/// The connections that serve reads.
pub(super) struct Readers {
    pub(super) connections: [Mutex<Connection>; READERS],
    mode: Mutex<Mode>,
}

/// How the readers read.
enum Mode {
    /// Beside a connection that writes.
    BesideWriter,
    /// What is there, until it can be written to.
    Unchanged(Unchanged),
    /// There is no database, until one can be made.
    Nothing,
}

impl Store {
    /// Opens the database at `path`, creating and migrating it as needed. Where nothing can be
    /// written, what is there is read, and [`Store::write_fault`] tells why.
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
        let writer = Writer::start(Desk {
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

    /// Opens the database at `path` for reading, and changes no file. Every write is refused.
    pub fn look(path: &Path) -> Result<Looked, StoreError> {
        let unchanged = Unchanged::of(path)?;
        if missing_migrations(&unchanged.connect()?)? > 0 {
            return Ok(Looked::Older);
        }
        Ok(Looked::Current(Self {
            writer: Writer::ended(),
            readers: Arc::new(Readers::new(Mode::Unchanged(unchanged), path)?),
            health: Arc::default(),
            revocations: Arc::default(),
            certificates_counted: Arc::default(),
            path: path.to_owned(),
        }))
    }
}

/// A disk that takes no write is noted; every other error ends the start.
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
    place::make_private(path)?;
    let mut connection = place::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    configure(&connection)?;
    // SQLite reads where it may not write, and would never try to write again.
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

/// Asks the system, which costs less than to try.
fn is_writable(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    access(folder, Access::WRITE_OK).map_err(|error| {
        let text = format!("{} cannot be written to: {error}", folder.display());
        StoreError::Unavailable(text)
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

/// How many migrations the database has yet to see; an error if it has seen more than there are.
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
    let connection = place::connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    configure(&connection)?;
    Ok(connection)
}

/// A database that holds nothing, in memory.
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

    /// Reads what is there as it is; nothing, where nothing is.
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

    /// Opens the database for writing, after which the readers read beside that connection.
    fn make_way(&self, path: &Path) -> Result<Connection, StoreError> {
        let mut mode = lock(&self.mode);
        if matches!(*mode, Mode::BesideWriter) {
            return open_to_write(path);
        }
        is_writable(path)?;
        // One process has one index of the write-ahead log, and it must not be one that was opened
        // for reading alone. So these connections go first. Reads wait that long.
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

    /// Runs `operation` on a connection that is free, or on the first one that will be.
    pub(super) fn read<T>(
        &self,
        operation: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut connections = self.connections.iter();
        let free = connections.find_map(|reader| reader.try_lock().ok());
        operation(&free.unwrap_or_else(|| lock(&self.connections[0])))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

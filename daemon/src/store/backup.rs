//! Copies of the database, and what is in one.
//!
//! A copy is taken while others write: it is what was committed at one moment. Looking at a copy changes
//! nothing of it, and needs no daemon.

use super::audit::{self, AuditEntry, AuditVerdict};
use super::{BUSY_TIMEOUT_MS, Store, StoreError, configure, migrations};
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// What a database holds, in figures that tell one state of it from another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Generations of authorities.
    pub generations: i64,
    /// Recorded intents: serial numbers that are used up.
    pub intents: i64,
    /// Certificates.
    pub certificates: i64,
    /// Entries of the audit journal.
    pub audit_entries: i64,
    /// Hex hash of the last one, which seals them all.
    pub audit_hash: String,
}

/// A certificate, as far as a person has to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IssuedLater {
    /// Upper hex.
    pub serial: String,
    /// The profile's name.
    pub profile: String,
    /// Its common name.
    pub subject: String,
}

impl Store {
    /// Writes what is committed by now into a new file at `path`, durably. Whoever writes meanwhile is
    /// not held up.
    pub fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        configure(&connection)?;
        connection.execute("VACUUM INTO ?1", [path.display().to_string()])?;
        drop(connection);
        File::open(path)
            .and_then(|file| file.sync_all())
            .map_err(|error| StoreError::Unavailable(error.to_string()))
    }
}

/// Reads a database whole: its pages, its references, and every seal of its journal.
pub fn inspect(database: &Path) -> Result<Contents, StoreError> {
    let connection = open(database)?;
    let found: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(StoreError::Unreadable(found));
    }
    let known = migrations()
        .pending_migrations(&connection)
        .map_err(|error| StoreError::Unreadable(error.to_string()))?;
    if known < 0 {
        return Err(StoreError::Unreadable(
            "it is from a newer version of Hallmark; install that one".into(),
        ));
    }
    let count = |table: &str| {
        connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
            row.get::<_, i64>(0)
        })
    };
    let AuditVerdict {
        entries,
        last_hash,
        broken_at,
    } = audit::verify(&connection)?;
    if let Some(sequence) = broken_at {
        return Err(StoreError::Unreadable(format!(
            "the audit journal is broken at entry {sequence}"
        )));
    }
    Ok(Contents {
        generations: count("generation")?,
        intents: count("intent")?,
        certificates: count("certificate")?,
        audit_entries: entries,
        audit_hash: last_hash,
    })
}

/// Records in a database that nobody else has open that it was restored. Every revocation list is due
/// then: a younger one may have been published, and the next one must be younger still.
pub fn record_restore(database: &Path, entry: &AuditEntry) -> Result<(), StoreError> {
    let mut connection = Connection::open(database)?;
    configure(&connection)?;
    let transaction = connection.transaction()?;
    transaction.execute("UPDATE generation SET revocations = revocations + 1", [])?;
    audit::append(&transaction, entry)?;
    Ok(transaction.commit()?)
}

/// Moves everything into the one file of a database that nobody else has open.
pub fn settle(database: &Path) -> Result<(), StoreError> {
    let connection = Connection::open(database)?;
    Ok(connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
}

/// Certificates in `database` whose intents came after its first `intents`: none is ever deleted.
pub fn issued_after(database: &Path, intents: i64) -> Result<Vec<IssuedLater>, StoreError> {
    let connection = open(database)?;
    let mut statement = connection.prepare(
        "SELECT hex(serial), profile, subject FROM intent
         WHERE state = 'issued' AND id > ?1 ORDER BY id",
    )?;
    let rows = statement.query_map([intents], |row| {
        Ok(IssuedLater {
            serial: row.get(0)?,
            profile: row.get(1)?,
            subject: row.get(2)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn open(database: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags)?;
    connection.busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))?;
    Ok(connection)
}

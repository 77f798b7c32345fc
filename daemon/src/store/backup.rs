//! Copies of the database, and what is in one.
//!
//! A copy is taken while others write: it is what was committed at one moment. Looking at a copy changes
//! nothing of it, and needs no daemon.

use super::audit::{self, AuditEntry, AuditVerdict};
use super::{BUSY_TIMEOUT_MS, Store, StoreError, configure, migrations, place};
use crate::files;
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};
use std::io;
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
    /// Writes what is committed into a new file at `path`, durably and for its owner alone. Writers
    /// are not held up.
    pub fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let connection = place::connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        configure(&connection)?;
        let unusable =
            |error: io::Error| StoreError::Unavailable(format!("{}: {error}", path.display()));
        // SQLite takes an empty file, and leaves its mode.
        files::create_new(path, 0o600).map_err(unusable)?;
        connection.execute("VACUUM INTO ?1", [path.display().to_string()])?;
        drop(connection);
        let copy = files::open_ours(path).map_err(unusable)?;
        copy.sync_all().map_err(unusable)
    }
}

/// Reads a database whole: its pages, its references, and every seal of its journal.
pub fn inspect(database: &Path) -> Result<Contents, StoreError> {
    let connection = place::connect_unchanging(database)?;
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

/// Records in a database that no other process has open that it was restored. The restored revocation
/// lists are withheld until newer ones are signed: lists with more entries may have been published.
pub fn record_restore(database: &Path, entry: &AuditEntry) -> Result<(), StoreError> {
    let mut connection = place::connect(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    configure(&connection)?;
    let transaction = connection.transaction()?;
    transaction.execute(
        "UPDATE generation SET revocations = revocations + 1, crl_withheld = 1",
        [],
    )?;
    audit::append(&transaction, entry)?;
    Ok(transaction.commit()?)
}

/// Moves everything into the one file of a database that nobody else has open.
pub fn settle(database: &Path) -> Result<(), StoreError> {
    let connection = place::connect(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
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
    let connection = place::connect(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))?;
    Ok(connection)
}

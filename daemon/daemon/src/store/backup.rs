//! Copies the database, and inspects a copy.
//!
//! A copy is taken while others write: it holds what was committed at one moment. Inspecting a copy
//! changes nothing in it and needs no daemon.

use super::audit::{self, AuditEntry, AuditVerdict};
use super::engine::{Tx, params};
use super::{
    BUSY_TIMEOUT_MS, Store, StoreError, UnixSeconds, configure, database_file, migrations, restore,
};
use crate::files;
use rusqlite::{Connection, OpenFlags};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How often the length of a copy under way is reported.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// Counts and a hash that distinguish two states of a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Contents {
    pub generations: i64,
    /// Recorded intents: serial numbers that are used up.
    pub intents: i64,
    pub certificates: i64,
    /// Entries of the audit journal.
    pub audit_entries: i64,
    /// Hex hash of the last entry, which seals all of them.
    pub audit_hash: String,
}

/// A certificate that a restored database does not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IssuedLater {
    pub serial: String,
    pub profile: String,
    pub subject: String,
}

impl Store {
    /// Writes what is committed into a new file at `path`, durably and for its owner only. Writers
    /// do not wait. `report` gets the bytes written so far, and the bytes of the database.
    pub fn copy_to(
        &self,
        path: &Path,
        report: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<(), StoreError> {
        let connection = database_file::connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        configure(&connection)?;
        let unusable =
            |error: io::Error| StoreError::Unavailable(format!("{}: {error}", path.display()));
        // SQLite accepts an empty file and keeps its mode.
        files::create_new(path, 0o600).map_err(unusable)?;
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        let page: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let total = pages.saturating_mul(page).unsigned_abs();
        watched(path, total, report, || {
            connection.execute("VACUUM INTO ?1", [path.display().to_string()])
        })?;
        drop(connection);
        let copy = files::open_ours(path).map_err(unusable)?;
        copy.sync_all().map_err(unusable)
    }
}

/// Runs `work`, which writes the file at `path`, and reports how long that is until then.
fn watched<T>(
    path: &Path,
    total: u64,
    report: &(dyn Fn(u64, u64) + Sync),
    work: impl FnOnce() -> T,
) -> T {
    thread::scope(|scope| {
        let (working, ended) = mpsc::channel::<()>();
        scope.spawn(move || {
            while ended.recv_timeout(REPORT_EVERY) == Err(RecvTimeoutError::Timeout) {
                let written = fs::symlink_metadata(path).map_or(0, |it| it.len());
                report(written.min(total), total);
            }
        });
        let done = work();
        drop(working);
        done
    })
}

/// Checks the whole database: its pages, its references and every hash of its journal.
pub fn inspect(database: &Path) -> Result<Contents, StoreError> {
    let connection = database_file::connect_unchanging(database)?;
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
    } = audit::verify(&Tx::new(&connection))?;
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

/// Records in a database that no other process has open that a backup, made at `lost_since`, was
/// restored. The restored revocation lists are withheld until newer ones are signed: lists with
/// more entries may have been published.
pub fn record_restore(
    database: &Path,
    lost_since: UnixSeconds,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    let mut connection = database_file::connect(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    configure(&connection)?;
    let transaction = connection.transaction()?;
    transaction.execute(
        "UPDATE generation SET revocations = revocations + 1, crl_withheld = 1",
        [],
    )?;
    transaction.execute(
        "UPDATE crl_partition SET revocations = (
             SELECT g.revocations FROM generation g WHERE g.id = crl_partition.generation)",
        [],
    )?;
    let tx = Tx::new(&transaction);
    restore::record(&tx, lost_since, entry.at)?;
    audit::append(&tx, entry)?;
    Ok(transaction.commit()?)
}

/// Moves the write-ahead log into the file of a database that no other process has open.
pub fn settle(database: &Path) -> Result<(), StoreError> {
    let connection = database_file::connect(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    Ok(connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
}

/// Returns the certificates whose intents came after the first `intents`. No intent is ever
/// deleted, so the count is a row id.
pub fn issued_after(database: &Path, intents: i64) -> Result<Vec<IssuedLater>, StoreError> {
    let connection = open(database)?;
    Tx::new(&connection).query_all(
        "SELECT hex(i.serial), i.profile, i.subject
         FROM intent i JOIN certificate c ON c.intent = i.id WHERE i.id > ?1 ORDER BY i.id",
        params![intents],
        |row| {
            Ok(IssuedLater {
                serial: row.get(0)?,
                profile: row.get(1)?,
                subject: row.get(2)?,
            })
        },
    )
}

pub(super) fn open(database: &Path) -> Result<Connection, StoreError> {
    let connection = database_file::connect(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))?;
    Ok(connection)
}

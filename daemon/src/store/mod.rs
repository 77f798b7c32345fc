//! The store: everything that must survive, in one SQLite database.
//!
//! # Data
//! `schema.sql` is the model: generations of authorities, intents and certificates, revocation
//! lists, devices, enrollments, dirty marks, rolls, and the audit journal. What must never be false
//! stands there as a constraint or a trigger.
//!
//! # Updates
//! Every operation is one method of [`Store`], one whole transaction, named for what it does; there
//! is no SQL outside this module. All writes go through one thread ([`writer`]) that takes whatever
//! is queued, runs it in one transaction, commits once, and only then answers. So a caller that has
//! its answer has it on disk; and a refused operation takes nothing of its neighbours with it. A lone
//! write is committed at once; in a crowd the writer waits for others, 2 ms at most.
//!
//! Nothing above may assume that it is alone: an operation states what it expects (a version, a
//! state) and is refused when that no longer holds.
//!
//! # What a crash leaves
//! WAL and `synchronous=FULL`: a committed group is whole or absent, never half. Therefore:
//!
//! * Before step 7 of the issuance cycle: nothing.
//! * Between step 7 and step 10: an intent in state `intended`. The token may have signed it.
//!   [`Store::abandon_open_intents`] abandons it at the next start, before the daemon is ready.
//! * After step 10: certificate, audit entry, device, slots and dirty mark, all of them.
//! * Between a dirty mark and the provisioning service: the mark; the reconciler looks again.
//! * Between recording a revocation list and its signature: a list without `der`. The token may
//!   have signed it; its number is used up, and the next list takes the next one.
//! * Between a block and the last of its devices: how far it has come. From the block on nothing is
//!   issued below it, so there is nobody new to look for; the next start goes on.
//! * Between recording a request to another issuer and its signature: a request without `der`; the same
//!   bytes are signed again.
//! * In a ceremony: a planned generation whose key id is on record, so the same key is found again.
//!
//! It must never hold a private key, a PIN or a SAS key, and it never deletes an intent.

mod abandon;
mod adoption;
mod audit;
mod authority_roll;
pub mod backup;
mod below;
mod block;
mod certified_key;
mod client;
mod clock;
mod compromise;
mod crl;
mod door;
mod enrollment;
mod expiry;
mod generation;
mod health;
mod hold;
mod hub_job;
mod hub_task;
mod issuance;
mod key_use;
mod leaf;
mod mark;
mod opening;
pub mod place;
mod possession;
mod precedence;
mod probe;
mod proof;
mod request;
mod revocation;
mod roll;
mod scan;
mod stored_name;
#[cfg(test)]
mod tests;
mod unchanged;
mod writer;

pub use crate::enrollment::roll::{RollReason, RollState};
pub use abandon::FOUND_AT_START;
pub use adoption::{AdoptedGeneration, MadeElsewhere};
pub use audit::{AuditEntry, AuditRecord, AuditVerdict};
pub use authority_roll::{AuthorityStep, CompromisedAuthority, NewAuthorityRoll};
pub use below::{DeviceBelow, DrainReport};
pub use block::{Bar, BlockKind, BlockRow, BlockingGroup, NewBlock};
pub use certified_key::KeyInTheWay;
pub use client::ClientRow;
pub use compromise::Compromise;
pub use crl::{CrlDraft, CrlRow, NewCrl, RecordedCrl};
pub use enrollment::{DeviceRow, EnrollmentKind, EnrollmentRow, NewEnrollment};
pub use expiry::{CurrentLeaf, Ending, WINDOWS};
pub use generation::{GenerationRow, GenerationState, PlannedGeneration, RequestRow};
pub use health::WriteFault;
pub use hold::{BlockedDevice, HoldChunk};
pub use hub_job::{HubCall, HubJobRow};
pub use hub_task::{
    HubAction, HubAnswer, HubCause, HubProgress, HubTaskEnd, HubTaskRow, NEEDED_NO_MORE, NewHubTask,
};
pub use issuance::{
    CertificateRow, Idempotency, Intent, IntentRefusal, PriorRequest, Purpose, Recorded, Requester,
    Settled, Settlement,
};
pub use key_use::{KeyCount, KeyUse};
pub use leaf::Moves;
pub use mark::{MarkRow, MarkSubject, Sighting};
pub use opening::Looked;
pub use possession::CaCertificateRow;
pub use proof::Proof;
pub use request::{InstalledCertificate, NewRequest};
pub use revocation::{Revocation, RevocationTarget, Revoked, RevokedCertificate};
pub use roll::{EndingLeaf, RollRow, RollStep, RollSubject};
pub use scan::ScannedPage;

use health::WriteHealth;
use issuance::CertificatesCounted;
use opening::Readers;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rusqlite_migration::{M, Migrations};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use writer::Writer;

/// How long a reader waits for a checkpoint, in milliseconds.
const BUSY_TIMEOUT_MS: u64 = 5_000;

/// Why the store did not do it, told by what the caller can do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Full disk, I/O error, too many waiting: nothing was written; try later.
    #[error("the store cannot take this now: {0}")]
    Unavailable(String),
    /// What was expected of the data no longer holds: read again.
    #[error("{0}")]
    Conflict(String),
    /// Something else stands or is under way that this would touch: the code says what.
    #[error("{message}")]
    InTheWay {
        /// Stable.
        code: &'static str,
        /// What it is, and what to do about it.
        message: String,
    },
    /// What was asked for does not fit the data, whatever the moment: the code says what to mend.
    #[error("{message}")]
    Mend {
        /// Stable.
        code: &'static str,
        /// What does not fit, and how to mend it.
        message: String,
    },
    /// The client certificate by which the request came is revoked: nothing is recorded for it.
    #[error("{REQUESTER_REVOKED}")]
    RequesterRevoked,
    /// The thing does not exist.
    #[error("there is no {0}")]
    Missing(String),
    /// A stored value cannot be read back: ask the operator.
    #[error("the store holds something this version cannot read: {0}")]
    Unreadable(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match &error {
            rusqlite::Error::SqliteFailure(code, message)
                if code.code == rusqlite::ErrorCode::ConstraintViolation =>
            {
                StoreError::Conflict(message.clone().unwrap_or_else(|| code.to_string()))
            }
            rusqlite::Error::SqliteFailure(code, _) => {
                StoreError::Unavailable(match remedy(code.code) {
                    Some(remedy) => format!("{remedy} ({error})"),
                    None => error.to_string(),
                })
            }
            _ => StoreError::Unreadable(error.to_string()),
        }
    }
}

/// What to do about an error of the disk, in words.
fn remedy(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::DiskFull => "the disk is full: make room in the file system of state_dir",
        ErrorCode::ReadOnly => {
            "the disk or the database is read-only: remount the file system of state_dir writable, \
             or give the database to the daemon's user"
        }
        ErrorCode::SystemIoFailure => {
            "the disk fails or is full: look at the free space of state_dir and at the kernel's log"
        }
        ErrorCode::CannotOpen | ErrorCode::PermissionDenied => {
            "the database cannot be opened: look at owner, mode and free space of state_dir"
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            "another process holds the database: find it with fuser(1), and end it"
        }
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
            "the database is damaged: restore a backup"
        }
        _ => return None,
    })
}

/// What a caller is told whose certificate is revoked while its request is in work.
const REQUESTER_REVOKED: &str = "the client certificate was revoked while this request was in \
                                 work; ask the operator for a new one";

/// The store, as everybody holds it: cheap to clone, one database behind it.
#[derive(Clone)]
pub struct Store {
    writer: Writer,
    readers: Arc<Readers>,
    health: Arc<WriteHealth>,
    /// How often certificates were revoked or given back, since this process began.
    revocations: Arc<AtomicU64>,
    certificates_counted: Arc<Mutex<CertificatesCounted>>,
    path: PathBuf,
}

impl Store {
    /// Moves everything into the database's one file: what an orderly stop leaves can be copied.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        let connection = place::connect(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        configure(&connection)?;
        Ok(connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
    }

    /// A number that is another one whenever a certificate was revoked or given back: what was read
    /// of certificates before that must be read again.
    pub fn revocations(&self) -> u64 {
        self.revocations.load(Ordering::Acquire)
    }

    fn revocations_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.revocations)
    }

    /// Where the database lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ready when the writer answers: it is alive, and its disk comes back from each write. That a
    /// write fails is another matter.
    pub async fn answers(&self) -> Result<(), StoreError> {
        self.writer.answers().await
    }

    /// Why nothing can be written at the moment, as the last writes have shown. The writer tries by
    /// itself, with a pause, until a write succeeds; then it is over.
    pub fn write_fault(&self) -> Option<WriteFault> {
        self.health.fault()
    }

    /// How many groups of writes have failed since the process began.
    pub fn write_failures(&self) -> u64 {
        self.health.failures()
    }

    /// Has `on_turn` called when writes begin to fail and when they succeed again; the first one
    /// named stays.
    pub fn tell_turns_to(&self, on_turn: impl Fn() + Send + Sync + 'static) {
        self.health.tell_turns_to(Box::new(on_turn));
    }

    fn read<T>(
        &self,
        operation: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.readers.read(operation)
    }

    /// Writes, and waits for it. `operation` may run twice, and only the last time counts.
    fn write<T: Send + 'static>(
        &self,
        operation: impl FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        pollster::block_on(self.writer.run(operation))
    }
}

fn migrations() -> Migrations<'static> {
    Migrations::new(vec![M::up(include_str!("schema.sql"))])
}

fn configure(connection: &Connection) -> Result<(), StoreError> {
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // What a savepoint needs to undo: never on the disk.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.busy_timeout(std::time::Duration::from_millis(BUSY_TIMEOUT_MS))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

//! Stores everything that must survive, in one SQLite database.
//!
//! # Data
//! `schema.sql` is the model: generations of authorities, intents and certificates, revocation
//! lists, devices, enrollments, dirty marks, rolls, and the audit journal. Constraints
//! and triggers there hold what must never be false.
//!
//! # Updates
//! Every operation is one method of [`Store`] and one whole transaction, named for what it does.
//! There is no SQL outside this module, and inside it only [`engine`] knows the database library.
//! All writes go through one thread ([`writer`]) that takes what is queued, runs it in one
//! transaction, commits once, and only then answers. So an answered write is on disk, and a refused
//! operation undoes nothing of the other operations in its group. A write never waits for others:
//! a group is what has been queued while the commit before it was made.
//!
//! Callers must not assume that they are alone: an operation states what it expects (a version, a
//! state) and fails with [`StoreError::Conflict`] when that no longer holds.
//!
//! # After a crash
//! WAL and `synchronous=FULL`: a committed group is whole or absent, never half. Therefore:
//!
//! * Before step 7 of the issuance cycle: nothing.
//! * Between step 7 and step 10: a row in `open_intent`. The token may have signed its intent.
//!   [`Store::abandon_open_intents`] abandons it at the next start, before the daemon is ready.
//! * After step 10: certificate, audit entry, device, slots and dirty mark, all of them.
//! * Between a dirty mark and the provisioning service: the mark. The reconciler observes again.
//! * Between recording a revocation list and its signature: a list without `der`. The token may
//!   have signed it; its number is used up, and the next list takes the next number.
//! * Between a block and its last device: how far the block has come. Once a block is in place
//!   nothing is issued below it, so no new devices appear; the next start continues.
//! * Between recording a request to another issuer and its signature: a request without `der`. The
//!   same bytes are signed again.
//! * In a ceremony: a planned generation whose key id is on record, so the same key is found again.
//!
//! It must never hold a private key, a PIN or a SAS key, and it never deletes an intent.

mod abandon;
mod access_path;
mod adopted_enrollment;
mod adoption;
mod approval;
mod audit;
mod authority_roll;
pub mod backup;
pub mod backup_preview;
mod block;
mod ca_scan;
mod certificate;
mod certificate_range;
mod certificate_search;
mod certified_key;
mod checkpoint;
mod client;
mod clock;
mod compromise;
mod conflicts;
mod constraint;
mod crl;
mod crl_delta;
mod cross_certificate;
pub mod database_file;
mod device;
mod device_credential;
mod digest;
mod ends_by_day;
mod engine;
mod enrollment;
mod excluded_identity;
mod exclusion;
mod exclusion_plan;
mod expiry;
mod fleet_queries;
mod former;
mod generation;
mod grant;
mod group_registrations;
mod health;
mod hierarchy;
mod hold;
mod hub_answer;
mod hub_deletion;
mod hub_job;
mod hub_observation;
mod hub_progress;
mod hub_task;
mod import;
mod individual;
pub mod inspection;
mod intent;
mod issuance;
mod issuance_count;
mod issued_since;
mod issuer_crl;
mod json;
mod key_use;
mod known_group;
mod leaf;
mod leaf_roll;
mod mark;
mod monitored;
mod new_enrollment;
mod opening;
mod operator_hold;
mod possession;
mod probe;
mod readings;
mod readmission;
mod renewal_notice;
mod repeated_deletion;
mod request;
mod responder;
mod restore;
mod retry;
mod revocation;
mod revocation_event;
mod revocation_retention;
mod roll;
mod roll_progress;
mod scan;
mod stored_name;
mod subordinate;
#[cfg(test)]
mod tests;
mod unchanged;
mod unknown_enrollment;
mod writer;

pub use crate::enrollment::roll::{RollReason, RollState};
pub use crate::unix_seconds::UnixSeconds;
pub use abandon::FOUND_AT_START;
pub use adoption::{AdoptedGeneration, MadeElsewhere};
pub use approval::{ApprovalRow, ApprovalState, NewApproval, Signed};
pub use audit::{AuditEntry, AuditFilter, AuditRecord, AuditVerdict};
pub use authority_roll::{AuthorityStep, NewAuthorityRoll};
pub use block::{BlockKind, BlockRow, RestrictedEnrollment};
pub use ca_scan::ScannedCaCertificate;
pub use certificate::CertificateRow;
pub use certificate_search::{
    CertificateFilter, CertificatePage, CertificateState, ListedCertificate,
};
pub use certified_key::KeyRefusal;
pub use checkpoint::{AuditKeyRow, Schema};
pub use client::ClientRow;
pub use constraint::Constraint;
pub use crl::{CrlDraft, CrlPart, CrlRow, NewCrl, RecordedCrl};
pub use cross_certificate::CrossRow;
pub use device::DeviceRow;
pub use device_credential::{
    CredentialState, DeviceCredentialRow, FAILURES_MAX, NewDeviceCredential,
};
pub use enrollment::{EnrollmentKind, EnrollmentRow};
pub use exclusion::{Cause, Excluded, Exclusion, RecordedExclusion};
pub use exclusion_plan::{EnrollmentChange, ExcludedGeneration, PlannedChange, PlannedExclusion};
pub use expiry::{CurrentLeaf, Ending, WINDOWS};
pub use fleet_queries::{DeviceBelow, DrainReport};
pub use former::{FormerRevocation, FormerSerial};
pub use generation::{GenerationRow, GenerationState, PlannedGeneration, RequestRow};
pub use grant::{BirthGrant, Grant, GrantUse};
pub use group_registrations::{GroupToList, GroupsListed};
pub use health::WriteFault;
pub use hold::{BlockedDevice, HoldChunk};
pub use hub_answer::{HubAnswer, HubTaskEnd};
pub use hub_deletion::{Deletion, Elsewhere, HubDeletions, PendingIdentity, WithoutPlace};
pub use hub_job::{HubCall, HubJobRow};
pub use hub_observation::HubObservation;
pub use hub_progress::HubProgress;
pub use hub_task::{HubAction, HubCause, HubTaskRow, NEEDED_NO_MORE, NewHubTask};
pub use import::{FormerCertificate, Imported, ImportedLeaf, KeptAuthority};
pub use individual::IndividualsBelow;
pub use intent::{
    Idempotency, Intent, IntentError, Moves, PriorRequest, Purpose, Recorded, Requester,
};
pub use issuance::{IssuedEffects, OnIssued};
pub use issuer_crl::IssuerCrlRow;
pub use key_use::{KeyCount, KeyUse};
pub use leaf_roll::{EndingLeaf, RollStep};
pub use mark::{MarkRow, MarkSubject, Observation};
pub use monitored::Monitored;
pub use new_enrollment::NewEnrollment;
pub use opening::ReadOnly;
pub use operator_hold::{HoldOwners, OperatorHold};
pub use possession::CaCertificateRow;
pub use request::{InstalledCertificate, NewRequest};
pub use responder::{PlannedResponder, ResponderRow};
pub use restore::LostPeriod;
pub use revocation::{Revocation, RevocationTarget, Revoked, RevokedCertificate};
pub use revocation_event::RevocationEvent;
pub use revocation_retention::ForgottenRevocations;
pub use roll::{RollRow, RollSubject};
pub use scan::{DriftedEnrollments, ScannedPage};
pub use unknown_enrollment::{FoundEnrollment, MayAdmit, UNKNOWN_MAX, UnknownEnrollment};

use crate::error_code::Code;
use engine::Tx;
use health::WriteHealth;
use issuance_count::CertificatesCounted;
use opening::Readers;
use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::{M, Migrations};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use writer::Writer;

/// How long a connection waits for a lock, such as a reader for a checkpoint.
const BUSY_TIMEOUT_MS: u64 = 5_000;

/// Why an operation failed, by what the caller can do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Full disk, I/O error or full queue: nothing was written. Retry later.
    #[error("the store cannot take this now: {0}")]
    Unavailable(String),
    /// The data is not as expected any more: read it again.
    #[error("{0}")]
    Conflict(String),
    /// The change would break a constraint of the schema: the data has changed since it was read.
    #[error("the state has changed since it was read, so nothing was changed; repeat the command")]
    Violates(Constraint),
    /// An open roll or a block would be affected: the code says which.
    #[error("{message}")]
    Blocking {
        code: Code,
        /// The roll or block, and the remedy.
        message: String,
    },
    /// The request does not fit the data, now or later: the code says what to change.
    #[error("{message}")]
    Invalid {
        code: Code,
        /// The mismatch, and the remedy.
        message: String,
    },
    /// The caller's client certificate was revoked: nothing was recorded.
    #[error("{REQUESTER_REVOKED}")]
    RequesterRevoked,
    /// The grant by which a device requested a leaf has ended while the token signed.
    #[error("{0}")]
    GrantEnded(Box<IntentError>),
    /// The object does not exist.
    #[error("there is no {0}")]
    Missing(String),
    /// A stored value cannot be read: an operator must act.
    #[error("the store holds something this version cannot read: {0}")]
    Unreadable(String),
}

/// For a caller whose certificate is revoked while its request is processed.
const REQUESTER_REVOKED: &str = "the client certificate was revoked while this request was in \
                                 work; ask the operator for a new one";

/// A handle to the store: cheap to clone, all handles share one database.
#[derive(Clone)]
pub struct Store {
    writer: Writer,
    readers: Arc<Readers>,
    health: Arc<WriteHealth>,
    /// Counts revocations and lifted holds since the process began.
    revocations: Arc<AtomicU64>,
    certificates_counted: Arc<Mutex<CertificatesCounted>>,
    path: PathBuf,
}

impl Store {
    /// Moves the write-ahead log into the database file, so that the file alone can be copied.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        let connection = database_file::connect(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        configure(&connection)?;
        Ok(connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
    }

    /// Returns a number that changes whenever a certificate is revoked, a hold is lifted, or a
    /// block begins or ends. A cached certificate is valid only while the number stays the same.
    pub fn revocations(&self) -> u64 {
        self.revocations.load(Ordering::Acquire)
    }

    fn revocations_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.revocations)
    }

    /// Returns the path of the database.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns when the writer answers: its thread runs and no write hangs. A write that fails is
    /// reported by [`Store::write_fault`].
    pub async fn answers(&self) -> Result<(), StoreError> {
        self.writer.answers().await
    }

    /// Returns why writes fail at present. The writer probes the disk, with pauses, until a write
    /// succeeds; then there is no fault any more.
    pub fn write_fault(&self) -> Option<WriteFault> {
        self.health.fault()
    }

    /// Returns how many groups of writes have failed since the process began.
    pub fn write_failures(&self) -> u64 {
        self.health.failures()
    }

    /// Registers what is called when writes begin to fail and when they succeed again. Only the
    /// first registration counts.
    pub fn on_state_change(&self, on_change: impl Fn() + Send + Sync + 'static) {
        self.health.on_state_change(Box::new(on_change));
    }

    fn read<T>(
        &self,
        operation: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.readers.read(operation)
    }

    /// Runs a write and waits for its commit. `operation` may run twice; the last run counts.
    fn write<T: Send + 'static>(
        &self,
        operation: impl FnMut(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        crate::request_task::may_block();
        pollster::block_on(self.writer.run(operation))
    }
}

fn migrations() -> Migrations<'static> {
    Migrations::new(vec![M::up(include_str!("schema.sql"))])
}

fn configure(connection: &Connection) -> Result<(), StoreError> {
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // The undo data of a savepoint never goes to disk.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.busy_timeout(std::time::Duration::from_millis(BUSY_TIMEOUT_MS))?;
    // Every statement is cached, the rare ones too: they must not evict those of issuance.
    connection.set_prepared_statement_cache_capacity(128);
    Ok(())
}

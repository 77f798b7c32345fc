//! Removes finished work at hubs, what is on record of revocations that nothing shows any more, and
//! one-time credentials that ended.
//!
//! A finished task is needed while its rollover or block is open, for the numbers of its receipt,
//! and some time longer for operators. The author of a revocation, and the lists that had it, are
//! shown for some time after the certificate has ended. The audit journal is kept whole.

use super::{CertificateAuthority, Error};
use crate::store::AuditEntry;
use crate::unix_seconds::UnixSeconds;
use serde_json::json;
use std::sync::atomic::Ordering;

/// How long a finished task is kept, in seconds, and until its roll or block has ended.
pub const HUB_TASKS_KEPT_SECONDS: i64 = 30 * 86_400;
/// The most finished tasks that are kept, however young: the oldest go first.
pub const HUB_TASKS_KEPT_MAX: u32 = 100_000;
/// How many go in one transaction.
const HUB_TASKS_PER_CHUNK: u32 = 500;
/// The same of the records of revocations.
const REVOCATIONS_PER_CHUNK: u32 = 500;
/// How long a one-time credential is kept after its end, in seconds, whatever became of it: lists
/// show it, and a device whose answer was lost may repeat its request by it.
pub const CREDENTIALS_KEPT_SECONDS: i64 = 30 * 86_400;
/// How many go in one transaction.
const CREDENTIALS_PER_CHUNK: u32 = 500;
/// Interval of the cleanup, in seconds.
const INTERVAL_SECONDS: i64 = 3_600;

impl CertificateAuthority {
    /// Deletes finished work at hubs, records of revocations and credentials that are no longer
    /// needed, once an hour.
    pub fn forget_finished_work(&self) -> Result<(), Error> {
        let now = self.now();
        if now < UnixSeconds::new(self.shared.retention_due.load(Ordering::Relaxed)) {
            return Ok(());
        }
        self.forget_hub_tasks(now - HUB_TASKS_KEPT_SECONDS)?;
        self.forget_revocations(now - self.revocations_kept_seconds)?;
        self.forget_credentials(now - CREDENTIALS_KEPT_SECONDS)?;
        let due = now + INTERVAL_SECONDS;
        self.shared
            .retention_due
            .store(due.get(), Ordering::Relaxed);
        Ok(())
    }

    fn forget_hub_tasks(&self, before: UnixSeconds) -> Result<(), Error> {
        loop {
            let keep = HUB_TASKS_KEPT_MAX;
            let limit = HUB_TASKS_PER_CHUNK;
            let tasks = self.store.hub_tasks_to_forget(before, keep, limit)?;
            let last = tasks.len() < limit as usize;
            if !tasks.is_empty() {
                self.store.forget_hub_tasks(tasks)?;
            }
            if last {
                return Ok(());
            }
        }
    }

    fn forget_credentials(&self, before: UnixSeconds) -> Result<(), Error> {
        let limit = CREDENTIALS_PER_CHUNK;
        loop {
            let entry = AuditEntry {
                at: self.now(),
                actor: "hallmarkd".into(),
                action: "credentials.forgotten",
                subject: "credentials".into(),
                detail: json!({ "before": before.to_string() }),
            };
            if self.store.forget_device_credentials(before, limit, entry)? < limit as usize {
                return Ok(());
            }
        }
    }

    fn forget_revocations(&self, before: UnixSeconds) -> Result<(), Error> {
        let limit = REVOCATIONS_PER_CHUNK;
        loop {
            let entry = AuditEntry {
                at: self.now(),
                actor: "hallmarkd".into(),
                action: "revocations.forgotten",
                subject: "revocations".into(),
                detail: json!({ "before": before.to_string() }),
            };
            let done = self.store.forget_revocations(before, limit, entry)?;
            if done.changes.max(done.lists) < limit as usize {
                return Ok(());
            }
        }
    }
}

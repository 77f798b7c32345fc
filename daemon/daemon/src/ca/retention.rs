//! Removes finished work at hubs, so that the queue stays small.
//!
//! A finished task is needed while its rollover or block is open, for the numbers of its receipt,
//! and some time longer for operators. The audit journal is kept whole.

use super::{CertificateAuthority, Error};
use crate::unix_seconds::UnixSeconds;
use std::sync::atomic::Ordering;

/// How long a finished task is kept, in seconds, and until its roll or block has ended.
pub const HUB_TASKS_KEPT_SECONDS: i64 = 30 * 86_400;
/// The most finished tasks that are kept, however young: the oldest go first.
pub const HUB_TASKS_KEPT_MAX: u32 = 100_000;
/// How many go in one transaction.
const HUB_TASKS_PER_CHUNK: u32 = 500;
/// Interval of the cleanup, in seconds.
const INTERVAL_SECONDS: i64 = 3_600;

impl CertificateAuthority {
    /// Deletes finished work at hubs that is no longer needed, once an hour.
    pub fn forget_finished_hub_tasks(&self) -> Result<(), Error> {
        let now = self.now();
        if now < UnixSeconds::new(self.shared.retention_due.load(Ordering::Relaxed)) {
            return Ok(());
        }
        let before = now - HUB_TASKS_KEPT_SECONDS;
        loop {
            let keep = HUB_TASKS_KEPT_MAX;
            let limit = HUB_TASKS_PER_CHUNK;
            let tasks = self.store.hub_tasks_to_forget(before, keep, limit)?;
            let last = tasks.len() < limit as usize;
            if !tasks.is_empty() {
                self.store.forget_hub_tasks(tasks)?;
            }
            if last {
                break;
            }
        }
        let due = now + INTERVAL_SECONDS;
        self.shared
            .retention_due
            .store(due.get(), Ordering::Relaxed);
        Ok(())
    }
}

//! What is kept of finished work at hubs, and for how long: the queue shall not outgrow the rest.
//!
//! A task that is done is of use while its roll or block goes on, for the numbers of its receipt, and
//! for a while to whoever looks back. The audit journal is another thing, and kept whole.

use super::{CertificateAuthority, Error};
use std::sync::atomic::Ordering;

/// How long a finished task is kept, in seconds, and until its roll or block has ended.
pub const HUB_TASKS_KEPT_SECONDS: i64 = 30 * 86_400;
/// The most finished tasks that are kept, however young: the oldest go first.
pub const HUB_TASKS_KEPT_MAX: u32 = 100_000;
/// How many go in one transaction.
const HUB_TASKS_PER_CHUNK: u32 = 500;
/// How often it is looked what may go, in seconds.
const INTERVAL_SECONDS: i64 = 3_600;

impl CertificateAuthority {
    /// Forgets finished work at hubs that nobody needs any more, once an hour.
    pub fn forget_finished_hub_tasks(&self) -> Result<(), Error> {
        let now = self.now();
        if now < self.shared.retention_due.load(Ordering::Relaxed) {
            return Ok(());
        }
        let before = now - HUB_TASKS_KEPT_SECONDS;
        loop {
            let (keep, limit) = (HUB_TASKS_KEPT_MAX, HUB_TASKS_PER_CHUNK);
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
        self.shared.retention_due.store(due, Ordering::Relaxed);
        Ok(())
    }
}

//! Records whether the store can write, as the last writes and probes have shown.
//!
//! A disk that is full or read-only refuses every write and serves every read, so only a write
//! shows it. The writer records the outcome here; status, metrics and repeated work read it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

/// Why writes fail at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteFault {
    /// The cause and its remedy.
    pub reason: String,
    /// When the first write failed.
    pub since: SystemTime,
}

/// Written by the writer thread, read by others.
#[derive(Default)]
pub(super) struct WriteHealth {
    fault: Mutex<Option<WriteFault>>,
    failures: AtomicU64,
    on_change: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl WriteHealth {
    pub(super) fn fault(&self) -> Option<WriteFault> {
        self.lock().clone()
    }

    /// Returns how many groups of writes and probes have failed since the process began.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Registers what is called when writes begin to fail and when they succeed again. Only the
    /// first registration counts.
    pub(super) fn on_state_change(&self, on_change: Box<dyn Fn() + Send + Sync>) {
        self.on_change.get_or_init(|| on_change);
    }

    /// Records a failed write. Logs the first of a series only.
    pub(super) fn failed(&self, reason: &str) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let mut fault = self.lock();
        if let Some(fault) = fault.as_mut() {
            reason.clone_into(&mut fault.reason);
            return;
        }
        *fault = Some(WriteFault {
            reason: reason.to_owned(),
            since: SystemTime::now(),
        });
        drop(fault);
        tracing::error!(reason, "the store cannot write");
        self.notify();
    }

    /// Records that a probe was written.
    pub(super) fn healed(&self) {
        if self.lock().take().is_some() {
            tracing::info!("the store can write again");
            self.notify();
        }
    }

    fn notify(&self) {
        if let Some(on_change) = self.on_change.get() {
            on_change();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<WriteFault>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Whether the store can write, as its last writes and probes have shown.
//!
//! A disk that is full or read-only refuses every write and serves every read, so it is felt by
//! whatever writes next. The writer notes that here, and everything that reports or pauses asks here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

/// Why nothing can be written at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteFault {
    /// The cause, and how to mend it.
    pub reason: String,
    /// When the first write failed.
    pub since: SystemTime,
}

/// What the writer thread notes, and others read.
#[derive(Default)]
pub(super) struct WriteHealth {
    fault: Mutex<Option<WriteFault>>,
    failures: AtomicU64,
    on_turn: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl WriteHealth {
    pub(super) fn fault(&self) -> Option<WriteFault> {
        self.lock().clone()
    }

    /// How many groups of writes and probes have failed since the process began.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Has `on_turn` called when writes begin to fail and when they succeed again; the first one
    /// named stays.
    pub(super) fn tell_turns_to(&self, on_turn: Box<dyn Fn() + Send + Sync>) {
        self.on_turn.get_or_init(|| on_turn);
    }

    /// A write failed. Logged once, however many follow.
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
        self.tell();
    }

    /// A probe was written.
    pub(super) fn healed(&self) {
        if self.lock().take().is_some() {
            tracing::info!("the store can write again");
            self.tell();
        }
    }

    fn tell(&self) {
        if let Some(tell) = self.on_turn.get() {
            tell();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<WriteFault>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

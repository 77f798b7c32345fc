//! Probes whether the store can write again while writes fail.
//!
//! A probe is as large as a busy group of writes: where the disk has room for it, a real write has
//! room. It leaves nothing behind.

use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use std::time::{Duration, Instant};

const PROBE_BYTES: u32 = 256 * 1024;
/// The first pause before a probe; it doubles with each failure.
const PAUSE: Duration = Duration::from_secs(1);
/// So a disk that has room again is used within ten seconds, and a full one costs six attempts in a
/// minute.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// When the next probe is due.
pub(super) struct Probing {
    /// The last probe, or the failure of the first write.
    last: Instant,
    pub(super) pause: Duration,
}

impl Probing {
    pub(super) fn begin() -> Self {
        Self {
            last: Instant::now(),
            pause: PAUSE,
        }
    }

    /// Returns the schedule after one more probe has failed.
    pub(super) fn after(previous: Option<Self>) -> Self {
        let pause = previous.map_or(PAUSE, |it| it.pause * 2);
        Self {
            last: Instant::now(),
            pause: pause.min(PAUSE_MAX),
        }
    }

    /// Makes the next probe due soon: a write has succeeded.
    pub(super) fn shorten(&mut self) {
        self.pause = PAUSE;
    }

    pub(super) fn due_in(&self) -> Duration {
        self.pause.saturating_sub(self.last.elapsed())
    }
}

/// Writes, commits and deletes a probe.
pub(super) fn probe(connection: &mut Connection) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute(
        "INSERT OR REPLACE INTO write_probe (only, filler) VALUES (1, zeroblob(?1))",
        [PROBE_BYTES],
    )?;
    transaction.commit()?;
    connection.execute("DELETE FROM write_probe", [])?;
    Ok(())
}

/// Returns true if a connection that failed with `error` may fail for good, whatever the disk does.
pub(super) fn needs_another_connection(error: &rusqlite::Error) -> bool {
    !matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

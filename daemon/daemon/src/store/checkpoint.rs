//! Copies the write-ahead log into the database beside the writer.
//!
//! A checkpoint ends with an `fsync` of the database, for which every group of writes would wait.
//! So a thread of its own copies the log while the writer goes on. The few pages written until it
//! ends are copied by the writer, which can then begin the log again: SQLite does so only when all
//! of it is copied, and beside a writer that never rests another thread would not reach its end.

use super::{StoreError, configure, database_file};
use rusqlite::hooks::Wal;
use rusqlite::{Connection, OpenFlags};
use std::cell::Cell;
use std::os::raw::c_int;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// The length of the write-ahead log, in pages of 4 KiB, at which it is copied into the database.
/// A page that changed a hundred times until then is copied once.
const PAGES_MAX: c_int = 4_096;
/// The writer copies a log of this length itself, because the thread has not done it in time.
const PAGES_TOO_MANY: c_int = 4 * PAGES_MAX;

thread_local! {
    /// The length of the log after the last commit of this thread, in pages.
    static PAGES: Cell<c_int> = const { Cell::new(0) };
}

/// The writer's side.
pub(super) struct Checkpointer {
    due: SyncSender<()>,
    /// The thread has copied what it found, and waits.
    copied: Arc<AtomicBool>,
}

impl Checkpointer {
    /// Starts the thread, which ends when this value is dropped.
    pub(super) fn start(path: PathBuf) -> Result<Self, StoreError> {
        let (due, asked) = sync_channel(1);
        let copied = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&copied);
        std::thread::Builder::new()
            .name("store-checkpoint".into())
            .spawn(move || copy_when_asked(&path, &asked, &done))
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self { due, copied })
    }

    /// Called after each commit, once its callers have their answers. Errors are those of the disk,
    /// and the next commit meets them too.
    pub(super) fn after_commit(&self, connection: &Connection) {
        let pages = PAGES.get();
        if pages < PAGES_MAX {
            return;
        }
        if self.copied.swap(false, Ordering::Acquire) || pages >= PAGES_TOO_MANY {
            note(copy(connection));
            PAGES.set(0);
            return;
        }
        // It is full while the thread has something to do.
        let _ = self.due.try_send(());
    }
}

/// Has the commits of this connection's thread recorded, instead of a checkpoint within a commit.
pub(super) fn watch(connection: &Connection) {
    connection.wal_hook(Some(|_: &Wal, pages| {
        PAGES.set(pages);
        Ok(())
    }));
}

fn copy_when_asked(path: &Path, asked: &Receiver<()>, copied: &AtomicBool) {
    while asked.recv().is_ok() {
        // Opened each time: the writer may have got another file in place of this one.
        note(
            database_file::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).and_then(|it| {
                configure(&it)?;
                copy(&it)
            }),
        );
        copied.store(true, Ordering::Release);
    }
}

/// Copies what no reader needs in the log any more; waits for none.
fn copy(connection: &Connection) -> Result<(), StoreError> {
    Ok(connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?)
}

fn note(copied: Result<(), StoreError>) {
    if let Err(error) = copied {
        tracing::debug!(%error, "write-ahead log not copied, will retry");
    }
}

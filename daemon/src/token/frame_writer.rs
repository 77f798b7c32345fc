//! Frames on their way out of a socket: many threads put them in, few system calls send them.
//!
//! Whoever finds nobody sending sends, and goes on as long as others add; those others return at
//! once. So a lone frame leaves immediately, and under load one `write` carries many. Where those
//! who add must not be held up by a peer that does not read, a thread of its own sends for all.

use super::protocol::{ProtocolError, append_frame};
use serde::Serialize;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Capacity kept for the next round; a single long message shall not be paid for ever.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// Longer than any connection lasts.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// The sending half of a connection.
pub(crate) struct FrameWriter {
    stream: UnixStream,
    state: Mutex<State>,
    /// Rung for the thread that sends for all.
    added: Condvar,
}

#[derive(Default)]
struct State {
    unsent: Vec<u8>,
    /// One thread is in `write`; it will come back for what was added meanwhile.
    sending: bool,
    broken: bool,
    /// The thread that sends for all has nothing to do.
    idle: bool,
}

impl FrameWriter {
    /// A writer to `stream` that writes to `stream`. Set the stream's write timeout: without one, a peer that
    /// does not read holds the sending thread for ever.
    pub(crate) fn new(stream: UnixStream) -> Self {
        FrameWriter {
            stream,
            state: Mutex::default(),
            added: Condvar::new(),
        }
    }

    /// Adds one frame, to be sent by the next [`flush`](FrameWriter::flush) of any thread.
    pub(crate) fn append<M: Serialize>(&self, message: &M) -> Result<(), ProtocolError> {
        let mut state = self.state();
        let outcome = append_frame(&mut state.unsent, message);
        if std::mem::take(&mut state.idle) {
            self.added.notify_one();
        }
        outcome
    }

    /// Waits until something was added, or until `until`, and sends what there is.
    pub(crate) fn send_when_added(&self, until: Option<Instant>) -> io::Result<()> {
        self.wait_until_added(until);
        self.flush()
    }

    fn wait_until_added(&self, until: Option<Instant>) {
        let mut state = self.state();
        state.idle = state.unsent.is_empty() && !state.broken;
        let left = until.map_or(FOREVER, |it| it.saturating_duration_since(Instant::now()));
        let waited = self
            .added
            .wait_timeout_while(state, left, |state| state.idle);
        let (mut state, _) = waited.expect("no thread panics while it holds the writer");
        state.idle = false;
    }

    /// Nothing is sent any more; wakes the thread that sends for all.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.broken = true;
        state.idle = false;
        self.added.notify_one();
    }

    /// Sees that everything added so far is sent, by this thread or by the one that is at it.
    ///
    /// An error is final: part of a frame may have gone out, so the connection must be closed.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let mut state = self.state();
        while !state.sending && !state.broken && !state.unsent.is_empty() {
            state.sending = true;
            let mut bytes = std::mem::take(&mut state.unsent);
            drop(state);
            let outcome = (&self.stream).write_all(&bytes);
            state = self.state();
            state.sending = false;
            state.broken = outcome.is_err();
            outcome?;
            if state.unsent.is_empty() && bytes.capacity() <= KEPT_BYTES_MAX {
                bytes.clear();
                state.unsent = bytes;
            }
        }
        if state.broken {
            Err(io::ErrorKind::BrokenPipe.into())
        } else {
            Ok(())
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no thread panics while it holds the writer")
    }
}

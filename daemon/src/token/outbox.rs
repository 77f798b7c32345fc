//! Frames on their way out of a socket: many threads put them in, few system calls send them.
//!
//! Whoever finds nobody sending sends, and goes on as long as others add; those others return at
//! once. So a lone frame leaves immediately, and under load one `write` carries many.

use super::protocol::{ProtocolError, append_frame};
use serde::Serialize;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard};

/// Capacity kept for the next round; a single long message shall not be paid for ever.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// The sending half of a connection.
pub(crate) struct Outbox {
    stream: UnixStream,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    unsent: Vec<u8>,
    /// One thread is in `write`; it will come back for what was added meanwhile.
    sending: bool,
    broken: bool,
}

impl Outbox {
    /// An outbox that writes to `stream`. Set the stream's write timeout: without one, a peer that
    /// does not read holds the sending thread for ever.
    pub(crate) fn new(stream: UnixStream) -> Self {
        Outbox {
            stream,
            state: Mutex::default(),
        }
    }

    /// Adds one frame, to be sent by the next [`flush`](Outbox::flush) of any thread.
    pub(crate) fn append<M: Serialize>(&self, message: &M) -> Result<(), ProtocolError> {
        append_frame(&mut self.state().unsent, message)
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
            .expect("no thread panics while it holds the outbox")
    }
}

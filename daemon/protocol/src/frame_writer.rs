//! Sends the frames of many threads over one socket with few system calls.
//!
//! A thread that flushes while no other does sends all frames, also those that are appended while
//! it sends; the other threads return at once. So a single frame is sent immediately, and under
//! load one `write` sends many. Where a peer that does not read must not delay the threads that
//! append, one thread sends for all.

use crate::message::{ProtocolError, append_frame};
use rustix::net::SendFlags;
use serde::Serialize;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Instant;

/// Largest buffer that is kept for reuse, so that one long message does not keep its memory.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// The sending half of a connection.
pub struct FrameWriter {
    stream: UnixStream,
    state: Mutex<State>,
    /// Wakes the thread that sends for all.
    added: Condvar,
}

#[derive(Default)]
struct State {
    unsent: Vec<u8>,
    /// A thread is in `write`; it then sends what was appended in the meantime.
    sending: bool,
    broken: bool,
    /// The thread that sends for all waits.
    idle: bool,
    /// Until when it waits.
    until: Option<Instant>,
}

impl FrameWriter {
    /// Makes a writer to `stream`. Set the stream's write timeout: without one, a peer that does
    /// not read blocks the sending thread for ever.
    pub fn new(stream: UnixStream) -> Self {
        FrameWriter {
            stream,
            state: Mutex::default(),
            added: Condvar::new(),
        }
    }

    /// Appends one frame, to be sent by the next [`flush`](FrameWriter::flush) of any thread.
    pub fn append<M: Serialize>(&self, message: &M) -> Result<(), ProtocolError> {
        let mut state = self.state();
        let outcome = append_frame(&mut state.unsent, message);
        if std::mem::take(&mut state.idle) {
            self.added.notify_one();
        }
        outcome
    }

    /// Appends one frame and sends it at once, if the thread that sends for all waits and the peer
    /// has room for it; else that thread sends it. It never blocks. A frame that is alone saves a
    /// switch of threads by this; many frames are sent with fewer calls by that thread. That thread
    /// is woken all the same if it would wait for longer than until `deadline`.
    pub fn append_and_send<M: Serialize>(
        &self,
        message: &M,
        deadline: Instant,
    ) -> Result<(), ProtocolError> {
        let mut state = self.state();
        let outcome = append_frame(&mut state.unsent, message);
        if state.idle {
            // Every error but a lack of room is final, and that thread meets it, too.
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let sent = rustix::net::send(&self.stream, &state.unsent, flags).unwrap_or(0);
            state.unsent.drain(..sent);
            let is_late = state.until.is_some_and(|until| deadline < until);
            if is_late || !state.unsent.is_empty() {
                state.idle = false;
                self.added.notify_one();
            }
        }
        outcome
    }

    /// Waits until a frame is appended, or until `until`, and sends all frames.
    pub fn send_when_added(&self, until: Instant) -> io::Result<()> {
        self.wait_until_added(until);
        self.flush()
    }

    fn wait_until_added(&self, until: Instant) {
        let mut state = self.state();
        state.idle = state.unsent.is_empty() && !state.broken;
        state.until = Some(until);
        let left = until.saturating_duration_since(Instant::now());
        let waited = self
            .added
            .wait_timeout_while(state, left, |state| state.idle);
        let (mut state, _) = waited.expect("no thread panics while it holds the writer");
        state.idle = false;
    }

    /// Stops sending, and wakes the thread that sends for all.
    pub fn close(&self) {
        let mut state = self.state();
        state.broken = true;
        state.idle = false;
        self.added.notify_one();
    }

    /// Sends everything that was appended, unless another thread is sending already.
    ///
    /// An error is final: part of a frame may have been sent, so the connection must be closed.
    pub fn flush(&self) -> io::Result<()> {
        let mut state = self.state();
        while !state.sending && !state.broken && !state.unsent.is_empty() {
            state.sending = true;
            let mut bytes = std::mem::take(&mut state.unsent);
            drop(state);
            let outcome = (&self.stream).write_all(&bytes);
            state = self.state();
            state.sending = false;
            // Another thread may have closed the writer while this one was sending.
            state.broken |= outcome.is_err();
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// The peer reads nothing until its socket is full. Verifies: no call blocks, and all frames
    /// arrive in order once it reads.
    #[test]
    fn frames_beyond_the_room_of_the_peer_are_sent_later() {
        const FRAMES: usize = 64;
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let writer = Arc::new(FrameWriter::new(ours));
        let sender = thread::spawn({
            let writer = Arc::clone(&writer);
            move || while writer.send_when_added(Instant::now() + HOUR).is_ok() {}
        });
        while !writer.state().idle {
            thread::yield_now();
        }
        let frames: Vec<_> = (0..FRAMES)
            .map(|number| format!("{number:032768}"))
            .collect();
        let mut expected = Vec::new();
        for frame in &frames {
            let deadline = Instant::now() + 2 * HOUR;
            writer.append_and_send(frame, deadline).unwrap();
            append_frame(&mut expected, frame).unwrap();
        }
        let mut bytes = vec![0; expected.len()];
        theirs.read_exact(&mut bytes).unwrap();
        assert!(bytes == expected);
        writer.close();
        sender.join().unwrap();
    }

    /// A frame is sent by its caller, and its deadline is the earliest of all. Verifies: the thread
    /// that sends for all, which lets requests expire, wakes.
    #[test]
    fn an_earlier_deadline_wakes_the_sending_thread() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let writer = Arc::new(FrameWriter::new(ours));
        let sender = thread::spawn({
            let writer = Arc::clone(&writer);
            move || writer.send_when_added(Instant::now() + HOUR)
        });
        while !writer.state().idle {
            thread::yield_now();
        }
        let later = Instant::now() + 2 * HOUR;
        writer.append_and_send(&"later", later).unwrap();
        assert!(writer.state().idle);
        writer.append_and_send(&"now", Instant::now()).unwrap();
        sender.join().unwrap().unwrap();
    }

    /// The writer is closed while another thread is in `write`, which succeeds in the end.
    #[test]
    fn a_writer_that_is_closed_during_a_write_stays_closed() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let writer = Arc::new(FrameWriter::new(ours));
        for _ in 0..32 {
            writer.append(&"a".repeat(32 << 10)).unwrap();
        }
        let sender = thread::spawn({
            let writer = Arc::clone(&writer);
            move || writer.flush()
        });
        while !writer.state().sending {
            thread::yield_now();
        }
        writer.close();
        let reader = thread::spawn(move || {
            let mut bytes = vec![0; 64 << 10];
            while theirs.read(&mut bytes).is_ok_and(|read| read > 0) {}
        });
        assert!(sender.join().unwrap().is_err());
        assert!(writer.flush().is_err());
        drop(writer);
        reader.join().unwrap();
    }
}

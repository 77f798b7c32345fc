//! Sends answers that a signer holds while the token hangs in its next call.

use super::deadline_timer::DeadlineTimer;
use hallmark_protocol::frame_writer::FrameWriter;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// The connections with held answers. Its thread sleeps while none are held.
#[derive(Default)]
pub(super) struct LateAnswers {
    timer: DeadlineTimer,
    held: Mutex<Vec<Arc<FrameWriter>>>,
}

impl LateAnswers {
    /// Has the answers of this connection sent at `moment`, unless they were sent before.
    pub(super) fn hold(&self, writer: &Arc<FrameWriter>, moment: Instant) {
        let mut held = self.held();
        if !held.iter().any(|it| Arc::ptr_eq(it, writer)) {
            held.push(Arc::clone(writer));
        }
        self.timer.arm(moment);
    }

    /// Sends them in time, for ever.
    pub(super) fn run(&self) {
        loop {
            self.timer.wait();
            let due = std::mem::take(&mut *self.held());
            for writer in due {
                if let Err(error) = writer.flush() {
                    tracing::debug!(%error, "cannot send answer");
                }
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Vec<Arc<FrameWriter>>> {
        self.held
            .lock()
            .expect("no thread panics while it holds the list")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    #[test]
    fn held_answers_are_sent_while_their_signer_hangs() {
        let (ours, mut theirs) = UnixStream::pair().expect("makes a pair");
        let writer = Arc::new(FrameWriter::new(ours));
        let late = Arc::new(LateAnswers::default());
        let sender = Arc::clone(&late);
        std::thread::spawn(move || sender.run());
        writer.append(&"answer").expect("fits");
        late.hold(&writer, Instant::now() + Duration::from_millis(20));
        let patience = Some(Duration::from_secs(30));
        theirs.set_read_timeout(patience).expect("is a socket");
        theirs.read_exact(&mut [0]).expect("is sent");
    }
}

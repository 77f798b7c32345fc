//! One connection to a worker: requests of many threads in flight together.
//!
//! Callers append to the writer and get a future each. One thread sends what was appended, and lets
//! requests expire; one reads all answers. So a caller never blocks, whatever the worker does. A
//! request that has expired stays on the list until its answer comes: the worker is still at it, and
//! by that list a hung one is found out. Both threads sleep until there is something to do.

use crate::token::frame_writer::FrameWriter;
use crate::token::protocol::{Answer, FrameReader, Hello, Operation, Request, Response, VERSION};
use crate::token::{CallFailure, TokenError};
use anyhow::{Context, bail};
use futures_channel::oneshot;
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Pid, geteuid};
use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Refuses a socket that another process has put in the worker's place. The credentials are those of
/// the process that began to listen.
fn check_peer(stream: &UnixStream, worker: Option<Pid>) -> anyhow::Result<()> {
    let peer = socket_peercred(stream).context("cannot tell who listens")?;
    if peer.uid != geteuid() && !peer.uid.is_root() {
        bail!(
            "user {} listens at the worker's socket, and only this user or root may: see who made \
             the file, and let no other user write to runtime_dir",
            peer.uid.as_raw()
        );
    }
    match worker.filter(|worker| *worker != peer.pid) {
        None => Ok(()),
        Some(worker) => bail!(
            "process {} listens at the worker's socket, and the worker is process {}: end the other \
             one",
            peer.pid.as_raw_nonzero(),
            worker.as_raw_nonzero()
        ),
    }
}

/// Most requests in flight on one connection; further ones are refused at once.
const IN_FLIGHT_MAX: usize = 1024;

/// How far beyond its deadline a request may be before the worker counts as hung.
const HANG_GRACE: Duration = Duration::from_secs(1);

/// How long the worker may take to greet, and to read what is sent.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(5);

type Outcome = Result<Answer, TokenError>;

/// A connection on which greetings were exchanged.
pub(super) struct Connection {
    token: String,
    stream: UnixStream,
    writer: FrameWriter,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    last_id: u64,
    /// Set when the connection ends: nothing more may be added.
    ended: Option<TokenError>,
    requests: HashMap<u64, InFlight>,
    /// No request expires before this, nor shows that the worker hangs.
    next_expiry: Option<Instant>,
}

struct InFlight {
    operation: &'static str,
    deadline: Instant,
    allowed: Duration,
    /// `None` once the caller was told that it has expired.
    reply: Option<oneshot::Sender<Outcome>>,
    /// That the worker hangs in it has been said.
    hung: bool,
}

impl InFlight {
    /// When it expires, or shows that the worker hangs.
    fn next_expiry(&self) -> Option<Instant> {
        match (&self.reply, self.hung) {
            (Some(_), _) => Some(self.deadline),
            (None, false) => Some(self.deadline + HANG_GRACE),
            (None, true) => None,
        }
    }
}

impl Connection {
    /// Connects and greets. The socket must be that of `worker`, the process id of the worker that
    /// was started; without one, that of this user or of root, who listens for systemd's units.
    pub(super) fn open(
        token: &str,
        socket: &Path,
        worker: Option<Pid>,
    ) -> anyhow::Result<(Self, FrameReader)> {
        let stream = UnixStream::connect(socket).context("no worker listens")?;
        check_peer(&stream, worker)?;
        stream.set_write_timeout(Some(SOCKET_TIMEOUT))?;
        stream.set_read_timeout(Some(SOCKET_TIMEOUT))?;
        let connection = Connection {
            token: token.to_owned(),
            writer: FrameWriter::new(stream.try_clone()?),
            stream,
            pending: Mutex::default(),
        };
        let reader = connection.greet()?;
        connection.stream.set_read_timeout(None)?;
        Ok((connection, reader))
    }

    fn greet(&self) -> anyhow::Result<FrameReader> {
        self.writer.append(&Hello {
            version: VERSION,
            token: self.token.clone(),
        })?;
        self.writer.flush()?;
        let mut reader = FrameReader::default();
        loop {
            if reader.fill(&mut &self.stream)? == 0 {
                bail!("the worker closed without a greeting");
            }
            if let Some(hello) = reader.next::<Hello>()? {
                if hello.version != VERSION || hello.token != self.token {
                    bail!(
                        "it serves version {} of token {:?}",
                        hello.version,
                        hello.token
                    );
                }
                return Ok(reader);
            }
        }
    }

    /// Asks; ready with the answer, or when `allowed` is over.
    pub(super) fn call(
        &self,
        operation: Operation,
        allowed: Duration,
    ) -> impl Future<Output = Result<Answer, CallFailure>> + Send + use<> {
        // What fails here was not handed to the writer, and what the writer has may be sent.
        let asked = self.ask(operation, allowed).map_err(CallFailure::unsent);
        let token = self.token.clone();
        async move {
            let gone = |_| Err(TokenError::unavailable(&token, "the client is closed"));
            let outcome = asked?.await.unwrap_or_else(gone);
            outcome.map_err(CallFailure::sent)
        }
    }

    fn ask(
        &self,
        operation: Operation,
        allowed: Duration,
    ) -> Result<oneshot::Receiver<Outcome>, TokenError> {
        let name = operation.name();
        let (id, answer) = self.register(name, allowed)?;
        let request = Request {
            id,
            deadline_ms: u32::try_from(allowed.as_millis()).unwrap_or(u32::MAX),
            operation,
        };
        if let Err(error) = self.writer.append(&request) {
            self.pending().requests.remove(&id);
            let (token, operation) = (self.token.clone(), name.to_owned());
            return Err(TokenError::Refused {
                token,
                operation,
                reason: error.to_string(),
            });
        }
        Ok(answer)
    }

    fn register(
        &self,
        operation: &'static str,
        allowed: Duration,
    ) -> Result<(u64, oneshot::Receiver<Outcome>), TokenError> {
        let mut pending = self.pending();
        if let Some(error) = &pending.ended {
            return Err(error.clone());
        }
        if pending.requests.len() >= IN_FLIGHT_MAX {
            let reason = format!("{IN_FLIGHT_MAX} requests are in flight");
            return Err(TokenError::unavailable(&self.token, reason));
        }
        pending.last_id += 1;
        let (id, deadline) = (pending.last_id, Instant::now() + allowed);
        let (reply, answer) = oneshot::channel();
        let in_flight = InFlight {
            operation,
            deadline,
            allowed,
            reply: Some(reply),
            hung: false,
        };
        pending.requests.insert(id, in_flight);
        let next = pending.next_expiry.map_or(deadline, |it| it.min(deadline));
        pending.next_expiry = Some(next);
        Ok((id, answer))
    }

    /// Sends what is asked, and lets expire what is not answered, until the connection ends. `hung`
    /// is told the operation by which the worker shows that it hangs.
    pub(super) fn send(&self, hung: impl Fn(&'static str)) {
        while let Some(next_expiry) = self.expire(&hung) {
            if let Err(error) = self.writer.send_when_added(next_expiry) {
                if error.kind() == io::ErrorKind::WouldBlock {
                    hung("reading requests");
                }
                return self.end(&format!("cannot send to the worker: {error}"));
            }
        }
    }

    /// Tells the callers of requests that have expired, and that the worker hangs. Returns when to
    /// come back, or `None` once the connection has ended.
    fn expire(&self, hung: impl Fn(&'static str)) -> Option<Option<Instant>> {
        let mut pending = self.pending();
        if pending.ended.is_some() {
            return None;
        }
        let now = Instant::now();
        if pending.next_expiry.is_none_or(|next| now < next) {
            return Some(pending.next_expiry);
        }
        for request in pending.requests.values_mut() {
            if request.next_expiry().is_none_or(|next| now < next) {
                continue;
            }
            let Some(reply) = request.reply.take() else {
                request.hung = true;
                hung(request.operation);
                continue;
            };
            let deadline_ms = request.allowed.as_millis();
            // A caller that is gone does not mind.
            let _ = reply.send(Err(TokenError::Deadline {
                token: self.token.clone(),
                operation: request.operation.to_owned(),
                deadline_ms: u64::try_from(deadline_ms).unwrap_or(u64::MAX),
            }));
        }
        let requests = pending.requests.values();
        pending.next_expiry = requests.filter_map(InFlight::next_expiry).min();
        Some(pending.next_expiry)
    }

    /// Delivers answers until the connection ends; gives the reason.
    pub(super) fn read(&self, mut reader: FrameReader) -> String {
        let reason = loop {
            match self.deliver(&mut reader) {
                Err(error) => break format!("{error:#}"),
                Ok(()) => match reader.fill(&mut &self.stream) {
                    Ok(0) => break "the worker closed the connection".to_owned(),
                    Ok(_) => {}
                    Err(error) => break error.to_string(),
                },
            }
        };
        self.end(&reason);
        reason
    }

    /// Every answer that is complete, to its caller.
    fn deliver(&self, reader: &mut FrameReader) -> anyhow::Result<()> {
        let mut answered = Vec::new();
        while let Some(response) = reader.next::<Response>()? {
            answered.push(response);
        }
        let mut pending = self.pending();
        let replies: Vec<_> = answered
            .into_iter()
            .filter_map(|Response { id, result }| {
                Some((pending.requests.remove(&id)?.reply?, result))
            })
            .collect();
        drop(pending);
        for (reply, result) in replies {
            let _ = reply.send(result);
        }
        Ok(())
    }

    /// Ends the connection: everything pending is unavailable, and everything after it.
    pub(super) fn end(&self, reason: &str) {
        let _ = self.stream.shutdown(Shutdown::Both);
        let error = TokenError::unavailable(&self.token, reason);
        let mut pending = self.pending();
        pending.ended.get_or_insert(error.clone());
        let requests = std::mem::take(&mut pending.requests);
        drop(pending);
        self.writer.close();
        for reply in requests.into_values().filter_map(|request| request.reply) {
            let _ = reply.send(Err(error.clone()));
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending
            .lock()
            .expect("no thread panics while it holds the pending requests")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_socket_of_another_process_is_refused_before_a_word() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("token.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let own = rustix::process::getpid();
        let other = Pid::from_raw(own.as_raw_nonzero().get() + 1);
        let refused = Connection::open("factory", &socket, other).err().unwrap();
        assert!(
            refused
                .to_string()
                .contains("listens at the worker's socket"),
            "{refused}"
        );
        let (mut stream, _) = listener.accept().unwrap();
        let mut said = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut said).unwrap();
        assert_eq!(said, [0; 0]);

        let stream = UnixStream::connect(&socket).unwrap();
        check_peer(&stream, Some(own)).unwrap();
        check_peer(&stream, None).unwrap();
    }
}

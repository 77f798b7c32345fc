//! Sends the requests of many threads to a worker over one connection, and delivers the answers.
//!
//! A caller appends its request to the [`FrameWriter`] and gets a future, so it never blocks,
//! whatever the worker does. One thread sends what was appended and lets requests expire; one reads
//! all messages. An expired request stays registered until its answer comes: the worker still works
//! on it, and by such requests a hung worker is detected. A worker that does not send its health in
//! time counts as hung, too.

use super::in_flight::{Expiry, HEALTH_DEADLINE, InFlight, Lateness, Outcome, Pending};
use crate::measured;
use crate::request_task;
use crate::token::frame_writer::FrameWriter;
use crate::token::health::WorkerHealth;
use crate::token::key_proof::TEST_KEY_LABEL;
use crate::token::message::{
    FrameReader, Hello, KEYS_NAMED_MAX, Message, ProtocolError, Response, ToWorker, TokenRequest,
    VERSION,
};
use crate::token::operation::{Answer, Operation};
use crate::token::{CallFailure, KeyReference, TokenError};
use crate::trace;
use crate::x509::key::SignatureAlgorithm;
use anyhow::{Context, bail};
use futures_channel::oneshot;
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Pid, geteuid};
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Refuses a socket that another process has put in the worker's place. The peer's credentials are
/// those of the process that called `listen`.
fn check_peer(stream: &UnixStream, worker: Option<Pid>) -> anyhow::Result<()> {
    let peer = socket_peercred(stream).context("cannot read which process listens")?;
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
            "process {} listens at the worker's socket, and the worker is process {}: end the \
             other one",
            peer.pid.as_raw_nonzero(),
            worker.as_raw_nonzero()
        ),
    }
}

/// Most requests in flight on one connection; further ones are refused at once. It is as many as
/// the worker's queue takes.
const IN_FLIGHT_MAX: usize = 1024;

/// How long the worker may take to greet, and to read what was sent.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection on which greetings were exchanged.
pub(super) struct Connection {
    token: String,
    stream: UnixStream,
    writer: FrameWriter,
    pending: Mutex<Pending>,
    /// The keys that were named to the worker; the place is the number.
    keys: Mutex<Vec<Arc<KeyReference>>>,
}

/// A request that will be sent.
struct Registered {
    id: u64,
    answer: oneshot::Receiver<Outcome>,
    /// Whether other requests are in flight.
    others: bool,
    deadline: Instant,
}

/// Called by the threads of a connection.
pub(super) trait Events {
    /// The worker has sent its health.
    fn health(&self, health: &WorkerHealth);
    /// The worker has not sent its health in time.
    fn silent(&self);
    /// The worker hangs, as `operation` shows.
    fn hung(&self, operation: &'static str);
}

impl Connection {
    /// Connects and exchanges greetings. The process that listens must be `worker`, if that is
    /// given. Otherwise it must run as this user, or as root, which listens for systemd's units.
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
            pending: Mutex::new(Pending::new(Instant::now())),
            keys: Mutex::default(),
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
            if let Some(hello) = reader.next_message::<Hello>()? {
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

    /// Sends a request. The future is ready with the answer, or after `allowed`.
    pub(super) fn call(
        &self,
        operation: Operation,
        allowed: Duration,
    ) -> impl Future<Output = Result<Answer, CallFailure>> + Send + use<> {
        let name = operation.name();
        let asked = self.ask(name, allowed, |id, deadline_ms| {
            ToWorker::Request(TokenRequest {
                id,
                deadline_ms,
                operation,
                trace: trace::current(),
            })
        });
        self.answered(name, asked)
    }

    /// Sends a request for [`Operation::Sign`]. The worker knows the key by its number.
    pub(super) fn sign(
        &self,
        key: &KeyReference,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        allowed: Duration,
    ) -> impl Future<Output = Result<Answer, CallFailure>> + Send + use<> {
        let asked = self.number_of(key).and_then(|number| {
            self.ask("sign", allowed, |id, deadline_ms| {
                let message = message.to_vec();
                let trace = trace::current();
                match number {
                    Some(key) => ToWorker::Sign {
                        id,
                        deadline_ms,
                        key,
                        algorithm,
                        message,
                        trace,
                    },
                    None => ToWorker::Request(TokenRequest {
                        id,
                        deadline_ms,
                        operation: Operation::Sign {
                            key: Arc::new(key.clone()),
                            algorithm,
                            message,
                        },
                        trace,
                    }),
                }
            })
        });
        self.answered("sign", asked)
    }

    fn answered(
        &self,
        operation: &'static str,
        asked: Result<oneshot::Receiver<Outcome>, TokenError>,
    ) -> impl Future<Output = Result<Answer, CallFailure>> + Send + use<> {
        // A request that failed was not given to the writer; after that it may be sent.
        let asked = asked.map_err(CallFailure::unsent);
        let token = self.token.clone();
        let begun = Instant::now();
        async move {
            let gone = |_| Err(TokenError::unavailable(&token, "the client is closed"));
            let outcome = asked?.await.unwrap_or_else(gone);
            let failure = outcome.as_ref().err().map(TokenError::kind);
            measured::token_operation(&token, operation, begun, failure);
            outcome.map_err(CallFailure::sent)
        }
    }

    /// Returns the number of a key on this connection; names the key first if it has none. Few keys
    /// serve, so a search is short. Test keys, which are many, and keys beyond the limit have none.
    fn number_of(&self, key: &KeyReference) -> Result<Option<u32>, TokenError> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let named = keys.iter().position(|it| **it == *key);
        let number = named.unwrap_or(keys.len());
        if named.is_none() {
            if key.label == TEST_KEY_LABEL || number >= KEYS_NAMED_MAX {
                return Ok(None);
            }
            let key = Arc::new(key.clone());
            // Under the lock, so that no signature by this number is sent before.
            let appended = self.writer.append(&ToWorker::Key(Arc::clone(&key)));
            appended.map_err(|error| self.refused("name a key", &error))?;
            keys.push(key);
        }
        Ok(u32::try_from(number).ok())
    }

    fn ask(
        &self,
        operation: &'static str,
        allowed: Duration,
        message: impl FnOnce(u64, u32) -> ToWorker,
    ) -> Result<oneshot::Receiver<Outcome>, TokenError> {
        let registered = self.register(operation, allowed)?;
        let Registered {
            id,
            answer,
            others,
            deadline,
        } = registered;
        let deadline_ms = u32::try_from(allowed.as_millis()).unwrap_or(u32::MAX);
        let message = message(id, deadline_ms);
        // The sending thread gathers the requests of many callers; a lone one need not wait for it.
        let appended = if others {
            self.writer.append(&message)
        } else {
            self.writer.append_and_send(&message, deadline)
        };
        if let Err(error) = appended {
            self.pending().requests.remove(&id);
            return Err(self.refused(operation, &error));
        }
        Ok(answer)
    }

    fn refused(&self, operation: &str, error: &ProtocolError) -> TokenError {
        TokenError::Refused {
            token: self.token.clone(),
            operation: operation.to_owned(),
            reason: error.to_string(),
        }
    }

    fn register(
        &self,
        operation: &'static str,
        allowed: Duration,
    ) -> Result<Registered, TokenError> {
        let mut pending = self.pending();
        if let Some(error) = &pending.ended {
            return Err(error.clone());
        }
        if pending.requests.len() >= IN_FLIGHT_MAX {
            let reason = format!("{IN_FLIGHT_MAX} requests are in flight");
            return Err(TokenError::unavailable(&self.token, reason));
        }
        let others = !pending.requests.is_empty();
        pending.last_id += 1;
        let id = pending.last_id;
        let deadline = Instant::now() + allowed;
        let (reply, answer) = oneshot::channel();
        let in_flight = InFlight {
            operation,
            allowed,
            expiry: Expiry::new(deadline),
            reply: Some(reply),
        };
        pending.requests.insert(id, in_flight);
        pending.next_expiry = pending.next_expiry.min(deadline);
        Ok(Registered {
            id,
            answer,
            others,
            deadline,
        })
    }

    /// Sends requests, and lets those expire that are not answered, until the connection ends.
    pub(super) fn send(&self, events: &impl Events) {
        while let Some(next_expiry) = self.expire(events) {
            if let Err(error) = self.writer.send_when_added(next_expiry) {
                if error.kind() == io::ErrorKind::WouldBlock {
                    events.hung("reading requests");
                }
                return self.end(&format!("cannot send to the worker: {error}"));
            }
        }
    }

    /// Answers requests that have expired, and detects that the worker hangs. Returns when to look
    /// again, or `None` once the connection has ended.
    fn expire(&self, events: &impl Events) -> Option<Instant> {
        let mut pending = self.pending();
        if pending.ended.is_some() {
            return None;
        }
        let now = Instant::now();
        if now < pending.next_expiry {
            return Some(pending.next_expiry);
        }
        for request in pending.requests.values_mut() {
            match request.expiry.advance(now) {
                Some(Lateness::Expired) => request.expire(&self.token),
                Some(Lateness::Hung) => events.hung(request.operation),
                Some(Lateness::Waiting) | None => {}
            }
        }
        match pending.health.advance(now) {
            Some(Lateness::Expired) => events.silent(),
            Some(Lateness::Hung) => events.hung("reporting its health"),
            Some(Lateness::Waiting) | None => {}
        }
        pending.next_expiry = pending.next_expiry(now);
        Some(pending.next_expiry)
    }

    /// Delivers messages until the connection ends; returns the reason.
    pub(super) fn read(&self, mut reader: FrameReader, events: &impl Events) -> String {
        let reason = loop {
            match self.deliver(&mut reader, events) {
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

    /// Delivers every complete message.
    fn deliver(&self, reader: &mut FrameReader, events: &impl Events) -> anyhow::Result<()> {
        let mut answers = Vec::new();
        while let Some(message) = reader.next_message()? {
            match message {
                Message::Answer(answer) => answers.push(answer),
                Message::Health(health) => {
                    self.pending().health = Expiry::new(Instant::now() + HEALTH_DEADLINE);
                    events.health(&health);
                }
            }
        }
        if answers.is_empty() {
            return Ok(());
        }
        let mut pending = self.pending();
        let replies: Vec<_> = answers
            .into_iter()
            .filter_map(|Response { id, result }| {
                Some((pending.requests.remove(&id)?.reply?, result))
            })
            .collect();
        drop(pending);
        request_task::answering(|| {
            for (reply, result) in replies {
                let _ = reply.send(result);
            }
        });
        Ok(())
    }

    /// Ends the connection. Pending requests and later ones fail as unavailable.
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

//! One connection to a worker: requests of many threads in flight together.
//!
//! Callers append to the outbox and wait each on their own; one thread reads all answers. A request
//! whose caller has given up stays on the list until its answer comes: the worker is still at it,
//! and by that list a hung one is found out.

use crate::token::TokenError;
use crate::token::outbox::Outbox;
use crate::token::protocol::{Answer, FrameReader, Hello, Operation, Request, Response, VERSION};
use anyhow::{Context, bail};
use std::collections::HashMap;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Most requests in flight on one connection; further ones are refused at once.
const IN_FLIGHT_MAX: usize = 1024;

/// How long the worker may take to greet, and to read what is sent.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(5);

type Outcome = Result<Answer, TokenError>;

/// A connection on which greetings were exchanged.
pub(super) struct Connection {
    token: String,
    stream: UnixStream,
    outbox: Outbox,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    last_id: u64,
    /// Set when the connection ends: nothing more may be added.
    ended: Option<TokenError>,
    requests: HashMap<u64, InFlight>,
}

struct InFlight {
    operation: &'static str,
    deadline: Instant,
    slot: Arc<Slot>,
}

/// Where one caller waits.
#[derive(Default)]
struct Slot {
    outcome: Mutex<Option<Outcome>>,
    filled: Condvar,
}

impl Connection {
    /// Connects and greets.
    pub(super) fn open(token: &str, socket: &Path) -> anyhow::Result<(Self, FrameReader)> {
        let stream = UnixStream::connect(socket).context("no worker listens")?;
        stream.set_write_timeout(Some(SOCKET_TIMEOUT))?;
        stream.set_read_timeout(Some(SOCKET_TIMEOUT))?;
        let connection = Connection {
            token: token.to_owned(),
            outbox: Outbox::new(stream.try_clone()?),
            stream,
            pending: Mutex::default(),
        };
        let reader = connection.greet()?;
        connection.stream.set_read_timeout(None)?;
        Ok((connection, reader))
    }

    fn greet(&self) -> anyhow::Result<FrameReader> {
        self.outbox.append(&Hello {
            version: VERSION,
            token: self.token.clone(),
        })?;
        self.outbox.flush()?;
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

    /// Asks, and waits for the answer until `deadline` from now.
    pub(super) fn call(&self, operation: Operation, deadline: Duration) -> Outcome {
        let name = operation.name();
        let until = Instant::now() + deadline;
        let (id, slot) = self.register(name, until)?;
        let deadline_ms = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = self.outbox.append(&Request {
            id,
            deadline_ms,
            operation,
        }) {
            self.pending().requests.remove(&id);
            let (token, operation) = (self.token.clone(), name.to_owned());
            return Err(TokenError::Refused {
                token,
                operation,
                reason: error.to_string(),
            });
        }
        if let Err(error) = self.outbox.flush() {
            self.end(&format!("cannot send to the worker: {error}"));
        }
        slot.wait(until).unwrap_or_else(|| {
            let (token, operation) = (self.token.clone(), name.to_owned());
            let deadline_ms = deadline_ms.into();
            Err(TokenError::Deadline {
                token,
                operation,
                deadline_ms,
            })
        })
    }

    fn register(
        &self,
        operation: &'static str,
        deadline: Instant,
    ) -> Result<(u64, Arc<Slot>), TokenError> {
        let mut pending = self.pending();
        if let Some(error) = &pending.ended {
            return Err(error.clone());
        }
        if pending.requests.len() >= IN_FLIGHT_MAX {
            let reason = format!("{IN_FLIGHT_MAX} requests are in flight");
            return Err(TokenError::unavailable(&self.token, reason));
        }
        pending.last_id += 1;
        let (id, slot) = (pending.last_id, Arc::<Slot>::default());
        let in_flight = InFlight {
            operation,
            deadline,
            slot: Arc::clone(&slot),
        };
        pending.requests.insert(id, in_flight);
        Ok((id, slot))
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
        let slots: Vec<_> = answered
            .into_iter()
            .filter_map(|Response { id, result }| {
                Some((pending.requests.remove(&id)?.slot, result))
            })
            .collect();
        drop(pending);
        for (slot, result) in slots {
            slot.fill(result);
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
        for in_flight in requests.into_values() {
            in_flight.slot.fill(Err(error.clone()));
        }
    }

    /// The operation that is longest beyond its deadline, if by more than `grace`.
    pub(super) fn overdue(&self, grace: Duration) -> Option<&'static str> {
        let pending = self.pending();
        let oldest = pending
            .requests
            .values()
            .min_by_key(|request| request.deadline)?;
        (Instant::now() > oldest.deadline + grace).then_some(oldest.operation)
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending
            .lock()
            .expect("no thread panics while it holds the pending requests")
    }
}

impl Slot {
    fn fill(&self, outcome: Outcome) {
        *self
            .outcome
            .lock()
            .expect("no thread panics while it holds a slot") = Some(outcome);
        self.filled.notify_one();
    }

    /// The outcome; `None` if there is none by `until`.
    fn wait(&self, until: Instant) -> Option<Outcome> {
        let outcome = self
            .outcome
            .lock()
            .expect("no thread panics while it holds a slot");
        let left = until.saturating_duration_since(Instant::now());
        let (mut outcome, _) = self
            .filled
            .wait_timeout_while(outcome, left, |outcome| outcome.is_none())
            .expect("no thread panics while it holds a slot");
        outcome.take()
    }
}

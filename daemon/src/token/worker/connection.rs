//! A worker's socket: who may connect, and how requests come in and answers go out.
//!
//! Only the owner of the socket's file may connect: the mode says so, and the peer's credentials are
//! looked at all the same. A socket that systemd made belongs to the daemon, and that is another user
//! than the worker; one that the worker made belongs to the worker.

use super::Job;
use super::health::WorkerHealth;
use super::queue::Queue;
use super::recovery::Recovery;
use crate::files;
use crate::files::atomic;
use crate::socket_path;
use crate::token::frame_writer::FrameWriter;
use crate::token::protocol::{
    Answer, FrameReader, HEALTH_PAUSE, Hello, Operation, ProtocolError, Request, Response, VERSION,
};
use crate::token::{TokenError, worker};
use anyhow::{Context, bail};
use listenfd::ListenFd;
use std::fs;
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Most connections at a time: `serve`, and an operator's `hallmark token check`.
const CONNECTIONS_MAX: usize = 8;

/// How long a peer may refuse to read its answers before it is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The worker's socket.
pub(super) struct Socket {
    listener: UnixListener,
    /// Whom it lets in.
    owner: u32,
    /// What is to be removed in the end; what systemd made stays.
    own: Option<PathBuf>,
}

impl Socket {
    /// The one that systemd has handed over, or a new one at `path`.
    ///
    /// MUST be called before there are threads: the environment is emptied of what it said.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        socket_path::check(path, "runtime_dir, the token's name or --socket")?;
        let (listener, own) = match handed_over(path)? {
            Some(listener) => (listener, None),
            None => (listen(path)?, Some(path.to_owned())),
        };
        let metadata = fs::metadata(path);
        let metadata = metadata.with_context(|| format!("cannot look at {}", path.display()))?;
        Ok(Self {
            listener,
            owner: metadata.uid(),
            own,
        })
    }

    /// For the end: a second handle of the socket would keep it open.
    pub(super) fn own(&self) -> Option<PathBuf> {
        self.own.clone()
    }
}

fn handed_over(path: &Path) -> anyhow::Result<Option<UnixListener>> {
    let mut sockets = ListenFd::from_env();
    let mend = "give hallmark-token@.socket the one line ListenStream= with the worker's socket";
    let taken = match sockets.len() {
        0 => return Ok(None),
        1 => sockets.take_unix_listener(0),
        more => return Err(HandedOver(format!("{more} sockets; {mend}")).into()),
    };
    let Ok(Some(listener)) = taken else {
        return Err(HandedOver(format!("no Unix stream socket; {mend}")).into());
    };
    let address = listener.local_addr()?;
    let found = address.as_pathname().unwrap_or(Path::new(""));
    if found != path {
        let (found, path) = (found.display(), path.display());
        let message = format!("{found}, and the daemon looks for the worker at {path}; {mend}");
        return Err(HandedOver(message).into());
    }
    listener.set_nonblocking(false)?;
    Ok(Some(listener))
}

/// What systemd has handed over does not fit the configuration.
#[derive(Debug, thiserror::Error)]
#[error("systemd hands over {0}")]
pub struct HandedOver(String);

/// Listens on `path` with mode 0600, in place of a socket that an earlier worker left there.
fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        worker::make_folder(folder)?;
    }
    atomic::remove(path).with_context(|| format!("cannot replace {}", path.display()))?;
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    files::set_mode(path, 0o600).with_context(|| format!("cannot restrict {}", path.display()))?;
    Ok(listener)
}

/// What connections work with.
#[derive(Clone)]
pub(super) struct RequestDispatcher {
    pub(super) token: String,
    pub(super) queue: Arc<Queue<Job>>,
    pub(super) recovery: Arc<Recovery>,
    /// How many wait for news of the token's health: one to a connection.
    pub(super) waiting: Arc<AtomicUsize>,
}

/// Accepts for ever, one thread per connection.
pub(super) fn accept(socket: &Socket, dispatcher: &RequestDispatcher) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in socket.listener.incoming() {
        let admitted = stream.map_err(anyhow::Error::from).and_then(|stream| {
            check_peer(&stream, socket.owner)?;
            if open.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
                bail!("{CONNECTIONS_MAX} connections are open");
            }
            Ok(stream)
        });
        match admitted {
            Ok(stream) => serve_in_thread(stream, dispatcher.clone(), Arc::clone(&open)),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(token = dispatcher.token, error, "connection refused");
            }
        }
    }
}

/// `SO_PEERCRED` must be the owner of the socket's file. To a worker that a user namespace shows neither
/// of them, they look alike: then the mode alone keeps others out.
fn check_peer(stream: &UnixStream, owner: u32) -> anyhow::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(stream).context("no peer credentials")?;
    let peer = peer.uid.as_raw();
    if peer != owner {
        bail!("the peer's user id is {peer}, and the socket belongs to {owner}");
    }
    Ok(())
}

fn serve_in_thread(stream: UnixStream, dispatcher: RequestDispatcher, open: Arc<AtomicUsize>) {
    open.fetch_add(1, Ordering::Relaxed);
    worker::spawn("token-reader", move || {
        if let Err(error) = serve(&stream, &dispatcher) {
            let error = format!("{error:#}");
            tracing::warn!(token = dispatcher.token, error, "connection ended");
        }
        // Signers may still hold the sending half; the peer shall see the end now.
        let _ = stream.shutdown(Shutdown::Both);
        open.fetch_sub(1, Ordering::Relaxed);
    });
}

/// Greets, then takes requests until the peer closes.
fn serve(mut stream: &UnixStream, dispatcher: &RequestDispatcher) -> anyhow::Result<()> {
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let writer = Arc::new(FrameWriter::new(stream.try_clone()?));
    writer.append(&Hello {
        version: VERSION,
        token: dispatcher.token.clone(),
    })?;
    writer.flush()?;
    let mut reader = FrameReader::default();
    let mut greeted = false;
    while reader.fill(&mut stream)? > 0 {
        if !greeted {
            let Some(hello) = reader.next::<Hello>()? else {
                continue;
            };
            check_hello(&hello, &dispatcher.token)?;
            greeted = true;
        }
        dispatcher.take(requests(&mut reader)?, &writer)?;
    }
    Ok(())
}

fn check_hello(hello: &Hello, token: &str) -> anyhow::Result<()> {
    if hello.version != VERSION || hello.token != token {
        bail!(
            "the peer wants version {} of token {:?}",
            hello.version,
            hello.token
        );
    }
    Ok(())
}

/// All requests that the last read completed.
fn requests(reader: &mut FrameReader) -> Result<Vec<Request>, ProtocolError> {
    let mut requests = Vec::new();
    while let Some(request) = reader.next()? {
        requests.push(request);
    }
    Ok(requests)
}

impl RequestDispatcher {
    /// Queues what needs the token, and answers the rest.
    fn take(&self, requests: Vec<Request>, writer: &Arc<FrameWriter>) -> anyhow::Result<()> {
        let now = Instant::now();
        let mut jobs = Vec::with_capacity(requests.len());
        for request in requests {
            match request.operation {
                Operation::Health { known } => self.tell_health(request.id, known, writer)?,
                _ => jobs.push(Job {
                    deadline: now + Duration::from_millis(request.deadline_ms.into()),
                    request,
                    writer: Arc::clone(writer),
                }),
            }
        }
        for refused in self.queue.push_all(jobs) {
            refused.answer(Err(TokenError::unavailable(
                &self.token,
                "its queue is full",
            )));
        }
        Ok(writer.flush()?)
    }

    /// At once if it is news to whoever asks; otherwise a thread waits for some.
    fn tell_health(
        &self,
        id: u64,
        known: Option<WorkerHealth>,
        writer: &Arc<FrameWriter>,
    ) -> Result<(), ProtocolError> {
        let now = self.recovery.health();
        let waits = Waits::one_more(&self.waiting);
        let (Some(known), Some(waits)) = (known.filter(|known| *known == now), waits) else {
            return answer_health(writer, id, now);
        };
        let (recovery, writer) = (Arc::clone(&self.recovery), Arc::clone(writer));
        worker::spawn("token-news", move || {
            let _waits = waits;
            let health = recovery.health_unlike(&known, HEALTH_PAUSE);
            // A peer that is gone is its reader's business.
            if answer_health(&writer, id, health).is_ok() {
                let _ = writer.flush();
            }
        });
        Ok(())
    }
}

fn answer_health(writer: &FrameWriter, id: u64, health: WorkerHealth) -> Result<(), ProtocolError> {
    let result = Ok(Answer::Health(health));
    writer.append(&Response { id, result })
}

/// One who waits for news, until this is dropped.
struct Waits(Arc<AtomicUsize>);

impl Waits {
    /// `None` if too many wait.
    fn one_more(waiting: &Arc<AtomicUsize>) -> Option<Self> {
        let this = Self(Arc::clone(waiting));
        (waiting.fetch_add(1, Ordering::Relaxed) < CONNECTIONS_MAX).then_some(this)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_sockets_owner_is_let_in() {
        let (_peer, stream) = UnixStream::pair().expect("a pair");
        let own = rustix::process::geteuid().as_raw();
        check_peer(&stream, own).expect("the owner");
        let refused = check_peer(&stream, own + 1).expect_err("somebody else");
        assert!(refused.to_string().contains("belongs to"), "{refused}");
    }
}

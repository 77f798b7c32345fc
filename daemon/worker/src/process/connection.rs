//! Accepts connections on a worker's socket, reads requests, and sends the token's health.
//!
//! Only the owner of the socket's file may connect: the file's mode allows no other user, and the
//! peer's credentials are checked as well. A socket made by systemd belongs to the daemon's user,
//! which is not the worker's; a socket made by the worker belongs to the worker's user.

use super::Job;
use super::queue::Queue;
use super::recovery::Recovery;
use crate::process;
use anyhow::{Context, bail};
use hallmark_base::files;
use hallmark_base::files::atomic;
use hallmark_base::socket_path;
use hallmark_protocol::TokenError;
use hallmark_protocol::frame_writer::FrameWriter;
use hallmark_protocol::message::{
    FrameReader, HEALTH_PAUSE, Hello, Message, NamedKeys, ProtocolError, TokenRequest, VERSION,
};
use listenfd::ListenFd;
use std::fs;
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Most connections at a time: `serve`, and an operator's `hallmark token check`.
const CONNECTIONS_MAX: usize = 8;

/// How long a peer may refuse to read its answers before it is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Socket {
    listener: UnixListener,
    /// The user id that may connect.
    owner: u32,
    /// The file to remove at the end; `None` for a socket made by systemd.
    own: Option<PathBuf>,
}

impl Socket {
    /// Takes the socket that systemd has passed, or makes one at `path`.
    ///
    /// MUST be called before there are threads: it removes systemd's variables from the
    /// environment.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        socket_path::check(path, "runtime_dir, the token's name or --socket")?;
        let (listener, own) = match handed_over(path)? {
            Some(listener) => (listener, None),
            None => (listen(path)?, Some(path.to_owned())),
        };
        let metadata = fs::metadata(path);
        let metadata = metadata.with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self {
            listener,
            owner: metadata.uid(),
            own,
        })
    }

    /// Returns the file to remove at the end.
    pub(super) fn own(&self) -> Option<PathBuf> {
        self.own.clone()
    }
}

fn handed_over(path: &Path) -> anyhow::Result<Option<UnixListener>> {
    let mut sockets = ListenFd::from_env();
    let fix = "give hallmark-token@.socket the one line ListenStream= with the worker's socket";
    let taken = match sockets.len() {
        0 => return Ok(None),
        1 => sockets.take_unix_listener(0),
        more => return Err(HandedOver(format!("{more} sockets; {fix}")).into()),
    };
    let Ok(Some(listener)) = taken else {
        return Err(HandedOver(format!("no Unix stream socket; {fix}")).into());
    };
    let address = listener.local_addr()?;
    let found = address.as_pathname().unwrap_or(Path::new(""));
    if found != path {
        let found = found.display();
        let path = path.display();
        let message = format!("{found}, and the daemon looks for the worker at {path}; {fix}");
        return Err(HandedOver(message).into());
    }
    listener.set_nonblocking(false)?;
    Ok(Some(listener))
}

/// The socket that systemd has passed does not match the configuration.
#[derive(Debug, thiserror::Error)]
#[error("systemd hands over {0}")]
pub(crate) struct HandedOver(String);

/// Listens on `path` with mode 0600, and replaces the socket of an earlier worker.
fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        process::make_folder(folder)?;
    }
    atomic::remove(path).with_context(|| format!("cannot replace {}", path.display()))?;
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    files::set_mode(path, 0o600).with_context(|| format!("cannot restrict {}", path.display()))?;
    Ok(listener)
}

/// Queues the requests of all connections.
#[derive(Clone)]
pub(super) struct RequestDispatcher {
    pub(super) token: String,
    pub(super) queue: Arc<Queue<Job>>,
    pub(super) recovery: Arc<Recovery>,
}

/// Accepts connections for ever, with one reading thread each.
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

/// Checks that the peer (`SO_PEERCRED`) is the owner of the socket's file. In a user namespace that
/// maps neither user, both ids are the same; then only the file's mode protects the socket.
fn check_peer(stream: &UnixStream, owner: u32) -> anyhow::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(stream).context("no peer credentials")?;
    let peer = peer.uid.as_raw();
    if peer != owner {
        bail!(
            "the peer's user id is {peer}, and the socket belongs to {owner}: give the daemon's \
             user as SocketUser="
        );
    }
    Ok(())
}

fn serve_in_thread(stream: UnixStream, dispatcher: RequestDispatcher, open: Arc<AtomicUsize>) {
    open.fetch_add(1, Ordering::Relaxed);
    process::spawn("token-reader", move || {
        if let Err(error) = serve(&stream, &dispatcher) {
            let error = format!("{error:#}");
            tracing::warn!(token = dispatcher.token, error, "connection ended");
        }
        // Signers may still hold the sending half, but the peer must see the end now.
        let _ = stream.shutdown(Shutdown::Both);
        open.fetch_sub(1, Ordering::Relaxed);
    });
}

/// Exchanges greetings, then takes requests and sends the token's health until the peer closes the
/// connection.
fn serve(stream: &UnixStream, dispatcher: &RequestDispatcher) -> anyhow::Result<()> {
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let writer = Arc::new(FrameWriter::new(stream.try_clone()?));
    writer.append(&Hello {
        version: VERSION,
        token: dispatcher.token.clone(),
    })?;
    writer.flush()?;
    let Some(reader) = read_greeting(stream, &dispatcher.token)? else {
        return Ok(());
    };
    let ended = AtomicBool::new(false);
    let push_health = || {
        // A peer that does not read is closed; then the reading thread ends the connection.
        if dispatcher.push_health(&writer, &ended).is_err() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("token-health".to_owned())
            .spawn_scoped(scope, push_health)
            .context("cannot start a thread")?;
        let outcome = read_requests(stream, reader, dispatcher, &writer);
        ended.store(true, Ordering::Release);
        dispatcher.recovery.wake_waiters();
        // Ends a write that the peer does not read.
        let _ = stream.shutdown(Shutdown::Both);
        outcome
    })
}

/// Returns the reader once the peer has greeted; `None` if the peer closes the connection before.
fn read_greeting(mut stream: &UnixStream, token: &str) -> anyhow::Result<Option<FrameReader>> {
    let mut reader = FrameReader::default();
    while reader.fill(&mut stream)? > 0 {
        if let Some(hello) = reader.next_message()? {
            check_hello(&hello, token)?;
            return Ok(Some(reader));
        }
    }
    Ok(None)
}

fn read_requests(
    mut stream: &UnixStream,
    mut reader: FrameReader,
    dispatcher: &RequestDispatcher,
    writer: &Arc<FrameWriter>,
) -> anyhow::Result<()> {
    let mut keys = NamedKeys::default();
    loop {
        dispatcher.take(requests(&mut reader, &mut keys)?, writer)?;
        if reader.fill(&mut stream)? == 0 {
            return Ok(());
        }
    }
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

/// Returns all complete requests.
fn requests(
    reader: &mut FrameReader,
    keys: &mut NamedKeys,
) -> Result<Vec<TokenRequest>, ProtocolError> {
    let mut requests = Vec::new();
    while let Some(message) = reader.next_message()? {
        requests.extend(keys.request(message)?);
    }
    Ok(requests)
}

impl RequestDispatcher {
    /// Queues the requests. Those for which the queue has no room are answered at once.
    fn take(&self, requests: Vec<TokenRequest>, writer: &Arc<FrameWriter>) -> anyhow::Result<()> {
        let now = Instant::now();
        let jobs = requests.into_iter().map(|request| Job {
            deadline: now + Duration::from_millis(request.deadline_ms.into()),
            request,
            writer: Arc::clone(writer),
        });
        for refused in self.queue.push_all(jobs.collect()) {
            refused.answer(Err(TokenError::unavailable(
                &self.token,
                "its queue is full",
            )));
        }
        Ok(writer.flush()?)
    }

    /// Sends the token's health at once, whenever it changes, and every [`HEALTH_PAUSE`], until
    /// `ended` is set, the worker ends, or the peer does not read.
    fn push_health(&self, writer: &FrameWriter, ended: &AtomicBool) -> anyhow::Result<()> {
        let is_over = || ended.load(Ordering::Acquire);
        while !is_over() && !self.recovery.is_closed() {
            let health = self.recovery.health();
            writer.append(&Message::Health(health.clone()))?;
            writer.flush()?;
            self.recovery
                .wait_for_change(&health, HEALTH_PAUSE, is_over);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_sockets_owner_may_connect() {
        let (_peer, stream) = UnixStream::pair().expect("a pair");
        let own = rustix::process::geteuid().as_raw();
        check_peer(&stream, own).expect("the owner");
        let refused = check_peer(&stream, own + 1).expect_err("another user");
        assert!(refused.to_string().contains("belongs to"), "{refused}");
    }
}

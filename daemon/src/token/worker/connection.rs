//! A worker's socket: who may connect, and how requests come in and answers go out.
//!
//! Only the worker's own user may connect: the folder and the mode say so, and the peer's
//! credentials are looked at all the same.

use super::Job;
use super::ladder::Ladder;
use super::queue::Queue;
use crate::token::outbox::Outbox;
use crate::token::protocol::{
    Answer, FrameReader, Hello, Operation, ProtocolError, Request, Response, VERSION,
};
use crate::token::{TokenError, worker};
use anyhow::{Context, bail};
use std::fs::{self, Permissions};
use std::io;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Most connections at a time: `serve`, and an operator's `hallmark token check`.
const CONNECTIONS_MAX: usize = 8;

/// How long a peer may refuse to read its answers before it is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Listens on `path` with mode 0600, in place of a socket that an earlier worker left there.
pub(super) fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", path.display()));
        }
        _ => {}
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o600))
        .with_context(|| format!("cannot restrict {}", path.display()))?;
    Ok(listener)
}

/// What connections work with.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) token: String,
    pub(super) queue: Arc<Queue<Job>>,
    pub(super) ladder: Arc<Ladder>,
}

/// Accepts for ever, one thread per connection.
pub(super) fn accept(listener: &UnixListener, desk: &Desk) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let admitted = stream.map_err(anyhow::Error::from).and_then(|stream| {
            check_peer(&stream)?;
            if open.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
                bail!("{CONNECTIONS_MAX} connections are open");
            }
            Ok(stream)
        });
        match admitted {
            Ok(stream) => serve_in_thread(stream, desk.clone(), Arc::clone(&open)),
            Err(error) => tracing::warn!(token = desk.token, "connection refused: {error:#}"),
        }
    }
}

/// `SO_PEERCRED` must be our own effective user.
fn check_peer(stream: &UnixStream) -> anyhow::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(stream).context("no peer credentials")?;
    let own = rustix::process::geteuid();
    if peer.uid != own {
        bail!(
            "the peer's user id is {}, ours is {}",
            peer.uid.as_raw(),
            own.as_raw()
        );
    }
    Ok(())
}

fn serve_in_thread(stream: UnixStream, desk: Desk, open: Arc<AtomicUsize>) {
    open.fetch_add(1, Ordering::Relaxed);
    worker::spawn("token-reader", move || {
        if let Err(error) = serve(&stream, &desk) {
            tracing::warn!(token = desk.token, "connection ended: {error:#}");
        }
        // Signers may still hold the sending half; the peer shall see the end now.
        let _ = stream.shutdown(Shutdown::Both);
        open.fetch_sub(1, Ordering::Relaxed);
    });
}

/// Greets, then takes requests until the peer closes.
fn serve(mut stream: &UnixStream, desk: &Desk) -> anyhow::Result<()> {
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let outbox = Arc::new(Outbox::new(stream.try_clone()?));
    outbox.append(&Hello {
        version: VERSION,
        token: desk.token.clone(),
    })?;
    outbox.flush()?;
    let mut reader = FrameReader::default();
    let mut greeted = false;
    while reader.fill(&mut stream)? > 0 {
        if !greeted {
            let Some(hello) = reader.next::<Hello>()? else {
                continue;
            };
            check_hello(&hello, &desk.token)?;
            greeted = true;
        }
        desk.take(requests(&mut reader)?, &outbox)?;
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

impl Desk {
    /// Queues what needs the token, and answers the rest.
    fn take(&self, requests: Vec<Request>, outbox: &Arc<Outbox>) -> anyhow::Result<()> {
        let now = Instant::now();
        let (asked, work): (Vec<_>, Vec<_>) = requests
            .into_iter()
            .partition(|request| request.operation == Operation::Health);
        for Request { id, .. } in asked {
            let result = Ok(Answer::Health(self.ladder.health()));
            outbox.append(&Response { id, result })?;
        }
        let jobs = work
            .into_iter()
            .map(|request| Job {
                deadline: now + Duration::from_millis(request.deadline_ms.into()),
                request,
                outbox: Arc::clone(outbox),
            })
            .collect();
        for refused in self.queue.push_all(jobs) {
            refused.answer(Err(TokenError::unavailable(
                &self.token,
                "its queue is full",
            )));
        }
        Ok(outbox.flush()?)
    }
}

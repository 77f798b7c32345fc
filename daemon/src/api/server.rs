//! Connections: accepted, bounded, served, and let finish.
//!
//! One loop serves every kind of listener ([`Door`]). A connection costs a permit, has to finish its handshake and its
//! request head in time, and speaks HTTP/1.1. At shutdown no connection is accepted, and those that
//! are open finish the request they are in.

use super::caller::{ClientCertificate, Peer};
use super::tls::ServerIdentity;
use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Open connections per listener.
pub const CONNECTIONS_MAX: usize = 1_024;
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the head of a request may take, and an idle connection wait for the next one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long open requests may take at shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait when the system has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener, and what a connection has to go through before HTTP begins.
pub trait Door: Send + Sync + 'static {
    /// A connection as it was accepted.
    type Knock: Send + 'static;
    /// A connection that was let in.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Knock>> + Send;

    /// Lets it in and says who it is, or hangs up. MUST end within a bounded time.
    fn admit(
        &self,
        knock: Self::Knock,
    ) -> impl Future<Output = Option<(Self::Stream, Peer)>> + Send;
}

/// TLS over TCP. Connections are accepted only while there is an identity.
pub struct Https {
    /// Where it listens.
    pub listener: TcpListener,
    /// Who the daemon is there.
    pub identity: Arc<ServerIdentity>,
}

/// Plain TCP: whoever comes is nobody.
pub struct Http {
    /// Where it listens.
    pub listener: TcpListener,
}

/// The admin socket.
pub struct Admin<Admitted> {
    /// Where it listens.
    pub listener: UnixListener,
    /// Which users it lets in.
    pub admitted: Admitted,
}

impl Door for Https {
    type Knock = TcpStream;
    type Stream = tokio_rustls::server::TlsStream<TcpStream>;

    async fn accept(&self) -> io::Result<TcpStream> {
        Ok(self.listener.accept().await?.0)
    }

    async fn admit(&self, stream: TcpStream) -> Option<(Self::Stream, Peer)> {
        // Small answers must not wait for the client's acknowledgement.
        stream.set_nodelay(true).ok()?;
        let acceptor = self.identity.acceptor()?;
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream))
            .await
            .ok()?
            .ok()?;
        let certificates = stream.get_ref().1.peer_certificates();
        let certificate = certificates
            .and_then(|chain| chain.first())
            .map(ClientCertificate::new);
        Some((stream, Peer::Network { certificate }))
    }
}

impl Door for Http {
    type Knock = TcpStream;
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        Ok(self.listener.accept().await?.0)
    }

    async fn admit(&self, stream: TcpStream) -> Option<(TcpStream, Peer)> {
        stream.set_nodelay(true).ok()?;
        Some((stream, Peer::Network { certificate: None }))
    }
}

impl<Admitted: Fn(u32) -> bool + Send + Sync + 'static> Door for Admin<Admitted> {
    type Knock = UnixStream;
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }

    async fn admit(&self, stream: UnixStream) -> Option<(UnixStream, Peer)> {
        let uid = stream.peer_cred().ok()?.uid();
        (self.admitted)(uid).then_some((stream, Peer::Local { uid }))
    }
}

/// Serves `router` behind `door` until `stop` turns true.
pub async fn serve_behind(door: impl Door, router: Router, mut stop: watch::Receiver<bool>) {
    let door = Arc::new(door);
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&permits, door.as_ref()) => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Some((permit, knock)) = accepted else {
            continue;
        };
        let (door, router, watcher) = (door.clone(), router.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _permit = permit;
            if let Some((stream, peer)) = door.admit(knock).await {
                serve_connection(stream, peer, router, watcher).await;
            }
        });
    }
    finish(graceful).await;
}

async fn accept<D: Door>(
    permits: &Arc<Semaphore>,
    door: &D,
) -> Option<(OwnedSemaphorePermit, D::Knock)> {
    let permit = permits.clone().acquire_owned().await.ok()?;
    match door.accept().await {
        Ok(knock) => Some((permit, knock)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn serve_connection<S>(
    stream: S,
    peer: Peer,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let routes = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        routes.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn finish(graceful: GracefulShutdown) {
    if tokio::time::timeout(SHUTDOWN_TIMEOUT, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("some connections did not finish in time");
    }
}

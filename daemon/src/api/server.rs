//! Connections: accepted, bounded, served, and let finish.
//!
//! One loop for each listener. A connection costs a permit, has to finish its handshake and its
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

/// Serves HTTPS until `stop` turns true. Connections are accepted only while there is an identity.
pub async fn serve_network(
    listener: TcpListener,
    identity: Arc<ServerIdentity>,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&permits, || listener.accept()) => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Some((permit, (stream, _address))) = accepted else {
            continue;
        };
        let (identity, router, watcher) = (identity.clone(), router.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _permit = permit;
            if let Some((stream, peer)) = handshake(stream, &identity).await {
                serve_connection(stream, peer, router, watcher).await;
            }
        });
    }
    finish(graceful).await;
}

/// Serves the admin socket until `stop` turns true, to the users that `admitted` lets in.
pub async fn serve_admin(
    listener: UnixListener,
    admitted: impl Fn(u32) -> bool + Send + 'static,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&permits, || listener.accept()) => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Some((permit, (stream, _address))) = accepted else {
            continue;
        };
        let Some(uid) = user_of(&stream).filter(|uid| admitted(*uid)) else {
            continue;
        };
        let (router, watcher) = (router.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _permit = permit;
            serve_connection(stream, Peer::Local { uid }, router, watcher).await;
        });
    }
    finish(graceful).await;
}

async fn accept<T, F>(
    permits: &Arc<Semaphore>,
    accept: impl FnOnce() -> F,
) -> Option<(OwnedSemaphorePermit, T)>
where
    F: Future<Output = io::Result<T>>,
{
    let permit = permits.clone().acquire_owned().await.ok()?;
    match accept().await {
        Ok(stream) => Some((permit, stream)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn handshake(
    stream: TcpStream,
    identity: &ServerIdentity,
) -> Option<(tokio_rustls::server::TlsStream<TcpStream>, Peer)> {
    // Small answers must not wait for the client's acknowledgement.
    stream.set_nodelay(true).ok()?;
    let acceptor = identity.acceptor()?;
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

fn user_of(stream: &UnixStream) -> Option<u32> {
    stream.peer_cred().ok().map(|credentials| credentials.uid())
}

//! Connections: accepted, bounded, served, and let finish.
//!
//! One loop serves every kind of listener ([`Door`]). A connection costs a permit, has to finish its handshake and its
//! request head in time, and speaks HTTP/1.1.
//!
//! At a stop no connection is accepted any more, and whoever was accepted gets an answer: a request in
//! hand its own, a connection that has not asked yet one, and whoever asks again hears that the daemon
//! stops (503, `Retry-After`, `Connection: close`). All of that within [`STOP_ANSWER`]. It must never
//! cut off work: what a handler began goes on, and what the token signed is recorded, whoever listens.

use super::BODY_BYTES_MAX;
use super::caller::{ClientCertificate, Peer};
use super::problem::Problem;
use super::tls::ServerIdentity;
use crate::ca::Error;
use crate::store::Store;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::response::{IntoResponse, Response};
use futures_util::future::FutureExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
/// At a stop: how long a kept connection may still ask, to be told so. A client that sends just when
/// we close would not know whether it was heard.
const STOP_LINGER: Duration = Duration::from_secs(1);
/// At a stop: how long a connection that was accepted may take to bring its first request.
const STOP_FIRST_REQUEST: Duration = Duration::from_secs(3);
/// At a stop: how long a request in hand may take to be answered with what came of it.
const STOP_ANSWER: Duration = Duration::from_secs(5);
/// At a stop: how long the last answers may take to be sent.
const STOP_SEND: Duration = Duration::from_millis(500);
/// How long whoever is told that the daemon stops shall wait, in seconds.
const STOP_RETRY_AFTER_SECONDS: u32 = 5;
/// How long to wait when the system has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener, and what a connection has to go through before HTTP begins.
pub trait Door: Send + Sync + 'static {
    /// A connection as it was accepted, and what it takes to let it in.
    type Knock: Send + 'static;
    /// A connection that was let in.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Knock>> + Send;

    /// Lets it in and says who it is, or hangs up. MUST end within a bounded time.
    fn admit(knock: Self::Knock) -> impl Future<Output = Option<(Self::Stream, Peer)>> + Send;
}

/// TLS over TCP. Connections are accepted only while there is an identity.
pub struct Https {
    /// Where it listens.
    pub listener: TcpListener,
    /// Who the daemon is there.
    pub identity: Arc<ServerIdentity>,
    /// Where it is on record that the identity is good.
    pub store: Store,
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
    type Knock = (TcpStream, Arc<ServerIdentity>, Store);
    type Stream = tokio_rustls::server::TlsStream<TcpStream>;

    async fn accept(&self) -> io::Result<Self::Knock> {
        let stream = self.listener.accept().await?.0;
        Ok((stream, self.identity.clone(), self.store.clone()))
    }

    async fn admit((stream, identity, store): Self::Knock) -> Option<(Self::Stream, Peer)> {
        // Small answers must not wait for the client's acknowledgement.
        stream.set_nodelay(true).ok()?;
        let acceptor = tokio::task::spawn_blocking(move || identity.acceptor(&store));
        let acceptor = acceptor.await.ok()??;
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

    async fn admit(stream: TcpStream) -> Option<(TcpStream, Peer)> {
        stream.set_nodelay(true).ok()?;
        Some((stream, Peer::Network { certificate: None }))
    }
}

impl<Admitted: Fn(u32) -> bool + Clone + Send + Sync + 'static> Door for Admin<Admitted> {
    type Knock = (UnixStream, Admitted);
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<Self::Knock> {
        Ok((self.listener.accept().await?.0, self.admitted.clone()))
    }

    async fn admit((stream, admitted): Self::Knock) -> Option<(UnixStream, Peer)> {
        let uid = stream.peer_cred().ok()?.uid();
        admitted(uid).then_some((stream, Peer::Local { uid }))
    }
}

/// Serves `router` behind `door` until `stop` turns true and everybody who was accepted is answered.
pub async fn serve_behind<D: Door>(door: D, router: Router, stop: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let serve = |(permit, knock)| {
        let (router, stop) = (router.clone(), stop.clone());
        tokio::spawn(async move {
            let _permit = permit;
            if let Some((stream, peer)) = D::admit(knock).await {
                serve_connection(stream, peer, router, stop).await;
            }
        });
    };
    let mut stopping = stop.clone();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&permits, &door) => accepted,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        accepted.map(&serve);
    }
    // Whom the kernel has accepted for us would be reset when the listener goes.
    while let Some(Some(waiting)) = accept(&permits, &door).now_or_never() {
        serve(waiting);
    }
    drop(door);
    let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
    let answered = tokio::time::timeout(STOP_ANSWER + STOP_SEND, permits.acquire_many(all));
    if answered.await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
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

async fn serve_connection<S>(stream: S, peer: Peer, router: Router, stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let routes = TowerToHyperService::new(router);
    let has_asked = Arc::new(AtomicBool::new(false));
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let again = has_asked.swap(true, Ordering::Relaxed);
        answer(routes.clone(), request, again, stop.clone())
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = enough_asked(stop.clone(), &has_asked) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Ends when, at a stop, no request is waited for any more.
async fn enough_asked(mut stop: watch::Receiver<bool>, has_asked: &AtomicBool) {
    let _ = stop.wait_for(|stop| *stop).await;
    tokio::time::sleep(STOP_LINGER).await;
    if !has_asked.load(Ordering::Relaxed) {
        tokio::time::sleep(STOP_FIRST_REQUEST - STOP_LINGER).await;
    }
}

/// What the routes answer, or at a stop that it stops: to whoever asks `again` on one connection, and to
/// whom there is nothing else to tell yet.
async fn answer(
    routes: TowerToHyperService<Router>,
    request: Request<Incoming>,
    again: bool,
    mut stop: watch::Receiver<bool>,
) -> Result<Response, Infallible> {
    if again && *stop.borrow() {
        // Bytes that nobody read would reset the connection, and the answer with it.
        let body = to_bytes(Body::new(request.into_body()), BODY_BYTES_MAX);
        let _ = tokio::time::timeout(STOP_LINGER, body).await;
        return Ok(closing(stopping("nothing was begun; ask again")));
    }
    let out_of_time = async {
        let _ = stop.wait_for(|stop| *stop).await;
        tokio::time::sleep(STOP_ANSWER).await;
    };
    let response = tokio::select! {
        answered = routes.call(request) => answered?,
        () = out_of_time => stopping(
            "what was begun is finished or explained after the start; ask again, with the same \
             Idempotency-Key",
        ),
    };
    let stops = *stop.borrow();
    Ok(if stops { closing(response) } else { response })
}

fn stopping(what_now: &str) -> Response {
    let message = format!("the daemon stops, and {what_now}");
    Problem::from(Error::later(STOP_RETRY_AFTER_SECONDS, "stopping", message)).into_response()
}

fn closing(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

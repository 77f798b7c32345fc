//! Accepts, bounds and serves connections, and lets them finish at a stop.
//!
//! One loop serves every kind of listener ([`Listener`]). A connection takes a place in the pool of
//! its class of clients ([`Pool`]), begins as a stranger's, has to finish its handshake and each
//! request head in time, has to read its answers ([`Paced`]), and has HTTP/1.1. Strangers MUST
//! never take a place that an identified client needs.
//!
//! At a stop no new connection is accepted, and every accepted connection gets an answer within
//! [`STOP_ANSWER`]: a request in work its own, a first request its own, and a further request 503
//! (`Retry-After`, `Connection: close`). Work MUST never be cut off: a handler that has begun ends,
//! and the token's signature is recorded, even if the client hangs up.

use super::Edge;
use super::batch::BATCH_BYTES_MAX;
use super::client::{Class, ConnectedClient};
use super::listener::{Listener, Origin};
use super::pace::Paced;
use super::pool::{Activity, CountedClient, Limits, Place, Pool, Works, Worth};
use super::problem::Problem;
use super::unrouted::explain_method;
use crate::ca::{Code, Error};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::future::FutureExt;
use hyper::Request;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Connections that were hung up on, and have not ended yet.
const ENDING_MAX: usize = 64;
/// The largest head of a request, and what is buffered of an answer, in bytes. hyper takes at most
/// 100 header fields.
const BUFFER_BYTES_MAX: usize = 16 * 1024;
/// How long a TLS handshake may take, and the look at the client's certificate.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the second and each later request of a stranger on one connection waits. Strangers that
/// ask without a pause leave the processors to others until then.
const STRANGER_PAUSE: Duration = Duration::from_millis(50);
/// How long the head of a request may take, and an idle connection wait for the next one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// At a stop: how long a kept connection may still send a request, to get 503. A client that sends
/// while the daemon closes would not know whether its request arrived.
const STOP_LINGER: Duration = Duration::from_secs(1);
/// At a stop: how long a connection that was accepted may take to bring its first request.
const STOP_FIRST_REQUEST: Duration = Duration::from_secs(3);
/// At a stop: how long a request in hand may take to be answered with what came of it.
const STOP_ANSWER: Duration = Duration::from_secs(5);
/// At a stop: how long the last answers may take to be sent.
const STOP_SEND: Duration = Duration::from_millis(500);
/// The `Retry-After` of a daemon that stops.
pub(super) const STOP_RETRY_AFTER_SECONDS: u32 = 5;
/// How long to wait when the system has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections of one listener.
#[derive(Clone)]
struct Connections {
    strangers: Arc<Pool>,
    others: Arc<Pool>,
    /// All that are open, those that end included.
    open: Arc<Semaphore>,
    open_max: u32,
}

impl Connections {
    fn new([strangers, others]: [Limits; 2]) -> Self {
        let open_max = strangers.total + others.total + ENDING_MAX;
        Self {
            strangers: Pool::new(strangers),
            others: Pool::new(others),
            open: Arc::new(Semaphore::new(open_max)),
            open_max: u32::try_from(open_max).unwrap_or(u32::MAX),
        }
    }

    fn of(&self, class: Class) -> &Arc<Pool> {
        match class {
            Class::Stranger => &self.strangers,
            Class::Identified | Class::Local => &self.others,
        }
    }
}

/// One connection, as it is accepted.
struct Accepted<Socket> {
    socket: Socket,
    origin: Origin,
    place: Place,
    activity: Arc<Activity>,
    _open: OwnedSemaphorePermit,
}

/// Serves the connections of a listener.
#[derive(Clone)]
struct Served {
    router: Router,
    edge: Edge,
    stop: watch::Receiver<bool>,
    connections: Connections,
}

/// Serves `router` behind `listener` until `stop` is true and every accepted connection is
/// answered.
pub async fn serve_behind<L: Listener>(
    listener: L,
    router: Router,
    edge: Edge,
    stop: watch::Receiver<bool>,
) {
    let connections = Connections::new(listener.limits());
    let served = Served {
        router,
        edge,
        stop: stop.clone(),
        connections: connections.clone(),
    };
    let serve = |accepted| {
        tokio::spawn(served.clone().serve::<L>(accepted));
    };
    let mut stopping = stop.clone();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&connections, &listener) => accepted,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        accepted.map(&serve);
        // A flood of connections must not keep those from beginning that were accepted.
        tokio::task::yield_now().await;
    }
    // Closing the listener would reset connections that the kernel has accepted already.
    while let Some(Some(waiting)) = accept(&connections, &listener).now_or_never() {
        serve(waiting);
    }
    drop(listener);
    let ended = connections.open.acquire_many(connections.open_max);
    let answered = tokio::time::timeout(STOP_ANSWER + STOP_SEND, ended);
    if answered.await.is_err() {
        tracing::warn!("connections still open at the stop deadline");
    }
}

async fn accept<L: Listener>(
    connections: &Connections,
    listener: &L,
) -> Option<Accepted<L::Socket>> {
    let open = connections.open.clone().acquire_owned().await.ok()?;
    let (socket, origin) = match listener.accept().await {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::warn!(%error, "accept failed, retrying");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            return None;
        }
    };
    let activity = Activity::new();
    let pool = connections.of(origin.class);
    let Some(place) = pool.enter(origin.client, &activity) else {
        tracing::debug!(client = ?origin.client, "no place for a connection");
        return None;
    };
    Some(Accepted {
        socket,
        origin,
        place,
        activity,
        _open: open,
    })
}

impl Served {
    async fn serve<L: Listener>(self, accepted: Accepted<L::Socket>) {
        let Accepted {
            socket,
            origin,
            place,
            activity,
            _open,
        } = accepted;
        let served = async {
            let established = self.establish::<L>(socket, origin, place, &activity);
            let established = tokio::time::timeout(HANDSHAKE_TIMEOUT, established).await;
            if let Ok(Some((stream, client, _place))) = established {
                activity.is(Worth::Ready);
                let router = self.router.clone();
                let stop = self.stop.clone();
                serve_connection(Paced::new(stream), client, &activity, router, stop).await;
            }
        };
        tokio::select! {
            () = served => {}
            () = activity.evicted() => tracing::debug!(client = ?origin.client, "hung up"),
        }
    }

    /// Completes a connection: TLS, then the client behind it. A connection whose client is
    /// identified changes places, because those of strangers are for strangers.
    async fn establish<L: Listener>(
        &self,
        socket: L::Socket,
        origin: Origin,
        place: Place,
        activity: &Arc<Activity>,
    ) -> Option<(L::Stream, ConnectedClient, Place)> {
        let (stream, peer) = L::begin(socket, origin, activity, &self.edge).await?;
        let mut client = ConnectedClient {
            peer,
            address: origin.address,
            class: origin.class,
        };
        let presented = client.peer.presented();
        let Some(sha256) = presented else {
            return Some((stream, client, place));
        };
        if !self.edge.identifies(&client.peer).await {
            return Some((stream, client, place));
        }
        client.class = Class::Identified;
        let counted = CountedClient::Certificate(sha256);
        let place = self.connections.of(client.class).enter(counted, activity)?;
        Some((stream, client, place))
    }
}

async fn serve_connection<S>(
    stream: S,
    client: ConnectedClient,
    activity: &Arc<Activity>,
    router: Router,
    stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let routes = TowerToHyperService::new(router);
    let has_asked = Arc::new(AtomicBool::new(false));
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(client.clone());
        let again = has_asked.swap(true, Ordering::Relaxed);
        let class = client.class;
        let work = Work::begins(activity, client.class);
        request.extensions_mut().insert(Arc::clone(&work));
        let request = request.map(|body| received(body, &work));
        let answered = answer(routes.clone(), request, again, stop.clone());
        async move {
            if again && class == Class::Stranger {
                tokio::time::sleep(STRANGER_PAUSE).await;
            }
            Ok::<_, Infallible>(finish(answered.await?, class, work.ends()))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_BYTES_MAX)
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

/// The work on one request. It begins when the request has come whole: until then, the connection
/// waits for its client. A stranger's connection never counts as working: it may request little,
/// and a thousand refused ones must not keep their places.
pub(super) struct Work {
    activity: Arc<Activity>,
    progress: Mutex<Progress>,
}

struct Progress {
    is_of_stranger: bool,
    has_come_whole: bool,
    works: Option<Works>,
}

impl Work {
    fn begins(activity: &Arc<Activity>, class: Class) -> Arc<Self> {
        activity.waits_from_now();
        let progress = Progress {
            is_of_stranger: class == Class::Stranger,
            has_come_whole: false,
            works: None,
        };
        Arc::new(Self {
            activity: Arc::clone(activity),
            progress: Mutex::new(progress),
        })
    }

    fn has_come_whole(&self) {
        self.proceed(|it| it.has_come_whole = true);
    }

    /// Says that the request itself has identified its client.
    pub(super) fn is_of_identified(&self) {
        self.proceed(|it| it.is_of_stranger = false);
    }

    fn proceed(&self, change: impl FnOnce(&mut Progress)) {
        let mut progress = self.progress();
        change(&mut progress);
        if progress.has_come_whole && !progress.is_of_stranger && progress.works.is_none() {
            progress.works = Some(self.activity.works());
        }
    }

    fn ends(&self) -> Option<Works> {
        self.progress().works.take()
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wraps the body of a request, so that `work` begins at its end.
fn received(body: Incoming, work: &Arc<Work>) -> Body {
    if body.is_end_stream() {
        work.has_come_whole();
    }
    let work = Arc::clone(work);
    Body::new(Received { body, work })
}

struct Received {
    body: Incoming,
    work: Arc<Work>,
}

impl hyper::body::Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) {
            self.work.has_come_whole();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection works while an answer comes in steps. A client whose certificate is no longer good
/// gives back its place among identified ones.
fn finish(response: Response, class: Class, works: Option<Works>) -> Response {
    let response = match response.body().size_hint().exact() {
        Some(_) => response,
        None => response.map(|body| {
            let _works = works;
            Body::new(Steps { body, _works })
        }),
    };
    match (class, response.status()) {
        (Class::Identified, StatusCode::UNAUTHORIZED) => closing(response),
        _ => response,
    }
}

/// A body that comes in steps.
struct Steps {
    body: Body,
    _works: Option<Works>,
}

impl hyper::body::Body for Steps {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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

/// Returns the answer of the routes, or 503 at a stop: for a request that comes `again` on one
/// connection, or that no handler has begun.
async fn answer(
    routes: TowerToHyperService<Router>,
    request: Request<Body>,
    again: bool,
    mut stop: watch::Receiver<bool>,
) -> Result<Response, Infallible> {
    if again && *stop.borrow() {
        // Unread bytes would reset the connection, and the answer with it.
        let body = to_bytes(request.into_body(), BATCH_BYTES_MAX);
        let _ = tokio::time::timeout(STOP_LINGER, body).await;
        return Ok(closing(stopping("nothing was begun; ask again")));
    }
    let method = request.method().clone();
    let out_of_time = async {
        let _ = stop.wait_for(|stop| *stop).await;
        tokio::time::sleep(STOP_ANSWER).await;
    };
    let response = tokio::select! {
        answered = routes.call(request) => explain_method(&method, answered?),
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
    Problem::from(Error::later(
        STOP_RETRY_AFTER_SECONDS,
        Code::Stopping,
        message,
    ))
    .into_response()
}

fn closing(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A one-time credential comes with the head of a request, and its body before or after it is
    /// judged.
    #[test]
    fn a_strangers_connection_works_once_its_request_has_identified_it() {
        for body_comes_first in [true, false] {
            let activity = Activity::new();
            let work = Work::begins(&activity, Class::Stranger);
            if body_comes_first {
                work.has_come_whole();
                assert!(
                    !activity.is_working(),
                    "a stranger's work counts for nothing"
                );
            }
            work.is_of_identified();
            assert_eq!(activity.is_working(), body_comes_first);
            work.has_come_whole();
            assert!(activity.is_working());
            drop(work.ends());
            assert!(!activity.is_working());
        }
    }
}

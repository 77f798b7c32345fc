//! TLS connections for `axum::serve`, each of which can be cut at will.
//!
//! Handshakes run in tasks of their own with a deadline: a client that stalls delays no other.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certificate::{Certificate, Unreadable};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 4096;
/// Connections whose handshake is done and that the server has not taken yet.
const READY_MAX: usize = 64;

/// The identity of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// The certificates that the client presented, leaf first, as DER.
    pub(crate) presented: Arc<Vec<Vec<u8>>>,
    pub(crate) cut: Cut,
}

impl Peer {
    /// The presented certificates, parsed.
    pub(crate) fn certificates(&self) -> Result<Vec<Certificate>, Unreadable> {
        self.presented
            .iter()
            .map(|der| Certificate::from_der(der))
            .collect()
    }
}

/// A switch that makes a connection fail, from the next byte on, with a TCP reset.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cut(Arc<AtomicBool>);

impl Cut {
    /// Throw the switch. Nothing is written on the connection any more.
    pub(crate) fn now(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn is_thrown(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A TLS connection with its [`Cut`].
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    /// Its place among [`CONNECTIONS_MAX`].
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// Take the server's side of a TLS connection.
    async fn accept(
        acceptor: TlsAcceptor,
        stream: TcpStream,
        place: OwnedSemaphorePermit,
    ) -> io::Result<Self> {
        let handshake = acceptor.accept(stream);
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await??;
        let (_, session) = stream.get_ref();
        let presented = session.peer_certificates().unwrap_or_default();
        let presented = presented
            .iter()
            .map(|certificate| certificate.to_vec())
            .collect();
        let peer = Peer {
            presented: Arc::new(presented),
            cut: Cut::default(),
        };
        Ok(Self {
            stream,
            peer,
            _place: place,
        })
    }

    /// Facts about the client.
    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    fn check(&self) -> io::Result<()> {
        if !self.peer.cut.is_thrown() {
            return Ok(());
        }
        // Without lingering, closing the socket sends a reset instead of an orderly end.
        self.stream.get_ref().0.set_zero_linger()?;
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The listener that `axum::serve` takes connections from.
#[derive(Debug)]
pub(crate) struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<(Connection, SocketAddr)>,
}

impl TlsListener {
    /// Accept from `listener`. Call it inside the runtime that serves.
    pub(crate) fn new(listener: TcpListener, config: ServerConfig) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(READY_MAX);
        tokio::spawn(accept_all(
            listener,
            TlsAcceptor::from(Arc::new(config)),
            sender,
        ));
        Ok(Self { address, ready })
    }
}

async fn accept_all(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    ready: mpsc::Sender<(Connection, SocketAddr)>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while !ready.is_closed() {
        let place = Arc::clone(&places).acquire_owned().await;
        let place = place.expect("nobody closes the semaphore");
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        tokio::spawn(async move {
            match Connection::accept(acceptor, stream, place).await {
                // The server takes no connections any more: the emulator stops.
                Ok(connection) => drop(ready.send((connection, address)).await),
                Err(error) => tracing::debug!(%error, %address, "a TLS handshake failed"),
            }
        });
    }
}

impl Listener for TlsListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // The accepting task ended with its runtime; nothing will come any more.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        stream.io().peer().clone()
    }
}

//! The kinds of listeners: how each accepts a connection, and what it knows of its client.

use super::Edge;
use super::caller::{Admission, ClientCertificate, Peer};
use super::client::Class;
use super::pool::{Activity, CountedClient, Limits, Worth};
use super::tls::ServerIdentity;
use crate::store::Store;
use rustls::server::Acceptor;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::LazyConfigAcceptor;

/// Open connections of clients that are not identified, at each TCP listener.
pub const STRANGERS_MAX: usize = 512;
/// The same of identified clients.
pub const IDENTIFIED_MAX: usize = 1_024;
/// The same with one client certificate.
const PER_CERTIFICATE_MAX: usize = 128;
/// Open connections of local users at the admin socket: admitted ones, and others.
const LOCAL_LIMITS: Limits = Limits {
    total: 256,
    per_client: 128,
};
const NOT_ADMITTED_LIMITS: Limits = Limits {
    total: 64,
    per_client: 16,
};
/// Accepts connections, and does what has to be done before HTTP begins.
pub trait Listener: Send + Sync + 'static {
    /// A connection as it was accepted.
    type Socket: Send + 'static;
    /// A connection that is ready for HTTP.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<(Self::Socket, Origin)>> + Send;

    /// Makes it ready and says who its client is, or hangs up.
    fn begin(
        socket: Self::Socket,
        origin: Origin,
        activity: &Activity,
        edge: &Edge,
    ) -> impl Future<Output = Option<(Self::Stream, Peer)>> + Send;

    /// How many connections of strangers and of others there may be.
    fn limits(&self) -> [Limits; 2];
}

/// The properties of a connection that are known when it is accepted.
#[derive(Clone, Copy)]
pub struct Origin {
    pub(super) client: CountedClient,
    pub(super) address: Option<IpAddr>,
    pub(super) class: Class,
}

/// TLS over TCP. Connections are accepted only while there is an identity.
pub struct Https {
    pub listener: TcpListener,
    /// The TLS identity of the daemon.
    pub identity: Arc<ServerIdentity>,
    /// Where it is on record that the identity is good.
    pub store: Store,
    /// How many unidentified connections one address may have.
    pub per_address_max: usize,
}

/// Plain TCP: all clients are strangers.
pub struct Http {
    pub listener: TcpListener,
    /// How many connections one address may have.
    pub per_address_max: usize,
}

/// The admin socket.
pub struct Admin<Admitted> {
    pub listener: UnixListener,
    /// The users that may use it; others get a refusal as answer.
    pub admitted: Admitted,
}

impl Listener for Https {
    type Socket = (TcpStream, Arc<ServerIdentity>, Store);
    type Stream = tokio_rustls::server::TlsStream<TcpStream>;

    async fn accept(&self) -> io::Result<(Self::Socket, Origin)> {
        let (stream, origin) = accept_tcp(&self.listener).await?;
        let identity = Arc::clone(&self.identity);
        Ok(((stream, identity, self.store.clone()), origin))
    }

    async fn begin(
        (stream, identity, store): Self::Socket,
        origin: Origin,
        activity: &Activity,
        edge: &Edge,
    ) -> Option<(Self::Stream, Peer)> {
        // Small answers must not wait for the client's acknowledgement.
        stream.set_nodelay(true).ok()?;
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream);
        let hello = hello.await.ok()?;
        activity.is(Worth::Handshake);
        // Asked only for a client that has begun: a silent connection costs no thread.
        let acceptor = tokio::task::spawn_blocking(move || identity.acceptor(&store));
        let acceptor = acceptor.await.ok()??;
        let stream = match hello.into_stream(Arc::clone(acceptor.config())).await {
            Ok(stream) => stream,
            Err(error) => {
                edge.tls_refused(origin.address, &error).await;
                return None;
            }
        };
        let certificates = stream.get_ref().1.peer_certificates();
        let keeps_chain = !edge.current.load().issuer().births().is_empty();
        let certificate = certificates.and_then(|chain| ClientCertificate::new(chain, keeps_chain));
        Some((stream, Peer::Network { certificate }))
    }

    fn limits(&self) -> [Limits; 2] {
        let identified = Limits {
            total: IDENTIFIED_MAX,
            per_client: PER_CERTIFICATE_MAX,
        };
        [strangers(self.per_address_max), identified]
    }
}

impl Listener for Http {
    type Socket = TcpStream;
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Origin)> {
        accept_tcp(&self.listener).await
    }

    async fn begin(
        stream: TcpStream,
        _: Origin,
        _: &Activity,
        _: &Edge,
    ) -> Option<(TcpStream, Peer)> {
        stream.set_nodelay(true).ok()?;
        Some((stream, Peer::Network { certificate: None }))
    }

    fn limits(&self) -> [Limits; 2] {
        let none = Limits {
            total: 0,
            per_client: 0,
        };
        [strangers(self.per_address_max), none]
    }
}

impl<Admitted: Fn(u32) -> bool + Clone + Send + Sync + 'static> Listener for Admin<Admitted> {
    type Socket = (UnixStream, Peer);
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(Self::Socket, Origin)> {
        let (stream, _) = self.listener.accept().await?;
        let uid = stream.peer_cred()?.uid();
        let admitted = self.admitted.clone();
        let admission = Admission::new(move || admitted(uid));
        let (class, peer) = if (self.admitted)(uid) {
            (Class::Local, Peer::Local { uid, admission })
        } else {
            (Class::Stranger, Peer::NotAdmitted { uid })
        };
        let origin = Origin {
            client: CountedClient::User(uid),
            address: None,
            class,
        };
        Ok(((stream, peer), origin))
    }

    async fn begin(
        socket: Self::Socket,
        _: Origin,
        _: &Activity,
        _: &Edge,
    ) -> Option<(UnixStream, Peer)> {
        Some(socket)
    }

    fn limits(&self) -> [Limits; 2] {
        [NOT_ADMITTED_LIMITS, LOCAL_LIMITS]
    }
}

async fn accept_tcp(listener: &TcpListener) -> io::Result<(TcpStream, Origin)> {
    let (stream, address) = listener.accept().await?;
    let address = address.ip().to_canonical();
    let origin = Origin {
        client: CountedClient::at(address),
        address: Some(address),
        class: Class::Stranger,
    };
    Ok((stream, origin))
}

fn strangers(per_address_max: usize) -> Limits {
    Limits {
        total: STRANGERS_MAX,
        per_client: per_address_max,
    }
}

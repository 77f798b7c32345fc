//! Opens the daemon's listeners: HTTPS, plain HTTP and the admin socket.
//!
//! systemd may hand listeners over ([`HandedOver`]) and keeps them while the daemon is restarted,
//! so that clients wait and are not refused. Such a listener is never unlinked here. The others are
//! bound.

use crate::api::listener::STRANGERS_MAX;
use crate::api::tls::ListenerName;
use crate::config::{Configuration, ConfigurationError, UNIDENTIFIED_CONNECTIONS_MAX};
use crate::files;
use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;

// The configuration bounds `connections_per_address` by the pool that the listeners have.
const _: () = assert!(UNIDENTIFIED_CONNECTIONS_MAX == STRANGERS_MAX);

/// Returns what the certificate of the HTTPS listener is made from, if there is such a listener.
pub(super) fn listener_name(configuration: &Configuration) -> Option<ListenerName> {
    let https = configuration.https.as_ref()?;
    Some(ListenerName {
        profile: https.profile.clone(),
        names: https.names.clone(),
        folder: configuration.state_dir.join("tls"),
    })
}

pub(super) struct Listeners {
    pub(super) https: Option<std::net::TcpListener>,
    pub(super) http: Option<std::net::TcpListener>,
    /// `None` while the disk is full or read-only.
    pub(super) admin: Option<UnixListener>,
}

impl Listeners {
    /// Takes what systemd has handed over, and binds the rest. Refuses when something was handed
    /// over that `[listen]` does not name: nothing would serve it.
    ///
    /// MUST be called before there are threads or children: the environment is emptied of it.
    pub(super) fn open(configuration: &Configuration) -> anyhow::Result<Self> {
        let mut handed_over = HandedOver::take()?;
        let https = configuration.https.as_ref().map(|it| it.address);
        let mut tcp = |address: Option<SocketAddr>| match address {
            None => Ok(None),
            Some(address) => match handed_over.tcp(address) {
                Some(listener) => Ok(Some(listener)),
                None => bind(address).map(Some),
            },
        };
        let https = tcp(https)?;
        let http = tcp(configuration.http)?;
        let admin = handed_over.unix(&configuration.admin);
        if let Some(admin) = &admin {
            admin.set_nonblocking(true)?;
        }
        handed_over.nothing_is_left()?;
        let admin = admin.map_or_else(|| bind_admin(&configuration.admin), Ok);
        let admin = match admin {
            Ok(listener) => Some(listener),
            Err(error) if is_of_the_disk(&error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "admin socket cannot be opened, retrying"
                );
                None
            }
            Err(error) => return Err(error),
        };
        Ok(Self { https, http, admin })
    }
}

/// Sockets that systemd has handed over, by address, until they are taken.
#[derive(Default)]
struct HandedOver {
    tcp: Vec<(SocketAddr, std::net::TcpListener)>,
    unix: Vec<(PathBuf, UnixListener)>,
}

impl HandedOver {
    fn take() -> anyhow::Result<Self> {
        let mut sockets = ListenFd::from_env();
        let mut taken = Self::default();
        for index in 0..sockets.len() {
            if let Ok(Some(listener)) = sockets.take_tcp_listener(index) {
                is_listening(&listener)?;
                taken.tcp.push((listener.local_addr()?, listener));
            } else if let Ok(Some(listener)) = sockets.take_unix_listener(index) {
                is_listening(&listener)?;
                let address = listener.local_addr()?;
                let path = address.as_pathname().unwrap_or(Path::new("")).to_owned();
                taken.unix.push((path, listener));
            } else {
                return Err(refusal(
                    "systemd hands over a socket that is neither TCP nor a Unix stream; give the \
                     socket unit ListenStream= lines only",
                ));
            }
        }
        Ok(taken)
    }

    fn tcp(&mut self, address: SocketAddr) -> Option<std::net::TcpListener> {
        let found = self.tcp.iter().position(|(bound, _)| *bound == address)?;
        Some(self.tcp.swap_remove(found).1)
    }

    fn unix(&mut self, path: &Path) -> Option<UnixListener> {
        let found = self.unix.iter().position(|(bound, _)| bound == path)?;
        Some(self.unix.swap_remove(found).1)
    }

    fn nothing_is_left(&self) -> anyhow::Result<()> {
        let tcp = self.tcp.iter().map(|(address, _)| address.to_string());
        let unix = self.unix.iter().map(|(path, _)| path.display().to_string());
        let left: Vec<String> = tcp.chain(unix).collect();
        if left.is_empty() {
            return Ok(());
        }
        Err(refusal(format!(
            "systemd hands over {}, and no `https`, `http` or `admin` of [listen] is that address; \
             make the ListenStream= lines of hallmarkd.socket and [listen] the same",
            left.join(" and ")
        )))
    }
}

fn is_listening(socket: impl AsFd) -> anyhow::Result<()> {
    if socket_acceptconn(socket)? {
        return Ok(());
    }
    Err(refusal(
        "systemd hands over a connection; give the socket unit Accept=no",
    ))
}

fn refusal(message: impl Into<String>) -> anyhow::Error {
    ConfigurationError::Contradiction(message.into()).into()
}

fn bind(address: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    std::net::TcpListener::bind(address).with_context(|| format!("cannot bind {address}"))
}

/// Returns true if the operation succeeds once the disk is writable and not full.
pub(super) fn is_of_the_disk(error: &anyhow::Error) -> bool {
    let errors = error
        .chain()
        .filter_map(|it| it.downcast_ref::<io::Error>());
    let mut kinds = errors.map(io::Error::kind);
    kinds.any(|kind| {
        matches!(
            kind,
            ErrorKind::ReadOnlyFilesystem | ErrorKind::StorageFull | ErrorKind::QuotaExceeded
        )
    })
}

pub(super) fn bind_admin(path: &Path) -> anyhow::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        files::make_folder(folder, 0o755)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    match fs::symlink_metadata(path) {
        // The lock on the state folder says that no daemon is there, but systemd may hold it.
        Ok(found) if found.file_type().is_socket() => match UnixStream::connect(path) {
            Ok(_) => bail!(
                "another process listens on {}; if it is hallmarkd.socket, start hallmarkd.service",
                path.display()
            ),
            Err(_) => files::remove(path)?,
        },
        Ok(_) => bail!("{} is in the way of the admin socket", path.display()),
        Err(_) => {}
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot bind {}", path.display()))?;
    // Peer credentials decide for each connection.
    files::set_mode(path, 0o666)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

pub(super) fn listening(
    listener: Option<std::net::TcpListener>,
) -> anyhow::Result<Option<TcpListener>> {
    let Some(listener) = listener else {
        return Ok(None);
    };
    listener.set_nonblocking(true)?;
    Ok(Some(TcpListener::from_std(listener)?))
}

pub(super) fn address(listener: Option<&TcpListener>) -> std::io::Result<Option<SocketAddr>> {
    listener.map(TcpListener::local_addr).transpose()
}

/// Admits root, the daemon's own user, and the users of the configuration.
pub(super) fn admission(
    users: Arc<ArcSwap<Vec<u32>>>,
) -> impl Fn(u32) -> bool + Clone + Send + Sync + 'static {
    let own = rustix::process::geteuid().as_raw();
    move |uid| uid == 0 || uid == own || users.load().contains(&uid)
}

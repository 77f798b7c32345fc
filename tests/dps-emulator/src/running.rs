//! The threads and listeners of one emulator.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::cloud::Cloud;
use crate::listener::{Peer, TlsListener};
use crate::options::Options;
use crate::tls::Identity;
use crate::{control, mqtt, server};

/// Where the listeners are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) https: SocketAddr,
    pub(crate) mqtt: SocketAddr,
    pub(crate) control: SocketAddr,
}

/// A runtime of its own, so that a test may block its threads. Stops when dropped, also when the
/// start fails half-way.
#[derive(Debug)]
pub(crate) struct Running {
    runtime: Option<Runtime>,
}

impl Running {
    /// Open all listeners and serve.
    pub(crate) fn start(
        options: Options,
        cloud: Arc<Cloud>,
        identity: Identity,
    ) -> Result<(Self, Addresses)> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let (started, ready) = oneshot::channel();
        runtime.spawn(async move {
            // The receiver waits below for exactly this message.
            drop(started.send(listen(options, cloud, identity).await));
        });
        let running = Self {
            runtime: Some(runtime),
        };
        let addresses = wait(ready)?;
        Ok((running, addresses))
    }
}

impl Drop for Running {
    /// Stops all tasks at once; requests under way lose their connection. Never blocks: that would
    /// panic inside a caller's own runtime.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Wait for the listeners on a thread of our own: the caller may be inside a runtime that forbids
/// blocking.
fn wait(ready: oneshot::Receiver<Result<Addresses>>) -> Result<Addresses> {
    let waiter = thread::spawn(move || ready.blocking_recv());
    let listening = waiter
        .join()
        .map_err(|_| anyhow::anyhow!("the waiting thread panicked"))?;
    listening.context("the emulator stopped while it started")?
}

async fn listen(options: Options, cloud: Arc<Cloud>, identity: Identity) -> Result<Addresses> {
    let https = bind(options.listen, "HTTPS").await?;
    let mqtt = bind(options.mqtt_listen, "MQTT").await?;
    let control = bind(options.control_listen, "control").await?;
    let addresses = Addresses {
        https: https.local_addr()?,
        mqtt: mqtt.local_addr()?,
        control: control.local_addr()?,
    };
    let tls = TlsListener::new(https, identity.server_config(&[b"http/1.1"])?)?;
    let planes = server::router(Arc::clone(&cloud)).into_make_service_with_connect_info::<Peer>();
    tokio::spawn(async move { axum::serve(tls, planes).await });
    let tls = TlsListener::new(mqtt, identity.server_config(&[])?)?;
    tokio::spawn(mqtt::serve(tls, Arc::clone(&cloud)));
    tokio::spawn(async move { axum::serve(control, control::router(cloud)).await });
    Ok(addresses)
}

async fn bind(address: SocketAddr, what: &str) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("listen for {what} on {address}"))
}

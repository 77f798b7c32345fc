//! `hallmarkd serve`: puts the parts together, runs them, and takes them down in order.
//!
//! It owns the database, starts a worker for each token where systemd does not, and loads no token
//! library itself. The application is sync; the loops here are the one place where it is driven.

mod admin_socket;
mod application;
mod changes;
mod listeners;
mod reconcilers;
mod reload;
mod report;
mod token_keys;
mod tokens;

pub use reload::read;
pub use token_keys::token_keys;
pub use tokens::Workers;

use crate::api::listener::{Http, Https};
use crate::api::reload::RELOADS_WAITING_MAX;
use crate::api::server::serve_behind;
use crate::api::tls::ServerIdentity;
use crate::api::{Addresses, Edge};
use crate::ca::{CertificateAuthority, ConfiguredToken, CurrentAuthority, Parts};
use crate::config::Configuration;
use crate::files;
use crate::notify::Systemd;
use crate::store::Store;
use crate::token::probe::probes;
use admin_socket::AdminSocket;
use anyhow::{Context, bail};
use application::Application;
use arc_swap::ArcSwap;
use listeners::{Listeners, address, admission, listener_name, listening};
use reconcilers::{Bells, Reconcilers, clients};
use report::Report;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokens::Tokens;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// At a stop: how long work in hand is waited for. With what follows, and what a worker takes to
/// end, a stop takes less than 10 seconds.
const STOP_WORK: Duration = Duration::from_secs(6);
/// At a stop: how long threads that still wait for somebody may take, whom nothing tells to hurry.
const STOP_BLOCKED: Duration = Duration::from_secs(1);

/// Runs the daemon until SIGTERM or SIGINT.
pub fn serve(configuration: Configuration, workers: Workers) -> anyhow::Result<()> {
    raise_descriptor_limit();
    let _lock = take_state(&configuration.state_dir)?;
    let listeners = Listeners::open(&configuration)?;
    let store = Store::open(&configuration.state_dir.join("hallmark.db"))
        .context("cannot open the database")?;
    let tokens = Tokens::start(&configuration, workers)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut daemon = {
        let _inside = runtime.enter();
        Daemon::start(configuration, store.clone(), tokens)?
    };
    let served = runtime.block_on(daemon.run(listeners));
    // A signature under way was waited for; what a worker holds up still is not.
    daemon.tokens.end();
    runtime.shutdown_timeout(STOP_BLOCKED);
    if let Err(error) = store.checkpoint() {
        tracing::warn!(%error, "write-ahead log not merged into the database");
    }
    served
}

/// Lets the process open as many files as it may: each connection is one. A unit has set the limit
/// already.
fn raise_descriptor_limit() {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limits.maximum,
        ..limits
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays");
    }
}

/// One daemon to a state folder: the lock lasts as long as the file is open. The folder itself is
/// locked, because no file can be made in it while its disk is full or read-only.
///
/// A daemon does not run as root in another user's folder.
pub(crate) fn take_state(folder: &Path) -> anyhow::Result<File> {
    if let Some(owner) = files::owner_of(folder)? {
        bail!(
            "{} belongs to user {}: run the daemon as that user, or chown the folder",
            folder.display(),
            owner.uid()
        );
    }
    files::make_folder(folder, 0o700)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let lock = files::open_folder(folder);
    let lock = lock.with_context(|| format!("cannot open {}", folder.display()))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("another daemon has {}; stop it first", folder.display());
    }
    Ok(lock)
}

/// What runs, and under which configuration.
struct Daemon {
    configuration: Configuration,
    store: Store,
    tokens: Tokens,
    current: CurrentAuthority,
    identity: Option<Arc<ServerIdentity>>,
    admin_users: Arc<ArcSwap<Vec<u32>>>,
    reconcilers: Reconcilers,
    bells: Bells,
    /// The service manager, if there is one.
    systemd: Option<Arc<Systemd>>,
}

impl Daemon {
    /// Inside the runtime.
    fn start(configuration: Configuration, store: Store, tokens: Tokens) -> anyhow::Result<Self> {
        let bells = Bells::new(tokens.news.clone(), tokens.records.clone());
        let told = bells.clone();
        store.tell_turns_to(move || told.ring());
        let keys = token_keys(tokens.configured.values().map(|token| &token.client));
        let clients = clients(&configuration, &keys)?;
        let parts = parts(&configuration, tokens.configured.clone(), &store, &bells);
        let ca = Arc::new(CertificateAuthority::start(parts)?);
        let identity = listener_name(&configuration);
        let identity = identity.map(|name| Arc::new(ServerIdentity::load(name)));
        if let Some(identity) = &identity {
            ca.note_https(identity.state(ca.store()));
        }
        Ok(Self {
            identity,
            admin_users: Arc::new(ArcSwap::from_pointee(configuration.admin_users.clone())),
            reconcilers: Reconcilers::start(&configuration, &ca, clients, &bells),
            current: Arc::new(ArcSwap::new(ca)),
            configuration,
            store,
            tokens,
            bells,
            systemd: Systemd::here().map(Arc::new),
        })
    }

    /// Serves until a signal says that it is enough.
    async fn run(&mut self, listeners: Listeners) -> anyhow::Result<()> {
        let mut signals = Signals::new()?;
        let (stopping, stop) = watch::channel(false);
        let (reloads, mut reload_requests) = mpsc::channel(RELOADS_WAITING_MAX);
        let (https, http) = (listening(listeners.https)?, listening(listeners.http)?);
        let addresses = Addresses {
            https: address(https.as_ref())?,
            http: address(http.as_ref())?,
        };
        let edge = Edge::new(self.current.clone(), addresses, stop.clone(), reloads);
        let router = edge.clone().router();
        let mut tasks: Vec<JoinHandle<()>> = Vec::new();
        let per_address_max = self.configuration.connections_per_address;
        if let (Some(listener), Some(identity)) = (https, self.identity.clone()) {
            let door = Https {
                listener,
                identity,
                per_address_max,
                store: self.store.clone(),
            };
            let served = serve_behind(door, router.clone(), edge.clone(), stop.clone());
            tasks.push(tokio::spawn(served));
        }
        if let Some(listener) = http {
            let door = Http {
                listener,
                per_address_max,
            };
            let router = edge.clone().public_router();
            let served = serve_behind(door, router, edge.clone(), stop.clone());
            tasks.push(tokio::spawn(served));
        }
        let admin = AdminSocket {
            path: self.configuration.admin.clone(),
            current: self.current.clone(),
            admitted: admission(self.admin_users.clone()),
            is_open: Arc::default(),
        };
        let admin_is_open = admin.is_open.clone();
        let (served, stopped) = (edge.clone(), stop.clone());
        tasks.push(tokio::spawn(async move {
            if let Some(door) = admin.door(listeners.admin, stopped.clone()).await {
                serve_behind(door, router, served, stopped).await;
            }
        }));
        if let Some(systemd) = self.systemd.clone() {
            let report = Report {
                systemd,
                current: self.current.clone(),
                news: self.tokens.news.clone(),
                addresses,
                admin: self.configuration.admin.clone(),
                admin_is_open,
            };
            tasks.push(tokio::spawn(report.run(stop.clone())));
        }
        let identity = self.identity.clone();
        let application = Application::new(self.current.clone(), identity, &self.bells);
        tasks.push(tokio::spawn(application.run(stop.clone())));
        tracing::info!(?addresses, version = env!("CARGO_PKG_VERSION"), "serving");
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
                _ = signals.hang_up.recv() => {
                    // Whoever sent the signal reads the answer in the log.
                    let _ = self.reload("signal SIGHUP").await;
                }
                Some(request) = reload_requests.recv() => {
                    let reloaded = self.reload(&request.actor).await;
                    // Whoever asked may have gone meanwhile.
                    let _ = request.answer.send(reloaded);
                }
            }
        }
        tracing::info!("stopping");
        stopping.send_replace(true);
        drop(reload_requests);
        let work = async {
            self.reconcilers.end().await;
            for task in tasks {
                // A task that panicked has said so already.
                let _ = task.await;
            }
            edge.is_idle().await;
        };
        if tokio::time::timeout(STOP_WORK, work).await.is_err() {
            tracing::warn!("work not finished at the stop deadline");
        }
        Ok(())
    }
}

/// What the configuration means to the certificate authority.
fn parts(
    configuration: &Configuration,
    tokens: BTreeMap<String, ConfiguredToken>,
    store: &Store,
    bells: &Bells,
) -> Parts {
    let (bells, records) = (bells.clone(), bells.records.clone());
    Parts {
        store: store.clone(),
        tokens,
        authorities: configuration.authorities.clone(),
        failover: configuration.failover.clone(),
        profiles: configuration.profiles.clone(),
        stations: configuration.stations.clone(),
        est_profile: configuration.est_profile.clone(),
        est_line_breaks: configuration.est_line_breaks,
        provisioning: configuration.provisioning.keys().cloned().collect(),
        verified: configuration.verified(),
        authority_policy: configuration.authority_policy.clone(),
        push_age_alarm_seconds: configuration.push_age_alarm_seconds,
        hubs: configuration.hubs(),
        rolling: configuration.rolling.clone(),
        probes: probes(configuration.tokens.values()),
        crl_schedule: configuration.crl_schedule,
        clock: configuration.clock.clone(),
        backups_kept: configuration.backups_kept,
        public_http: configuration.public_http.clone(),
        wake: Box::new(move || bells.ring()),
        wake_lists: Box::new(move || records.notify_one()),
    }
}

/// What the daemon is told by signals.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

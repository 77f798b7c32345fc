//! Runs `hallmarkd serve`: starts the parts, serves, and stops the parts in order.
//!
//! The daemon owns the database, starts a worker for each token where systemd does not, and loads
//! no token library itself. The application is sync; the loops here alone drive it.

mod admin_socket;
mod application;
mod changes;
mod journal_keeper;
mod listeners;
mod private_files;
mod reconcilers;
mod reload;
mod report;
mod surroundings;
mod token_keys;
mod tokens;

pub use private_files::check_files;
pub use reload::read;
pub use surroundings::credentials;
pub use token_keys::token_keys;
pub use tokens::Workers;

use crate::api::listener::{Http, Https};
use crate::api::reload::{RELOADS_WAITING_MAX, ReloadRequest};
use crate::api::server::serve_behind;
use crate::api::tls::ServerIdentity;
use crate::api::{Addresses, Edge};
use crate::ca::{
    Callbacks, CertificateAuthority, Config, ConfiguredToken, CurrentAuthority, Settings,
};
use crate::config::Configuration;
use crate::console::with_console;
use crate::files;
use crate::notify::Systemd;
use crate::store::Store;
use crate::token::probe::probes;
use admin_socket::AdminSocket;
use anyhow::{Context, bail};
use application::Application;
use arc_swap::ArcSwap;
use listeners::{Listeners, address, admission, listener_name, listening};
use reconcilers::{Reconcilers, Wakers, clients};
use report::Report;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokens::Tokens;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// At a stop: how long the work that has begun may take. With [`STOP_BLOCKED`] and the end of the
/// workers, a stop takes less than 10 seconds.
const STOP_WORK: Duration = Duration::from_secs(6);
/// At a stop: how long blocked threads may take after that.
const STOP_BLOCKED: Duration = Duration::from_secs(1);

/// Runs the daemon until SIGTERM or SIGINT.
pub fn serve(configuration: Configuration, workers: Workers) -> anyhow::Result<()> {
    crate::measured::started();
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
    // Signatures have ended; calls that hang in a worker are not waited for.
    daemon.tokens.end();
    runtime.shutdown_timeout(STOP_BLOCKED);
    if let Err(error) = store.checkpoint() {
        tracing::warn!(%error, "write-ahead log not merged into the database");
    }
    served
}

/// Raises the limit of open files to its maximum: each connection is one. A unit has set the limit
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

/// Locks the state folder while the returned file is open: one daemon to a folder. The folder
/// itself is locked, because no file can be made in it while its disk is full or read-only.
///
/// Refuses to run as root in another user's folder.
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

/// The running parts, and their configuration.
struct Daemon {
    configuration: Configuration,
    store: Store,
    tokens: Tokens,
    current: CurrentAuthority,
    identity: Option<Arc<ServerIdentity>>,
    admin_users: Arc<ArcSwap<Vec<u32>>>,
    reconcilers: Reconcilers,
    wakers: Wakers,
    /// The service manager, if there is one.
    systemd: Option<Arc<Systemd>>,
}

impl Daemon {
    /// Starts the parts, inside the runtime.
    fn start(configuration: Configuration, store: Store, tokens: Tokens) -> anyhow::Result<Self> {
        let wakers = Wakers::new(tokens.state_changed.clone(), tokens.records.clone());
        let woken = wakers.clone();
        store.on_state_change(move || woken.wake_all());
        let keys = token_keys(tokens.configured.values().map(|token| &token.client));
        let clients = clients(&configuration, &keys)?;
        let config = ca_config(&configuration, tokens.configured.clone(), &store, &wakers);
        let ca = Arc::new(CertificateAuthority::start(config)?);
        ca.backups().remove_unfinished();
        let identity = listener_name(&configuration);
        let identity = identity.map(|name| Arc::new(ServerIdentity::load(name)));
        if let Some(identity) = &identity {
            ca.note_https(identity.state(ca.store()));
        }
        Ok(Self {
            identity,
            admin_users: Arc::new(ArcSwap::from_pointee(configuration.admin_users.clone())),
            reconcilers: Reconcilers::start(&configuration, &ca, clients, &wakers),
            current: Arc::new(ArcSwap::new(ca)),
            configuration,
            store,
            tokens,
            wakers,
            systemd: Systemd::here().map(Arc::new),
        })
    }

    /// Serves until SIGTERM or SIGINT.
    async fn run(&mut self, listeners: Listeners) -> anyhow::Result<()> {
        let mut signals = Signals::new()?;
        let (stopping, stop) = watch::channel(false);
        let (reloads, mut reload_requests) = mpsc::channel(RELOADS_WAITING_MAX);
        let https = listening(listeners.https)?;
        let http = listening(listeners.http)?;
        let addresses = Addresses {
            https: address(https.as_ref())?,
            http: address(http.as_ref())?,
        };
        let edge = Edge::new(self.current.clone(), addresses, stop.clone(), reloads);
        let admin = AdminSocket {
            path: self.configuration.admin.clone(),
            current: self.current.clone(),
            admitted: admission(self.admin_users.clone()),
            is_open: Arc::default(),
        };
        let report = self.report(addresses, admin.is_open.clone());
        let mut tasks = self.serve_network(https, http, &edge, &stop);
        let served = edge.clone();
        let stopped = stop.clone();
        tasks.push(tokio::spawn(async move {
            if let Some(listener) = admin.listener(listeners.admin, stopped.clone()).await {
                let router = with_console(served.clone().router(), stopped.clone());
                serve_behind(listener, router, served, stopped).await;
            }
        }));
        tasks.extend(report.map(|it| tokio::spawn(it.run(stop.clone()))));
        let identity = self.identity.clone();
        let application = Application::new(self.current.clone(), identity, &self.wakers);
        tasks.push(tokio::spawn(application.run(stop.clone())));
        let keeper = journal_keeper::run(self.current.clone(), stop.clone());
        tasks.push(tokio::spawn(keeper));
        tracing::info!(?addresses, version = env!("CARGO_PKG_VERSION"), "serving");
        self.reload_until_stopped(&mut signals, &mut reload_requests)
            .await;
        tracing::info!("stopping");
        stopping.send_replace(true);
        drop(reload_requests);
        self.finish(tasks, &edge).await;
        Ok(())
    }

    /// Serves HTTPS and plain HTTP, where the configuration has them.
    fn serve_network(
        &self,
        https: Option<TcpListener>,
        http: Option<TcpListener>,
        edge: &Edge,
        stop: &watch::Receiver<bool>,
    ) -> Vec<JoinHandle<()>> {
        let mut tasks = Vec::new();
        let per_address_max = self.configuration.connections_per_address;
        if let (Some(listener), Some(identity)) = (https, self.identity.clone()) {
            let listener = Https {
                listener,
                identity,
                per_address_max,
                store: self.store.clone(),
            };
            let router = with_console(edge.clone().router(), stop.clone());
            let served = serve_behind(listener, router, edge.clone(), stop.clone());
            tasks.push(tokio::spawn(served));
        }
        if let Some(listener) = http {
            let listener = Http {
                listener,
                per_address_max,
            };
            let router = edge.clone().public_router();
            let served = serve_behind(listener, router, edge.clone(), stop.clone());
            tasks.push(tokio::spawn(served));
        }
        tasks
    }

    /// Returns the reports to systemd, if the daemon is its service.
    fn report(&self, addresses: Addresses, admin_is_open: Arc<AtomicBool>) -> Option<Report> {
        Some(Report {
            systemd: self.systemd.clone()?,
            current: self.current.clone(),
            state_changed: self.tokens.state_changed.clone(),
            addresses,
            admin: self.configuration.admin.clone(),
            admin_is_open,
        })
    }

    /// Handles reloads until SIGTERM or SIGINT.
    async fn reload_until_stopped(
        &mut self,
        signals: &mut Signals,
        requests: &mut mpsc::Receiver<ReloadRequest>,
    ) {
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return,
                _ = signals.interrupt.recv() => return,
                _ = signals.hang_up.recv() => {
                    // The sender of a signal reads the answer in the log.
                    let _ = self.reload("signal SIGHUP").await;
                }
                Some(request) = requests.recv() => {
                    let reloaded = self.reload(&request.actor).await;
                    // The client may have hung up.
                    let _ = request.answer.send(reloaded);
                }
            }
        }
    }

    /// Waits for the work that has begun, for [`STOP_WORK`] at most.
    async fn finish(&mut self, tasks: Vec<JoinHandle<()>>, edge: &Edge) {
        let work = async {
            self.reconcilers.end().await;
            for task in tasks {
                // The log has the message of a task that panicked.
                let _ = task.await;
            }
            edge.is_idle().await;
            journal_keeper::close(self.current.clone()).await;
        };
        if tokio::time::timeout(STOP_WORK, work).await.is_err() {
            tracing::warn!("work not finished at the stop deadline");
        }
    }
}

/// Takes the settings of the certificate authority from the configuration.
fn ca_config(
    configuration: &Configuration,
    tokens: BTreeMap<String, ConfiguredToken>,
    store: &Store,
    wakers: &Wakers,
) -> Config {
    let records = wakers.records.clone();
    let wakers = wakers.clone();
    Config {
        store: store.clone(),
        tokens,
        issuer: configuration.issuer.clone(),
        callbacks: Callbacks {
            desired_changed: Box::new(move || wakers.wake_all()),
            crl_due: Box::new(move || records.notify_one()),
        },
        settings: Settings {
            est: configuration.est.clone(),
            services: configuration.services(),
            rollovers: configuration.rollovers.clone(),
            push_age_alarm_seconds: configuration.push_age_alarm_seconds,
            probes: probes(configuration.tokens.values()),
            crl_schedule: configuration.crl_schedule.clone(),
            approvals: configuration.approvals.clone(),
            backups: configuration.backups.clone(),
            revocations_kept_seconds: configuration.revocations_kept_seconds,
        },
    }
}

/// The signals that the daemon handles.
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

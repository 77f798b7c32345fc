//! `hallmarkd serve`: puts the parts together, runs them, and takes them down in order.
//!
//! It owns the database, starts a worker for each token where systemd does not, and loads no token
//! library itself. The application is sync; the loops here are the one place where it is driven.

use crate::api::server::{Admin, Http, Https, serve_behind};
use crate::api::tls::{ServerIdentity, ServerName};
use crate::api::{Addresses, Api};
use crate::ca::{CertificateAuthority, ConfiguredToken, Error, Parts, TokenTraits};
use crate::config::Configuration;
use crate::credentials::token_keys;
use crate::provisioning::reconcile::Reconciler;
use crate::store::Store;
use crate::token::client::TokenClient;
use crate::token::probe::probes;
use crate::token::supervisor::{Supervisor, WorkerCommand};
use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// How often rolls, codes and the TLS certificate are looked at without being woken.
const TICK: Duration = Duration::from_secs(30);
/// How long after a failure the application is driven again.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// Runs the daemon until SIGTERM or SIGINT.
pub fn serve(configuration: Configuration) -> anyhow::Result<()> {
    let _lock = take_state(&configuration.state_dir)?;
    let store = Store::open(&configuration.state_dir.join("hallmark.db"))
        .context("cannot open the database")?;
    let tokens = start_tokens(&configuration)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let daemon = Daemon::start(&configuration, store.clone(), &tokens)?;
    let served = runtime.block_on(daemon.run());
    // Requests in hand have been answered; what blocks still is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    if let Err(error) = store.checkpoint() {
        tracing::warn!(%error, "the write-ahead log stays beside the database");
    }
    served
}

/// The tokens, and the supervisors of their workers.
struct Tokens {
    configured: BTreeMap<String, ConfiguredToken>,
    _supervisors: Vec<Supervisor>,
}

/// One daemon to a state folder: the lock lasts as long as the file is open.
fn take_state(folder: &Path) -> anyhow::Result<File> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let lock = File::create(folder.join("lock"))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("another daemon has {}; stop it first", folder.display());
    }
    Ok(lock)
}

fn start_tokens(configuration: &Configuration) -> anyhow::Result<Tokens> {
    let (mut configured, mut supervisors) = (BTreeMap::new(), Vec::new());
    for (name, token) in &configuration.tokens {
        let socket = configuration.worker_socket(name);
        let client = TokenClient::new(name, socket.clone());
        let command = worker_command(configuration, name, socket)?;
        supervisors.push(Supervisor::start(client.clone(), command));
        let (sign_deadline, family) = (token.sign_deadline, token.interface.family());
        configured.insert(
            name.clone(),
            ConfiguredToken {
                client,
                sign_deadline,
                traits: TokenTraits {
                    family: family.map_or("TPM 2.0".to_owned(), |it| it.family.clone()),
                    label: token.label.clone(),
                    serial: token.serial.clone(),
                    tells_local: family.is_none_or(|it| it.tells_local),
                    sessions: token.sessions,
                },
            },
        );
    }
    Ok(Tokens {
        configured,
        _supervisors: supervisors,
    })
}

/// How the worker of the token `name` is started: this program, with this configuration.
pub(crate) fn worker_command(
    configuration: &Configuration,
    name: &str,
    socket: PathBuf,
) -> anyhow::Result<WorkerCommand> {
    let environment = configuration
        .tokens
        .get(name)
        .map(|token| token.environment.clone());
    let file = configuration.file.clone().into_os_string();
    Ok(WorkerCommand {
        program: std::env::current_exe().context("cannot find this program")?,
        arguments: vec!["token".into(), name.into(), "--config".into(), file],
        socket,
        environment: environment.unwrap_or_default(),
    })
}

struct Daemon {
    ca: Arc<CertificateAuthority>,
    identity: Option<Arc<ServerIdentity>>,
    https: Option<std::net::TcpListener>,
    http: Option<std::net::TcpListener>,
    admin: std::os::unix::net::UnixListener,
    admin_users: Vec<u32>,
    reconcilers: Vec<Reconciler>,
    /// Rung when the application has something to do.
    wake: Arc<Notify>,
}

impl Daemon {
    fn start(configuration: &Configuration, store: Store, tokens: &Tokens) -> anyhow::Result<Self> {
        let wake = Arc::new(Notify::new());
        let mut bells = vec![wake.clone()];
        let services: Vec<_> = configuration
            .provisioning
            .values()
            .map(|it| (it, [(); 3].map(|()| Arc::new(Notify::new()))))
            .collect();
        for (_, service_bells) in &services {
            bells.extend(service_bells.iter().cloned());
        }
        let ca = Arc::new(CertificateAuthority::start(Parts {
            store,
            tokens: tokens.configured.clone(),
            authorities: configuration.authorities.clone(),
            failover: configuration.failover.clone(),
            profiles: configuration.profiles.clone(),
            provisioning: configuration.provisioning.keys().cloned().collect(),
            verified: configuration.verified(),
            authority_policy: configuration.authority_policy.clone(),
            push_age_alarm_seconds: configuration.push_age_alarm_seconds,
            hubs: configuration.hubs(),
            rolling: configuration.rolling.clone(),
            probes: probes(configuration.tokens.values()),
            crl_schedule: configuration.crl_schedule,
            public_http: configuration.public_http.clone(),
            wake: Box::new(move || bells.iter().for_each(|bell| bell.notify_one())),
        })?);
        let keys = token_keys(tokens.configured.values().map(|token| &token.client));
        let mut reconcilers = Vec::new();
        for (service, [bell, hub_bell, canary_bell]) in services {
            reconcilers.push(Reconciler {
                name: service.name.clone(),
                ca: ca.clone(),
                clients: service.clients(&keys)?,
                drift: configuration.drift,
                scan_interval: configuration.scan_interval,
                wake: bell,
                hub_wake: hub_bell,
                canary_wake: canary_bell,
                observed: wake.clone(),
            });
        }
        Ok(Self {
            identity: configuration.https.as_ref().map(|https| {
                Arc::new(ServerIdentity::load(ServerName {
                    profile: https.profile.clone(),
                    names: https.names.clone(),
                    folder: configuration.state_dir.join("tls"),
                }))
            }),
            https: bind(configuration.https.as_ref().map(|it| it.address))?,
            http: bind(configuration.http)?,
            admin: bind_admin(&configuration.admin)?,
            admin_users: configuration.admin_users.clone(),
            ca,
            reconcilers,
            wake,
        })
    }

    async fn run(self) -> anyhow::Result<()> {
        let (stopping, stop) = watch::channel(false);
        let (https, http) = (listening(self.https)?, listening(self.http)?);
        let addresses = Addresses {
            https: address(https.as_ref())?,
            http: address(http.as_ref())?,
        };
        let api = Api::new(self.ca.clone(), addresses);
        let router = api.clone().router();
        let mut tasks: Vec<JoinHandle<()>> = Vec::new();
        if let (Some(listener), Some(identity)) = (https, self.identity.clone()) {
            let door = Https { listener, identity };
            tasks.push(tokio::spawn(serve_behind(
                door,
                router.clone(),
                stop.clone(),
            )));
        }
        if let Some(listener) = http {
            let router = api.public_router();
            tasks.push(tokio::spawn(serve_behind(
                Http { listener },
                router,
                stop.clone(),
            )));
        }
        self.admin.set_nonblocking(true)?;
        let door = Admin {
            listener: UnixListener::from_std(self.admin)?,
            admitted: admission(self.admin_users),
        };
        tasks.push(tokio::spawn(serve_behind(door, router, stop.clone())));
        let application = Application {
            ca: self.ca,
            identity: self.identity,
            wake: self.wake,
            alarms: Mutex::default(),
        };
        tasks.push(tokio::spawn(application.run(stop.clone())));
        for reconciler in self.reconcilers {
            tasks.push(tokio::spawn(reconciler.run(stop.clone())));
        }
        tracing::info!(?addresses, version = env!("CARGO_PKG_VERSION"), "serving");
        stop_signal().await?;
        tracing::info!("stopping");
        stopping.send_replace(true);
        for task in tasks {
            // A task that panicked has said so already.
            let _ = task.await;
        }
        Ok(())
    }
}

/// What the application does by itself: the TLS certificate, wanted CA certificates, codes to sign,
/// revocation lists, rolls to advance.
struct Application {
    ca: Arc<CertificateAuthority>,
    identity: Option<Arc<ServerIdentity>>,
    wake: Arc<Notify>,
    /// What was last logged; said again only when it changes.
    alarms: Mutex<Vec<String>>,
}

impl Application {
    async fn run(self, mut stop: watch::Receiver<bool>) {
        let this = Arc::new(self);
        loop {
            let turn = this.clone();
            let pause = match tokio::task::spawn_blocking(move || turn.turn()).await {
                Ok(pause) => pause,
                Err(_) => FAILURE_PAUSE,
            };
            let stopping = tokio::select! {
                () = this.wake.notified() => false,
                () = tokio::time::sleep(pause) => false,
                _ = stop.wait_for(|stop| *stop) => true,
            };
            if stopping {
                // What was only counted is not lost with an orderly stop.
                let last = move || this.ca.record_counted_refusals(true);
                let _ = tokio::task::spawn_blocking(last).await;
                return;
            }
        }
    }

    /// Logs alarms as they come and go.
    fn tell_alarms(&self) {
        let alarms = self.ca.alarms();
        let alarms = alarms.unwrap_or_else(|error| vec![format!("alarms cannot be told: {error}")]);
        let mut told = self.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        for alarm in alarms.iter().filter(|alarm| !told.contains(alarm)) {
            tracing::error!(alarm, "alarm");
        }
        if alarms.is_empty() && !told.is_empty() {
            tracing::info!("all alarms are over");
        }
        *told = alarms;
    }

    /// Everything once; returns how long it can rest.
    fn turn(&self) -> Duration {
        self.tell_alarms();
        self.ca.record_counted_refusals(false);
        if self.ca.hierarchy().is_empty() {
            return TICK;
        }
        let mut pause = TICK;
        let mut note = |what: &str, result: Result<(), Error>| {
            if let Err(error) = result {
                tracing::warn!(what, code = error.code, %error, "to be tried again");
                pause = FAILURE_PAUSE;
            }
        };
        note("abandoned intents", self.ca.burn_left_over());
        if let Some(identity) = &self.identity {
            note("TLS certificate", identity.renew(&self.ca));
        }
        note("CA certificates", self.ca.want_verified());
        note("finished work", self.ca.forget_finished_hub_tasks());
        note("proof of possession", self.ca.prove_possession().map(drop));
        let mut next_due: Vec<i64> = Vec::new();
        for (what, due) in [
            // What goes on hold now is on the list that is signed next.
            ("blocks", self.ca.advance_blocks()),
            ("stand-ins", self.ca.prove_stand_ins()),
            ("revocation lists", self.ca.update_crls()),
            ("rolls", self.ca.advance_rolls()),
        ] {
            note(what, due.map(|due| next_due.extend(due)));
        }
        for due in next_due {
            let seconds = u64::try_from(due - self.ca.now()).unwrap_or(0).max(1);
            pause = pause.min(Duration::from_secs(seconds));
        }
        pause
    }
}

fn bind(address: Option<SocketAddr>) -> anyhow::Result<Option<std::net::TcpListener>> {
    let listener = address.map(|address| {
        std::net::TcpListener::bind(address).with_context(|| format!("cannot bind {address}"))
    });
    listener.transpose()
}

/// Inside the runtime.
fn listening(listener: Option<std::net::TcpListener>) -> anyhow::Result<Option<TcpListener>> {
    let Some(listener) = listener else {
        return Ok(None);
    };
    listener.set_nonblocking(true)?;
    Ok(Some(TcpListener::from_std(listener)?))
}

fn address(listener: Option<&TcpListener>) -> std::io::Result<Option<SocketAddr>> {
    listener.map(TcpListener::local_addr).transpose()
}

/// Root, the daemon's own user, and whom the configuration names.
fn admission(users: Vec<u32>) -> impl Fn(u32) -> bool + Send + Sync + 'static {
    let own = rustix::process::geteuid().as_raw();
    move |uid| uid == 0 || uid == own || users.contains(&uid)
}

fn bind_admin(path: &PathBuf) -> anyhow::Result<std::os::unix::net::UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    // A socket that a killed daemon left: the lock on the state folder says that it is dead.
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => bail!("{} is in the way of the admin socket", path.display()),
        Err(_) => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(path)
        .with_context(|| format!("cannot bind {}", path.display()))?;
    // Who may is judged by peer credentials, one by one.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

async fn stop_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

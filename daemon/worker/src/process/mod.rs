//! Runs the worker process of one token: `hallmark-token token NAME`.
//!
//! Only this process loads the vendor's library and holds the PIN. It has plain threads and no
//! tokio: one reader and one sender of health per connection, a bounded queue, N signers with a
//! session each, a prober that recovers the token without requests, and a watchdog. It keeps
//! running when the token fails, answers with the reason, and keeps trying.
//!
//! It ends on SIGTERM, when its parent has ended, by its own watchdog, or when recovery needs a new
//! process. Before an orderly end it joins the signers and finalizes the module: SoftHSM crashes a
//! process that ends with a thread inside.

mod connection;
mod deadline_timer;
mod health_cell;
#[cfg(any(test, debug_assertions))]
pub mod in_memory;
mod late_answers;
mod login;
mod queue;
mod recovery;
mod service_watchdog;
mod session_pool;
mod signer;
mod used_keys;
mod watchdog;

use crate::backend::Backend;
use crate::initialize::{go_on_as, token_folder_owner};
use crate::pin::{PinGuard, read_pin};
use crate::pkcs11::Pkcs11Backend;
use crate::pkcs11::environment::SOFTHSM_CONF;
use crate::tpm::TpmBackend;
use crate::wall::{Rules, Wall};
use anyhow::{Context, bail};
pub(crate) use connection::HandedOver;
use connection::{RequestDispatcher, Socket};
use hallmark_base::files::{self, Owner};
use hallmark_base::notify::ServiceManager;
use hallmark_base::process_memory;
use hallmark_protocol::TokenError;
use hallmark_protocol::configuration::{Interface, TokenConfiguration, TokenSettings};
use hallmark_protocol::frame_writer::FrameWriter;
use hallmark_protocol::limits::SigningRules;
use hallmark_protocol::message::{DEADLINE_MAX, Message, Response, TokenRequest};
use hallmark_protocol::operation::{Answer, Operation};
use late_answers::LateAnswers;
use login::TokenLogin;
use queue::{Expires, Queue};
use recovery::Recovery;
use secrecy::SecretString;
use service_watchdog::{WatchdogPing, report_health};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signer::SignerThread;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use watchdog::Watchdog;

/// Most jobs in the queue. A client has no more requests in flight (`IN_FLIGHT_MAX`), so the queue
/// refuses some only if several clients are connected.
const QUEUE_JOBS_MAX: usize = 1024;

/// How long a probe may take: it waits for running operations, and then recovers.
const PROBE_DEADLINE: Duration = DEADLINE_MAX.saturating_add(recovery::RENEWAL_DEADLINE);

/// The options of a worker.
pub(crate) struct WorkerOptions {
    pub(crate) configuration: TokenConfiguration,
    /// The bounds of its signatures, and the file that they are from.
    pub(crate) rules: SigningRules,
    pub(crate) file: PathBuf,
    /// The Unix socket to listen on, if it is not the usual one.
    pub(crate) socket: Option<PathBuf>,
    /// The socket at which `serve` expects the worker.
    pub(crate) usual_socket: PathBuf,
    /// The folder of the park file, a TPM's identity and the lock of the usual worker.
    pub(crate) state_directory: PathBuf,
    /// True to end with standard input, of which the parent holds the other end.
    pub(crate) supervised: bool,
    /// The service manager, if one started this process.
    pub(crate) service_manager: Option<Arc<dyn ServiceManager>>,
}

impl WorkerOptions {
    /// Returns true for a worker beside that of `serve`, with a socket of its own.
    fn is_private(&self) -> bool {
        let socket = self.socket.as_ref();
        socket.is_some_and(|it| *it != self.usual_socket)
    }
}

/// Why a worker ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Signal,
    ParentGone,
    /// The worker exits with an error, so that systemd starts it again.
    NeedsNewProcess,
}

/// One request on its way to a signer.
struct Job {
    request: TokenRequest,
    deadline: Instant,
    writer: Arc<FrameWriter>,
}

impl Job {
    /// Appends the answer to the connection's writer.
    fn answer(&self, result: Result<Answer, TokenError>) {
        let id = self.request.id;
        let answer = Message::Answer(Response { id, result });
        if let Err(error) = self.writer.append(&answer) {
            let operation = self.request.operation.name();
            tracing::error!(%error, operation, "cannot encode answer");
        }
    }

    /// Answers that the job was not begun. A signature for which no caller waits must not be made.
    fn answer_expired(&self, token: &str) {
        let name = self.request.operation.name();
        let reason = format!("{name} was queued until its deadline, and not begun");
        self.answer(Err(TokenError::unavailable(token, reason)));
    }

    fn is_expired(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Returns true if it takes no longer than others for the same key.
    fn is_signature(&self) -> bool {
        matches!(
            self.request.operation,
            Operation::Sign { .. }
                | Operation::SignAnswer { .. }
                | Operation::SignCheckpoint { .. }
        )
    }
}

impl Expires for Job {
    fn deadline(&self) -> Instant {
        self.deadline
    }
}

/// Runs the worker until its end.
///
/// First executes this program again if the token's `environment` is not set: modules read it when
/// they are loaded, and a Rust program with threads must not change it.
pub(crate) fn run(options: WorkerOptions) -> anyhow::Result<()> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let settings = options.configuration.resolve(credentials.as_deref())?;
    settings.require_credential()?;
    adopt_environment(&settings)?;
    lock_memory(&settings.name);
    let owner = owner(&options, &settings)?;
    let _only_one = claim(&options)?;
    let socket = options.socket.as_ref().unwrap_or(&options.usual_socket);
    let socket = Socket::open(socket)?;
    let own_socket = socket.own();
    let held_pin = owner.and_then(|owner| drop_root(owner, &settings).transpose());
    let held_pin = held_pin.transpose()?;
    let (stop, stopped) = mpsc::channel();
    watch_for_the_end(options.supervised, stop.clone())?;

    let name = &settings.name;
    let signers = settings.sessions;
    let watchdog = Arc::new(Watchdog::new(signers + 1));
    let wall = Arc::new(wall(&options)?);
    let recovery = recovery(&settings, held_pin, &options, &watchdog, &wall);
    let recovery = Arc::new(recovery);
    let queue = Arc::new(Queue::new(QUEUE_JOBS_MAX));
    let prober = prober(&recovery, &watchdog, stop);
    let signers = signer_threads(name, signers, &queue, &recovery);
    let dispatcher = RequestDispatcher {
        token: name.clone(),
        queue: Arc::clone(&queue),
        recovery: Arc::clone(&recovery),
    };
    spawn("token-accept", move || {
        connection::accept(&socket, &dispatcher)
    });
    let ping = options
        .service_manager
        .as_ref()
        .and_then(WatchdogPing::requested);
    if let Some(manager) = options.service_manager {
        manager.ready();
        let recovery = Arc::clone(&recovery);
        let token = name.clone();
        spawn("token-status", move || {
            report_health(manager.as_ref(), &token, &recovery);
        });
    }
    let watched = name.clone();
    let swept = Arc::clone(&queue);
    let token = name.clone();
    spawn("token-sweeper", move || sweep(&swept, &token));
    spawn("token-watchdog", move || watchdog.run(&watched, ping));
    let kept = Arc::clone(&wall);
    spawn("token-record", move || kept.keep_record());

    let cause = stopped
        .recv()
        .context("every thread that could end the worker has ended")?;
    tracing::info!(token = name, ?cause, "worker ends");
    drop(queue.close());
    recovery.close();
    for thread in signers.into_iter().chain([prober]) {
        thread.join().expect("signers and prober do not panic");
    }
    recovery.stop();
    wall.close();
    if let Some(own) = own_socket {
        let _ = files::remove(&own);
    }
    match cause {
        End::NeedsNewProcess => bail!("the token did not recover: a new process has to try"),
        End::Signal | End::ParentGone => Ok(()),
    }
}

/// Keeps the PIN and keys of modules out of swap, where the unit allows that.
fn lock_memory(token: &str) {
    match process_memory::lock() {
        Ok(true) => tracing::info!(token, "memory is locked"),
        Ok(false) => tracing::info!(token, "memory is not locked: LimitMEMLOCK= is too low"),
        Err(error) => tracing::warn!(token, %error, "memory cannot be locked"),
    }
}

/// Executes this program again with the same arguments if a variable of the configuration is not
/// set.
fn adopt_environment(settings: &TokenSettings) -> anyhow::Result<()> {
    let wanted = &settings.environment;
    if wanted
        .iter()
        .all(|(name, value)| std::env::var_os(name).is_some_and(|is| is == **value))
    {
        return Ok(());
    }
    let program = std::env::current_exe().context("cannot find our own program")?;
    let mut arguments = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    Err(command.args(arguments).envs(wanted).exec()).context("cannot start again")
}

/// Returns the owner, if not root, of the folder of the worker's state or of SoftHSM's objects. A
/// module opens files by path, so root must not load it there. Only a private worker may become
/// that user: its socket is in a folder of its caller. The usual worker fails instead.
fn owner(options: &WorkerOptions, settings: &TokenSettings) -> anyhow::Result<Option<Owner>> {
    let folder = &options.state_directory;
    let conf = settings.environment.get(SOFTHSM_CONF);
    let owner = match files::owner_of(folder)? {
        None => token_folder_owner(conf.map(Path::new))?,
        owner => owner,
    };
    match owner {
        Some(owner) if !options.is_private() => {
            bail!(
                "{} or the token belongs to user {}: run the worker as that user",
                folder.display(),
                owner.uid()
            )
        }
        owner => Ok(owner),
    }
}

/// Becomes `owner`. Reads the PIN before, while root may read its file; a failure to read it is
/// reported at the login.
fn drop_root(owner: Owner, settings: &TokenSettings) -> anyhow::Result<Option<SecretString>> {
    let pin = settings
        .credential
        .as_deref()
        .and_then(|it| read_pin(it).ok());
    go_on_as(owner)?;
    Ok(pin)
}

/// Takes the lock of the socket, because a second worker would replace the socket of the first. The
/// lock of the usual socket is in the state folder, since the worker may not be allowed to write to
/// the sockets' folder; the lock of another socket is beside it.
fn claim(options: &WorkerOptions) -> anyhow::Result<File> {
    let path = match &options.socket {
        Some(socket) if *socket != options.usual_socket => socket.with_extension("lock"),
        _ => {
            make_folder(&options.state_directory)?;
            let token = &options.configuration.name;
            options.state_directory.join(format!("token-{token}.lock"))
        }
    };
    let file =
        files::open_lock(&path).with_context(|| format!("cannot take {}", path.display()))?;
    if file.try_lock().is_err() {
        bail!(
            "{} is held: another worker serves this token; end that one first",
            path.display()
        );
    }
    Ok(file)
}

/// Makes a folder that only this user can read.
fn make_folder(path: &Path) -> anyhow::Result<()> {
    files::make_folder(path, 0o700).with_context(|| format!("cannot make {}", path.display()))
}

/// Starts threads that send the cause when the worker must end.
fn watch_for_the_end(supervised: bool, stop: Sender<End>) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("cannot handle signals")?;
    let by_signal = stop.clone();
    spawn("token-signals", move || {
        if signals.forever().next().is_some() {
            let _ = by_signal.send(End::Signal);
        }
    });
    if supervised {
        spawn("token-parent", move || {
            // The parent never writes; the end of the stream is the message.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            let _ = stop.send(End::ParentGone);
        });
    }
    Ok(())
}

/// Returns the limits of the worker. A worker of `serve` has its socket in the usual folder, also
/// while a reload replaces it; a worker of one command has a folder of its own.
fn wall(options: &WorkerOptions) -> anyhow::Result<Wall> {
    let name = &options.configuration.name;
    let folder = &options.state_directory;
    let rules = Rules::of_file(options.file.clone(), name, options.rules.clone());
    let socket = options.socket.as_ref().unwrap_or(&options.usual_socket);
    let wall = if socket.parent() != options.usual_socket.parent() {
        Wall::of_private(name, rules, folder)
    } else {
        Wall::of_usual(name, rules, folder)
    };
    wall.with_context(|| format!("cannot use the worker's records in {}", folder.display()))
}

fn recovery(
    settings: &TokenSettings,
    held_pin: Option<SecretString>,
    options: &WorkerOptions,
    watchdog: &Arc<Watchdog>,
    wall: &Arc<Wall>,
) -> Recovery {
    let state_directory = &options.state_directory;
    let park_file = state_directory.join(format!("token-{}.parked", settings.name));
    let guard = settings
        .credential
        .clone()
        .map(|path| PinGuard::new(path, park_file).holding(held_pin));
    let backend: Box<dyn Backend> = match settings.interface.clone() {
        Interface::Pkcs11(fragment) => Box::new(Pkcs11Backend::new(settings.clone(), *fragment)),
        Interface::Tpm(tpm) => {
            let identity_file = state_directory.join(format!("token-{}.tpm", settings.name));
            Box::new(TpmBackend::new(settings.clone(), tpm, identity_file))
        }
    };
    let login = TokenLogin::new(&settings.name, backend, guard);
    Recovery::new(
        &settings.name,
        settings.sessions,
        login,
        Arc::clone(watchdog),
        Arc::clone(wall),
    )
}

/// Starts the prober, which probes the token at once and whenever that is due, until the recovery
/// is closed. Ends the worker when recovery needs a new process.
fn prober(recovery: &Arc<Recovery>, watchdog: &Arc<Watchdog>, stop: Sender<End>) -> JoinHandle<()> {
    let recovery = Arc::clone(recovery);
    let watchdog = Arc::clone(watchdog);
    spawn("token-prober", move || {
        loop {
            let watched = watchdog.watch_prober(Instant::now() + PROBE_DEADLINE);
            recovery.probe();
            drop(watched);
            if recovery.needs_new_process() {
                let _ = stop.send(End::NeedsNewProcess);
            }
            if !recovery.wait_until_due() {
                return;
            }
        }
    })
}

/// Answers jobs that expire while every signer is busy, for ever. So a request without an answer
/// after its deadline means that this process hangs, never that it is busy.
fn sweep(queue: &Queue<Job>, token: &str) {
    loop {
        for job in queue.expired() {
            job.answer_expired(token);
            let _ = job.writer.flush();
        }
    }
}

fn signer_threads(
    token: &str,
    count: usize,
    queue: &Arc<Queue<Job>>,
    recovery: &Arc<Recovery>,
) -> Vec<JoinHandle<()>> {
    let late = Arc::new(LateAnswers::default());
    let signer = |number| SignerThread {
        token: token.to_owned(),
        number,
        queue: Arc::clone(queue),
        recovery: Arc::clone(recovery),
        late: Arc::clone(&late),
    };
    let late_answers = Arc::clone(&late);
    spawn("token-late", move || late_answers.run());
    (0..count)
        .map(signer)
        .map(|signer| spawn("token-signer", move || signer.run()))
        .collect()
}

/// Starts a named thread. It fails only if the process can have no more threads.
fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .expect("a worker has about ten threads")
}

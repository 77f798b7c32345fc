//! Keeps one worker process running, where systemd does not: on a developer's machine, in tests.
//!
//! Starts it, starts it again when it ends, with growing pauses, and kills it when a request stays
//! unanswered beyond its deadline: a call into a vendor's library that never returns costs this
//! process and nothing else. The worker ends with us, however we end: it reads our pipe. It sleeps
//! while all is well.

use super::client::TokenClient;
use super::configuration::TokenSettings;
use crate::notify::SERVICE_VARIABLES;
use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// First pause before the worker is started again; it doubles.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause before the worker is started again.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(10);

/// A worker that ran this long begins with the first pause again.
const STABLE_AFTER: Duration = Duration::from_secs(30);

/// How long the worker may take to end by itself.
const END_GRACE: Duration = Duration::from_secs(3);

/// How long a worker that has a successor may go on with what it has in hand.
const HAND_OVER_MAX: Duration = Duration::from_secs(30);

/// How often it is looked whether it still has something in hand.
const HAND_OVER_PERIOD: Duration = Duration::from_millis(50);

/// How a worker is started.
#[derive(Clone, Debug)]
pub struct WorkerCommand {
    /// The program.
    pub program: PathBuf,
    /// `token NAME --config FILE`; `--socket` and `--supervised` are added.
    pub arguments: Vec<OsString>,
    /// The socket on which the worker shall listen.
    pub socket: PathBuf,
    /// What its module wants in its environment.
    pub environment: BTreeMap<String, String>,
}

impl WorkerCommand {
    /// Starts the worker of `token` with this program and the configuration in `file`.
    pub fn new(token: &TokenSettings, file: &Path, socket: PathBuf) -> anyhow::Result<Self> {
        token.require_credential()?;
        let name = OsString::from(&token.name);
        Ok(Self {
            program: std::env::current_exe().context("cannot find this program")?,
            arguments: vec!["token".into(), name, "--config".into(), file.into()],
            socket,
            environment: token.environment.clone(),
        })
    }
}

/// A worker kept running. Dropping it ends the worker and waits for that.
pub struct Supervisor {
    /// Its end is the message.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Starts the worker of `client`'s token, and keeps it running.
    pub fn start(client: TokenClient, command: WorkerCommand) -> Self {
        Self::spawn(move |stopped| WorkerRunner { client, command }.run(stopped))
    }

    /// The same in the place of `predecessor`, whose worker ends first: a token may have room for one.
    /// Until `is_free` or [`HAND_OVER_MAX`] that one goes on with what it has in hand.
    pub fn succeed(
        predecessor: Supervisor,
        is_free: impl Fn() -> bool + Send + 'static,
        client: TokenClient,
        command: WorkerCommand,
    ) -> Self {
        Self::spawn(move |stopped| {
            if hand_over(predecessor, is_free, stopped) {
                WorkerRunner { client, command }.run(stopped);
            }
        })
    }

    /// Ends the worker once it `is_free`, or at once when what comes back is dropped.
    pub fn retire(self, is_free: impl Fn() -> bool + Send + 'static) -> Self {
        Self::spawn(move |stopped| {
            hand_over(self, is_free, stopped);
        })
    }

    fn spawn(body: impl FnOnce(&PipeReader) + Send + 'static) -> Self {
        let (stopped, stop) = io::pipe().expect("there is a pipe for each supervisor");
        let thread = std::thread::Builder::new()
            .name("token-supervisor".to_owned())
            .spawn(move || body(&stopped))
            .expect("there is one supervisor for each token");
        Supervisor {
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Whether there is no worker any more, nor will be.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Tells the worker to end, and does not wait for that.
    pub fn end(&mut self) {
        drop(self.stop.take());
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.end();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct WorkerRunner {
    client: TokenClient,
    command: WorkerCommand,
}

impl WorkerRunner {
    fn run(&self, stopped: &PipeReader) {
        let mut pause = RESTART_PAUSE;
        loop {
            let started = Instant::now();
            let cause = match self.spawn() {
                Ok(worker) => match self.watch(worker, stopped) {
                    Some(cause) => cause,
                    None => return,
                },
                Err(error) => format!("cannot start {}: {error}", self.command.program.display()),
            };
            tracing::warn!(
                token = self.client.name(),
                cause,
                "worker to be started again"
            );
            self.client.note_restart(&cause);
            if started.elapsed() >= STABLE_AFTER {
                pause = RESTART_PAUSE;
            }
            if let [true] = wait_for([stopped.as_fd()], Some(pause)) {
                return;
            }
            pause = (pause * 2).min(RESTART_PAUSE_MAX);
        }
    }

    fn spawn(&self) -> io::Result<Worker> {
        let mut command = Command::new(&self.command.program);
        for variable in SERVICE_VARIABLES {
            command.env_remove(variable);
        }
        let child = command
            .args(&self.command.arguments)
            .arg("--socket")
            .arg(&self.command.socket)
            .arg("--supervised")
            .envs(&self.command.environment)
            .stdin(Stdio::piped())
            .spawn()?;
        let id = Pid::from_child(&child);
        self.client.trust(id);
        let process = pidfd_open(id, PidfdFlags::empty())?;
        Ok(Worker {
            child,
            process: Arc::new(process),
        })
    }

    /// Waits until the worker has ended, or ends it because it hangs, and says why. `None` when we
    /// were to stop: then it has ended, too.
    fn watch(&self, mut worker: Worker, stopped: &PipeReader) -> Option<String> {
        let hung = Arc::new(OnceLock::new());
        let (process, hung_in) = (worker.process.clone(), hung.clone());
        self.client.on_hang(Some(Box::new(move |operation| {
            let _ = hung_in.set(operation);
            let _ = pidfd_send_signal(&*process, Signal::KILL);
        })));
        let [to_stop, _] = wait_for([stopped.as_fd(), worker.process.as_fd()], None);
        self.client.on_hang(None);
        if to_stop {
            worker.end();
            return None;
        }
        Some(match (worker.child.wait(), hung.get()) {
            (_, Some(operation)) => format!("the worker hung in {operation} and was killed"),
            (Ok(status), None) => format!("the worker ended: {status}"),
            (Err(error), None) => format!("the worker is lost: {error}"),
        })
    }
}

/// A worker, and what tells its end.
struct Worker {
    child: Child,
    process: Arc<OwnedFd>,
}

impl Worker {
    /// Lets the worker end in order, by closing its pipe; kills it if it does not.
    fn end(mut self) {
        drop(self.child.stdin.take());
        if let [false] = wait_for([self.process.as_fd()], Some(END_GRACE)) {
            tracing::warn!(pid = self.child.id(), "worker does not end and is killed");
            let _ = self.child.kill();
        }
        // Fails only when there is no such process any more.
        let _ = self.child.wait();
    }
}

/// Waits until one of these can be read or has ended, or until `pause` is over; says which.
fn wait_for<const N: usize>(these: [BorrowedFd<'_>; N], pause: Option<Duration>) -> [bool; N] {
    let until = pause.map(|pause| Instant::now() + pause);
    let mut these = these.map(|it| PollFd::from_borrowed_fd(it, PollFlags::IN));
    loop {
        let left = until.map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            Timespec::try_from(left).expect("a pause has few seconds")
        });
        match poll(&mut these, left.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            outcome => {
                outcome.expect("the descriptors are open, and few");
                return these.map(|it| !it.revents().is_empty());
            }
        }
    }
}

/// Waits until `predecessor` may go, and ends it; false if we are to stop.
fn hand_over(predecessor: Supervisor, is_free: impl Fn() -> bool, stopped: &PipeReader) -> bool {
    let until = Instant::now() + HAND_OVER_MAX;
    let mut stops = false;
    while !stops && !is_free() && Instant::now() < until {
        [stops] = wait_for([stopped.as_fd()], Some(HAND_OVER_PERIOD));
    }
    drop(predecessor);
    !stops
}

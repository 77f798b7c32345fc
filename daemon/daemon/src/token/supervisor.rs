//! Keeps one worker process running where systemd does not: on a developer's machine, in tests.
//!
//! It starts the worker, starts it again when it ends, with growing pauses, and kills it when it
//! hangs: a call into a vendor's library that never returns costs only the worker process. The
//! worker reads a pipe of ours, so it ends with this process in any case. The supervisor sleeps
//! while the worker runs.

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

/// How long the worker may take to end after its pipe was closed.
const END_GRACE: Duration = Duration::from_secs(3);

/// How long a replaced worker may take to finish its requests.
const HAND_OVER_MAX: Duration = Duration::from_secs(30);

/// How often it is checked whether the replaced worker has finished.
const HAND_OVER_PERIOD: Duration = Duration::from_millis(50);

/// The command that starts a worker.
#[derive(Clone, Debug)]
pub struct WorkerCommand {
    /// Path of the worker's program.
    pub program: PathBuf,
    /// `token NAME --config FILE`; `--socket` and `--supervised` are added.
    pub arguments: Vec<OsString>,
    /// The socket on which the worker listens.
    pub socket: PathBuf,
    /// Environment variables that its module needs.
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

/// A worker that is kept running. Dropping it ends the worker and waits for its end.
pub struct Supervisor {
    /// Closing it ends the worker.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Starts the worker of the client's token, and keeps it running.
    pub fn start(client: TokenClient, command: WorkerCommand) -> Self {
        Self::spawn(move |stopped| WorkerRunner { client, command }.run(stopped))
    }

    /// Starts a worker in place of that of `predecessor`, which is ended first, because a token may
    /// accept only one. The predecessor keeps running until `is_free`, for [`HAND_OVER_MAX`] at
    /// most.
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

    /// Ends the worker once it `is_free`, or at once when the returned value is dropped.
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

    /// Returns true if the worker has ended and is not started again.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the worker without waiting for it.
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
                "worker ended, will restart it"
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

    /// Waits for the end of the worker, and kills it if it hangs; returns the cause. Returns `None`
    /// if the supervisor was stopped, which also ends the worker.
    fn watch(&self, mut worker: Worker, stopped: &PipeReader) -> Option<String> {
        let hung = Arc::new(OnceLock::new());
        let process = worker.process.clone();
        let hung_in = hung.clone();
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
            (Err(error), None) => format!("cannot wait for the worker: {error}"),
        })
    }
}

/// A worker's process, and the descriptor that reports its end.
struct Worker {
    child: Child,
    process: Arc<OwnedFd>,
}

impl Worker {
    /// Closes the worker's pipe so that it ends in order; kills it if it does not end.
    fn end(mut self) {
        drop(self.child.stdin.take());
        if let [false] = wait_for([self.process.as_fd()], Some(END_GRACE)) {
            tracing::warn!(pid = self.child.id(), "worker does not end, killing it");
            let _ = self.child.kill();
        }
        // Fails only if the process was waited for already.
        let _ = self.child.wait();
    }
}

/// Waits until one of these can be read or has ended, for `pause` at most; returns which.
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

/// Waits until `predecessor` is free, and ends it. Returns false if the supervisor is being
/// stopped.
fn hand_over(predecessor: Supervisor, is_free: impl Fn() -> bool, stopped: &PipeReader) -> bool {
    let until = Instant::now() + HAND_OVER_MAX;
    let mut stops = false;
    while !stops && !is_free() && Instant::now() < until {
        [stops] = wait_for([stopped.as_fd()], Some(HAND_OVER_PERIOD));
    }
    drop(predecessor);
    !stops
}

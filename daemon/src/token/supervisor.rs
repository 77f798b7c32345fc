//! Keeps one worker process running, where systemd does not: on a developer's machine, in tests.
//!
//! Starts it, starts it again when it ends, with growing pauses, and kills it when a request stays
//! unanswered beyond its deadline: a call into a vendor's library that never returns costs this
//! process and nothing else. The worker ends with us, however we end: it reads our pipe.

use super::client::TokenClient;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// First pause before the worker is started again; it doubles.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause before the worker is started again.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(10);

/// A worker that ran this long begins with the first pause again.
const STABLE_AFTER: Duration = Duration::from_secs(30);

/// How far beyond its deadline a request may be before the worker counts as hung.
const HANG_GRACE: Duration = Duration::from_secs(1);

/// How long the worker may take to end by itself.
const END_GRACE: Duration = Duration::from_secs(3);

/// How often the worker is looked at.
const PERIOD: Duration = Duration::from_millis(50);

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

/// A worker kept running. Dropping it ends the worker and waits for that.
pub struct Supervisor {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Starts the worker of `client`'s token, and keeps it running.
    pub fn start(client: TokenClient, command: WorkerCommand) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("token-supervisor".to_owned())
            .spawn(move || Attendant { client, command }.run(&stopped))
            .expect("there is one supervisor for each token");
        Supervisor {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Attendant {
    client: TokenClient,
    command: WorkerCommand,
}

impl Attendant {
    fn run(&self, stopped: &Receiver<()>) {
        let mut pause = RESTART_PAUSE;
        loop {
            let started = Instant::now();
            let cause = match self.spawn() {
                Ok(mut worker) => match self.attend(&mut worker, stopped) {
                    Some(cause) => cause,
                    None => return end(worker),
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
            if has_stopped(stopped, pause) {
                return;
            }
            pause = (pause * 2).min(RESTART_PAUSE_MAX);
        }
    }

    fn spawn(&self) -> io::Result<Child> {
        Command::new(&self.command.program)
            .args(&self.command.arguments)
            .arg("--socket")
            .arg(&self.command.socket)
            .arg("--supervised")
            .envs(&self.command.environment)
            .stdin(Stdio::piped())
            .spawn()
    }

    /// Waits until the worker has ended, or ends it because it hangs, and says why. `None` when we
    /// are to stop.
    fn attend(&self, worker: &mut Child, stopped: &Receiver<()>) -> Option<String> {
        loop {
            if has_stopped(stopped, PERIOD) {
                return None;
            }
            match worker.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => return Some(format!("the worker ended: {status}")),
                Err(error) => return Some(format!("the worker is lost: {error}")),
            }
            if let Some(operation) = self.client.overdue(HANG_GRACE) {
                kill(worker);
                return Some(format!("the worker hung in {operation} and was killed"));
            }
        }
    }
}

/// Waits for `pause`; true as soon as we are to stop.
fn has_stopped(stopped: &Receiver<()>, pause: Duration) -> bool {
    stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout)
}

/// Lets the worker end in order, by closing its pipe; kills it if it does not.
fn end(mut worker: Child) {
    drop(worker.stdin.take());
    let until = Instant::now() + END_GRACE;
    while Instant::now() < until {
        match worker.try_wait() {
            Ok(None) => std::thread::sleep(PERIOD),
            _ => return,
        }
    }
    tracing::warn!(pid = worker.id(), "worker does not end and is killed");
    kill(&mut worker);
}

/// Kills and reaps. Both fail only when there is no such process any more.
fn kill(worker: &mut Child) {
    let _ = worker.kill();
    let _ = worker.wait();
}

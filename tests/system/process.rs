//! A child process of a test: its log is kept, it is signalled and ended by its id, and it never
//! outlives the test.

use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take. Generous: the machine may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// The pause between two probes.
pub(crate) const PERIOD: Duration = Duration::from_millis(20);
/// Lines of a log that a failed test shows.
const LOG_LINES_SHOWN: usize = 60;

/// Waits until `probe` has a value.
pub(crate) fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begun.elapsed() < SOON, "{what}: not within {SOON:?}");
        std::thread::sleep(PERIOD);
    }
}

/// Sends a signal to one process.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// A process that has `argument` on its command line.
pub(crate) fn pid_with_argument(argument: &Path) -> Option<u32> {
    let argument = argument.to_str().unwrap();
    fs::read_dir("/proc").unwrap().find_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        let has_it = arguments.split('\0').any(|it| it == argument);
        has_it.then_some(pid)
    })
}

pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it writes to standard error is added to `log`.
    pub(crate) fn start(command: &mut Command, log: PathBuf) -> Self {
        Self::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()), log)
    }

    /// The same, with the standard input and output that the caller has set.
    pub(crate) fn spawn(command: &mut Command, log: PathBuf) -> Self {
        let file = File::options().append(true).create(true).open(&log);
        let child = command.stderr(file.unwrap()).spawn().unwrap();
        Self { child, log }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop, and waits for it.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        signal(self.id(), Signal::TERM);
        until("the process ends", || self.child.try_wait().unwrap())
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until the process ends by itself.
    pub(crate) fn wait(mut self) -> ExitStatus {
        until("the process ends", || self.child.try_wait().unwrap())
    }

    /// Returns true if the process ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            eprintln!("--- {}\n{}", self.log.display(), shown.join("\n"));
        }
    }
}

/// Exit code and output of a command.
#[derive(Debug)]
pub(crate) struct CommandOutput {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) error: String,
}

impl CommandOutput {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            error: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

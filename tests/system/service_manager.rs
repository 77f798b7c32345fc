//! A substitute for systemd, as far as a test needs it: hands over sockets that it keeps, and
//! receives the service's notifications.

use crate::process::{Process, until};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// Becomes the service with its first two descriptors as those that systemd hands over. The process
/// id stays, as with systemd.
const HAND_OVER: &str = "exec 3<&0 4<&1 </dev/null >/dev/null; \
                         LISTEN_PID=$$ LISTEN_FDS=$1; export LISTEN_PID LISTEN_FDS; shift; \
                         exec \"$@\"";
/// How long one read waits for a message.
const PATIENCE: Duration = Duration::from_millis(50);

pub(crate) struct ServiceManager {
    heard: Receiver<String>,
    path: PathBuf,
}

impl ServiceManager {
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let path = folder.join(name);
        let socket = UnixDatagram::bind(&path).unwrap();
        let (hear, heard) = mpsc::channel();
        // systemd always listens; a service that waited for it would stop.
        std::thread::spawn(move || {
            let mut message = [0; 4096];
            while let Ok(length) = socket.recv(&mut message) {
                let message = String::from_utf8(message[..length].to_vec()).unwrap();
                if hear.send(message).is_err() {
                    return;
                }
            }
        });
        Self { heard, path }
    }

    /// `Type=notify`, and `WatchdogSec=` if it is given.
    pub(crate) fn looks_after(&self, command: &mut Command, watchdog: Option<Duration>) {
        command.env("NOTIFY_SOCKET", &self.path);
        if let Some(watchdog) = watchdog {
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
    }

    /// The next message, if one comes soon.
    pub(crate) fn hear(&self) -> Option<String> {
        self.heard.recv_timeout(PATIENCE).ok()
    }

    /// Waits for a message that contains this, and returns it.
    pub(crate) fn hears(&self, awaited: &str) -> String {
        until(awaited, || self.hear().filter(|it| it.contains(awaited)))
    }

    /// Waits until the watchdog was not fed for `pause`: then systemd would end the service.
    pub(crate) fn misses_the_watchdog_for(&self, pause: Duration) {
        let mut fed = Instant::now();
        until("the watchdog is not fed", || {
            if self.hear().is_some_and(|it| it == "WATCHDOG=1") {
                fed = Instant::now();
            }
            (fed.elapsed() >= pause).then_some(())
        });
    }
}

/// Starts `command` with one or two sockets handed over.
pub(crate) fn hand_over<const N: usize>(
    command: &Command,
    sockets: [OwnedFd; N],
    log: PathBuf,
) -> Process {
    let mut shell = Command::new("sh");
    shell.args(["-c", HAND_OVER, "sh", &N.to_string()]);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let mut sockets = sockets.into_iter().map(Stdio::from);
    shell.stdin(sockets.next().expect("one at least"));
    shell.stdout(sockets.next().unwrap_or_else(Stdio::null));
    Process::spawn(&mut shell, log)
}

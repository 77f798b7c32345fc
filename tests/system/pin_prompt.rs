//! Tests how setup asks for a PIN: at a terminal, on a machine whose `/etc`, `/run` and `/var/lib`
//! are folders of the test. A script takes the place of `systemctl`; token, worker and daemon are
//! real.

use crate::process::{CommandOutput, signal, until};
use crate::terminal::Terminal;
use crate::test_env::{HALLMARK, HALLMARKD, MODULE, TestEnv};
use rustix::process::Signal;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const QUESTION: &str = "the PIN of token factory";
const STORED: &str = "etc/credstore/factory-pin";

/// Enters the machine: `$1` is its folder, and the rest runs in it.
const ENTER: &str = r#"
cd "$1"; shift
for name in etc run var share; do mount --bind "$name" "$(cat "$name.of")"; done
PATH=$PWD/bin:$PATH; export PATH
exec "$@"
"#;

/// Starts, stops and shows the service, as far as setup asks for that.
const SYSTEMCTL: &str = r#"#!/bin/sh
cd "@folder@"
runs() { [ -e pid ] && kill -0 "$(cat pid)" 2>/dev/null; }
case "$*" in
enable\ --now*)
    awk '{ printf "%d", $1 * 1000000 }' /proc/uptime >since
    CREDENTIALS_DIRECTORY=/etc/credstore setsid @hallmarkd@ serve \
        --config /etc/hallmark/hallmark.toml >>log 2>&1 </dev/null &
    echo $! >pid ;;
stop*)
    if runs; then kill "$(cat pid)"; while runs; do sleep 0.05; done; fi ;;
is-*) runs ;;
show*) cat since 2>/dev/null || echo 0 ;;
esac
"#;

struct Machine {
    env: TestEnv,
}

impl Machine {
    fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "setup is for root alone"
        );
        let machine = Self {
            env: TestEnv::new(),
        };
        for (name, of) in [
            ("etc", "/etc"),
            ("run", "/run"),
            ("var", "/var/lib"),
            ("share", "/usr/share"),
        ] {
            fs::create_dir(machine.path(name)).unwrap();
            machine.env.write(&format!("{name}.of"), of);
        }
        let copied = CommandOutput::of(
            Command::new("cp")
                .args(["-a", "/etc/."])
                .arg(machine.path("etc")),
        );
        assert_eq!(copied.code, Some(0), "{copied:?}");
        let users = fs::read_to_string(machine.path("etc/passwd")).unwrap();
        let user = "hallmark-token:x:61235:61235::/nonexistent:/usr/sbin/nologin\n";
        machine.env.write("etc/passwd", &(users + user));
        for folder in [
            "run/systemd/system",
            "run/hallmark",
            "var/hallmark",
            "var/hallmark-token",
            "share/hallmark/sandboxes",
            "bin",
        ] {
            fs::create_dir_all(machine.path(folder)).unwrap();
        }
        machine
            .env
            .write("share/hallmark/sandboxes/softhsm.conf", "");
        let folder = machine.path("").display().to_string();
        let systemctl = SYSTEMCTL
            .replace("@folder@", &folder)
            .replace("@hallmarkd@", HALLMARKD);
        let systemctl = machine.env.write("bin/systemctl", &systemctl);
        fs::set_permissions(systemctl, Permissions::from_mode(0o755)).unwrap();
        machine.env.write("enter", ENTER);
        machine.env.write("answers.toml", &machine.answers());
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.env.path(name)
    }

    fn answers(&self) -> String {
        format!(
            "shape = \"factory-line\"\norganization = \"Works\"\nenrollment = \"none\"\n\
             listen = {{ names = [\"localhost\"], https = \"127.0.0.1:0\" }}\n\
             credentials = {{ store = \"plain\" }}\n\
             [token]\nname = \"factory\"\nkind = \"pkcs11\"\nlabel = \"factory\"\n\
             module = {MODULE:?}\nsandbox = \"softhsm\"\n\
             environment = {{ SOFTHSM2_CONF = {:?} }}\n",
            self.path("softhsm2.conf")
        )
    }

    /// Setup at a terminal, whose state is printed afterwards.
    fn setup(&self) -> Terminal {
        let folder = self.path("").display().to_string();
        Terminal::open(&format!(
            "unshare --mount --propagation private sh -e {folder}/enter {folder} {HALLMARK} setup \
             --answers {folder}/answers.toml; echo \"code=$?\"; stty -a; echo all-is-shown"
        ))
    }

    fn daemon(&self) -> Option<u32> {
        let pid = fs::read_to_string(self.path("pid")).ok()?;
        pid.trim().parse().ok()
    }

    /// The files below the machine, and below the state of token and daemon, that have this text.
    fn files_with(&self, text: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for name in ["etc", "run", "var", "log", "answers.toml"] {
            collect(&self.path(name), text.as_bytes(), &mut found);
        }
        let folder = self.path("");
        let below = found.iter().map(|it| it.strip_prefix(&folder).unwrap());
        below.map(Path::to_path_buf).collect()
    }
}

fn collect(path: &Path, text: &[u8], found: &mut Vec<PathBuf>) {
    let Ok(kind) = fs::symlink_metadata(path).map(|it| it.file_type()) else {
        return;
    };
    if kind.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), text, found);
        }
    } else if kind.is_file() {
        let bytes = fs::read(path).unwrap_or_default();
        if bytes.windows(text.len()).any(|it| it == text) {
            found.push(path.to_path_buf());
        }
    }
}

/// Processes with this text on their command line or in their environment.
fn processes_with(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        for name in ["cmdline", "environ"] {
            let bytes = fs::read(entry.path().join(name)).unwrap_or_default();
            if bytes.windows(text.len()).any(|it| it == text.as_bytes()) {
                found.push(entry.path().join(name).display().to_string());
            }
        }
    }
    found
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(pid) = self.daemon() {
            if std::thread::panicking() {
                let log = fs::read_to_string(self.path("log")).unwrap_or_default();
                eprintln!("--- log of the daemon\n{log}");
            }
            signal(pid, Signal::TERM);
            let path = PathBuf::from(format!("/proc/{pid}/cmdline"));
            // An ended process that its parent has not waited for has no command line.
            until("the daemon ends", || {
                fs::read(&path)
                    .map_or(true, |it| it.is_empty())
                    .then_some(())
            });
        }
    }
}

/// Asserts that a terminal that setup has left shows what is typed, and that it has lines and the
/// keys of signals.
fn is_restored(terminal: &Terminal, code: i32) {
    terminal.shows("all-is-shown");
    let screen = terminal.screen();
    assert!(screen.contains(&format!("code={code}")), "{screen}");
    let settings: Vec<&str> = screen.split_whitespace().collect();
    for setting in ["echo", "icanon", "isig"] {
        assert!(settings.contains(&setting), "no {setting}: {screen}");
    }
}

/// Verifies: a PIN that is typed is shown nowhere; Ctrl-C in the middle of it stores nothing and
/// leaves the terminal as it was; a wrong PIN costs one try, and setup says at once that the token
/// refuses it and how to type another one; with the right one setup ends well. The PIN is in
/// one file, which root alone reads, and in no log, command line or environment.
#[test]
fn a_pin_is_typed_unseen_interrupted_corrected_and_kept_in_one_place() {
    let machine = Machine::new();
    let pin = fs::read_to_string(machine.path("pin")).unwrap();
    let pin = pin.trim();
    let wrong = "98765432100123";

    let mut terminal = machine.setup();
    terminal.answer(QUESTION, &format!("{}\x03", &pin[..pin.len() - 1]));
    terminal.shows("interrupted");
    is_restored(&terminal, 1);
    assert!(!terminal.screen().contains(&pin[..4]), "it is shown");
    assert!(!machine.path(STORED).exists());

    let mut terminal = machine.setup();
    terminal.answer(QUESTION, "\r");
    terminal.answer(QUESTION, &format!("9\x15{wrong}x\x7f\r"));
    terminal.shows("stored");
    until("the worker has tried it", || machine.daemon());
    assert_eq!(processes_with(wrong), Vec::<String>::new());
    terminal.shows("remove /etc/credstore/factory-pin");
    is_restored(&terminal, 1);
    let screen = terminal.screen();
    assert!(
        screen.contains("PIN") && !screen.contains(wrong),
        "{screen}"
    );
    assert_eq!(machine.files_with(wrong), [Path::new(STORED)]);

    fs::remove_file(machine.path(STORED)).unwrap();
    let mut terminal = machine.setup();
    terminal.answer(QUESTION, &format!("{pin}\r"));
    is_restored(&terminal, 0);
    assert!(!terminal.screen().contains(pin), "it is shown");
    assert_eq!(machine.files_with(pin), [Path::new(STORED)]);
    let mode = fs::metadata(machine.path(STORED)).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    assert_eq!(processes_with(pin), Vec::<String>::new());

    // It is stored, so nothing is asked.
    let terminal = machine.setup();
    is_restored(&terminal, 0);
    assert!(!terminal.screen().contains(QUESTION));
}

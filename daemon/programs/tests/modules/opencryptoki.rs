//! opencryptoki's software token. Its state belongs to the machine, so each test has its own
//! namespaces for mounts and shared memory. That needs root.

use crate::fixture::{Fixture, Running, done, until};
use crate::{pin, table};
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Makes private copies of what the daemon and its tokens write, then runs the daemon, all within
/// the namespaces.
const MACHINE: &str = r#"
set -e
mount -t tmpfs tmpfs /dev/shm
mkdir "$1/lib"
cp -a /var/lib/opencryptoki/. "$1/lib/"
mount --bind "$1/lib" /var/lib/opencryptoki
mkdir "$1/run"
mount --bind "$1/run" /run
mkdir -p /run/lock/opencryptoki/swtok
chgrp -R pkcs11 /run/lock/opencryptoki
exec pkcsslotd -f
"#;

const SLOT: &str = "3";
const SO_PIN: &str = "76543210";
const PIN: &str = "13572468";

pub(crate) struct Machine {
    _daemon: Running,
    /// Prefix of a command that runs in the namespaces.
    enter: Vec<String>,
}

impl Machine {
    fn start(fixture: &Fixture) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "namespaces need root: run as root, or leave this out (-E 'not test(opencryptoki)')"
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--ipc", "--propagation", "private"]);
        command
            .args(["bash", "-c", MACHINE, "machine"])
            .arg(fixture.path(""));
        // Each program executes the next, so that the process becomes the daemon.
        let mut daemon = Running::start(command.stdout(Stdio::null()));
        let pid = daemon.child().id().to_string();
        let enter = ["nsenter", "--target", &pid, "--mount", "--ipc", "--"];
        let machine = Self {
            _daemon: daemon,
            enter: enter.map(str::to_owned).to_vec(),
        };
        until("pkcsslotd is ready", || {
            machine.pkcsconf(&["-t"], "").status.success().then_some(())
        });
        machine
    }

    /// Runs `pkcsconf`, which reads a label from standard input and PINs from its arguments.
    fn pkcsconf(&self, arguments: &[&str], label: &str) -> Output {
        let mut command = Command::new(&self.enter[0]);
        command
            .args(&self.enter[1..])
            .args(["pkcsconf", "-c", SLOT])
            .args(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut asked = command.spawn().unwrap();
        // It may have ended without reading.
        let _ = writeln!(asked.stdin.take().unwrap(), "{label}");
        asked.wait_with_output().unwrap()
    }

    fn prepare(&self, arguments: &[&str], label: &str) {
        let output = self.pkcsconf(arguments, label);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
}

/// Makes a token without the default PINs.
pub(crate) fn prepared() -> (Fixture, Machine) {
    let mut fixture = Fixture::new("opencryptoki", "factory");
    done(Command::new("getent").args(["group", "pkcs11"]));
    let machine = Machine::start(&fixture);
    machine.prepare(&["-I", "-S", "87654321"], fixture.label);
    machine.prepare(&["-P", "-S", "87654321", "-n", SO_PIN], "");
    machine.prepare(&["-u", "-S", SO_PIN, "-n", "12345678"], "");
    machine.prepare(&["-p", "-U", "12345678", "-n", PIN], "");
    fixture.write_secret("pin", PIN);
    fixture.wrapper = machine.enter.iter().map(Into::into).collect();
    (fixture, machine)
}

#[test]
fn opencryptoki_keeps_the_contract() {
    let (fixture, _machine) = prepared();
    table::holds("opencryptoki 3.8.1, software token", &fixture.check());
}

#[test]
fn opencryptoki_is_never_locked_by_us() {
    let (fixture, machine) = prepared();
    pin::is_never_locked(&fixture, PIN, &|| {
        machine.prepare(&["-p", "-U", PIN, "-n", PIN], "");
    });
}

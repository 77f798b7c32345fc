//! A software TPM: swtpm, with state and ports of its own, killed by its id.
//!
//! Shared with the tests of the token alone (`daemon/programs/tests/tpm`).

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

/// How many pairs of ports are tried. Another program may take one between the probe and the start.
const ATTEMPTS_MAX: usize = 50;

/// Below those that the kernel gives out (`ip_local_port_range`).
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// A running swtpm, or one that was killed and can be started again.
pub(crate) struct SoftwareTpm {
    state: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl SoftwareTpm {
    /// Starts one with its state in `state`, on free ports.
    pub(crate) fn start(state: PathBuf) -> Self {
        std::fs::create_dir_all(&state).unwrap();
        for _ in 0..ATTEMPTS_MAX {
            let Some(port) = free_port_pair() else {
                continue;
            };
            let mut tpm = Self {
                state: state.clone(),
                port,
                process: None,
            };
            if tpm.try_start() {
                return tpm;
            }
        }
        panic!("no swtpm starts: is it installed? softhsm-setup/install brings it");
    }

    /// The TCTI for the configuration.
    pub(crate) fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    /// `kill -9`: all slots are lost, as in a power cut.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it again, with the same state and ports.
    pub(crate) fn start_again(&mut self) {
        let begun = Instant::now();
        while !self.try_start() {
            assert!(begun.elapsed() < SOON, "swtpm does not start again");
        }
    }

    /// Starts another TPM in its place, as after a board was exchanged.
    pub(crate) fn exchange(&mut self, state: PathBuf) {
        self.kill();
        std::fs::create_dir_all(&state).unwrap();
        self.state = state;
        self.start_again();
    }

    /// Runs one of tpm2-tools, which must succeed; returns its standard output.
    pub(crate) fn tool(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.try_tool(program, arguments);
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {output:?}"
        );
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn try_tool(&self, program: &str, arguments: &[&str]) -> std::process::Output {
        Command::new(program)
            .args(arguments)
            .current_dir(&self.state)
            .env("TPM2TOOLS_TCTI", self.tcti())
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}; softhsm-setup/install brings it"))
    }

    /// Handles of the transient objects in its slots.
    pub(crate) fn transient_objects(&self) -> usize {
        let listed = self.tool("tpm2_getcap", &["handles-transient"]);
        listed.lines().filter(|line| line.contains("0x")).count()
    }

    /// Another program makes an object of its own, as a target for guesses. No other program may
    /// use the TPM during that time: this takes all of its slots.
    pub(crate) fn make_prey(&self) {
        std::fs::write(self.state.join("secret"), "x").unwrap();
        let steps: [(&str, &str); 6] = [
            ("tpm2_flushcontext", "-t"),
            ("tpm2_createprimary", "-C o -c others.ctx"),
            (
                "tpm2_create",
                "-C others.ctx -i secret -p right -u o.pub -r o.priv",
            ),
            ("tpm2_flushcontext", "-t"),
            ("tpm2_load", "-C others.ctx -u o.pub -r o.priv -c o.ctx"),
            ("tpm2_flushcontext", "-t"),
        ];
        for (program, arguments) in steps {
            self.tool(program, &arguments.split(' ').collect::<Vec<_>>());
        }
    }

    /// Another program guesses at its own object until the TPM is in dictionary-attack lockout.
    pub(crate) fn provoke_lockout(&self) {
        let in_lockout = || {
            let properties = self.tool("tpm2_getcap", &["properties-variable"]);
            let line = properties.lines().find(|line| line.contains("inLockout"));
            line.is_some_and(|line| line.ends_with('1'))
        };
        let begun = Instant::now();
        while !in_lockout() {
            assert!(begun.elapsed() < SOON, "no lockout comes of it");
            let guessed = self.try_tool("tpm2_unseal", &["-c", "o.ctx", "-p", "wrong"]);
            assert!(!guessed.status.success());
            self.tool("tpm2_flushcontext", &["-t"]);
        }
    }

    /// Starts it, and waits until it answers. Returns false if it ended, as it does when a port is
    /// taken.
    fn try_start(&mut self) -> bool {
        let server = format!("type=tcp,port={},bindaddr=127.0.0.1", self.port);
        let control = format!("type=tcp,port={},bindaddr=127.0.0.1", self.port + 1);
        let mut process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--tpmstate"])
            .arg(format!("dir={}", self.state.display()))
            .args(["--server", &server, "--ctrl", &control])
            .args(["--flags", "not-need-init,startup-clear"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("swtpm: {error}; softhsm-setup/install brings it"));
        let begun = Instant::now();
        while begun.elapsed() < SOON {
            if process.try_wait().unwrap().is_some() {
                return false;
            }
            self.process = Some(process);
            if self
                .try_tool("tpm2_getcap", &["properties-fixed"])
                .status
                .success()
            {
                return true;
            }
            process = self.process.take().unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = process.kill();
        let _ = process.wait();
        false
    }
}

impl Drop for SoftwareTpm {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A free port whose successor is free too, for the control channel. The kernel gives neither to
/// another program while the TPM is stopped.
fn free_port_pair() -> Option<u16> {
    let port = rand::random_range(PORTS);
    TcpListener::bind(("127.0.0.1", port)).ok()?;
    TcpListener::bind(("127.0.0.1", port + 1)).ok()?;
    Some(port)
}

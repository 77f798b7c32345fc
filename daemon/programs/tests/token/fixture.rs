//! A SoftHSM token in a folder of its own, and supervised workers over it.

use hallmarkd::token::client::{TokenClient, TokenHealth};
use hallmarkd::token::health::TokenState;
use hallmarkd::token::supervisor::{Supervisor, WorkerCommand};
use hallmarkd::token::{KeyDescription, KeySpecification};
use hallmarkd::x509::key::KeyType;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

pub(crate) const HALLMARKD: &str = env!("CARGO_BIN_EXE_hallmarkd");

pub(crate) const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// A folder with a SoftHSM token `factory`, its PIN and a configuration.
pub(crate) struct Fixture {
    pub(crate) folder: tempfile::TempDir,
}

/// A supervised worker and its client.
pub(crate) struct Running {
    pub(crate) client: TokenClient,
    _supervisor: Supervisor,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let fixture = Fixture {
            folder: tempfile::tempdir().expect("a scratch folder"),
        };
        fixture.write(
            "softhsm2.conf",
            &format!("directories.tokendir = {}\n", fixture.at("tokens")),
        );
        fs::create_dir(fixture.path("tokens")).expect("writable");
        assert!(fixture.init_token("factory").status.success());
        fixture.write("hallmark.toml", &fixture.configuration(""));
        fixture
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("writable");
    }

    pub(crate) fn init_token(&self, label: &str) -> Output {
        Command::new(HALLMARKD)
            .args(["init-token", "--module", MODULE, "--label", label])
            .args([
                "--pin-file",
                &self.at("pin"),
                "--so-pin-file",
                &self.at("so-pin"),
            ])
            .env("SOFTHSM2_CONF", self.path("softhsm2.conf"))
            .output()
            .expect("hallmarkd starts")
    }

    pub(crate) fn configuration(&self, more: &str) -> String {
        let (state, pin, softhsm) = (self.at(""), self.at("pin"), self.at("softhsm2.conf"));
        format!(
            "state_dir = {state:?}\n[[token]]\nname = \"factory\"\nkind = \"pkcs11\"\n\
             fragment = \"softhsm2\"\nlabel = \"factory\"\ncredential = {pin:?}\n{more}\n\
             [token.environment]\nSOFTHSM2_CONF = {softhsm:?}\n"
        )
    }

    /// Returns the arguments of the worker, as in a unit file: the worker sets its environment
    /// itself.
    pub(crate) fn worker_arguments(&self) -> Vec<String> {
        ["token", "factory", "--config", &self.at("hallmark.toml")]
            .map(str::to_owned)
            .to_vec()
    }

    pub(crate) fn start(&self) -> Running {
        self.start_on("factory.sock")
    }

    pub(crate) fn start_on(&self, socket: &str) -> Running {
        let socket = self.path(socket);
        let client = TokenClient::new("factory", socket.clone());
        let command = WorkerCommand {
            program: HALLMARKD.into(),
            arguments: self
                .worker_arguments()
                .into_iter()
                .map(Into::into)
                .collect(),
            socket,
            environment: Default::default(),
        };
        let _supervisor = Supervisor::start(client.clone(), command);
        Running {
            client,
            _supervisor,
        }
    }

    /// Returns the worker's process id, found by its command line.
    pub(crate) fn worker(&self) -> Option<u32> {
        let socket = self.at("factory.sock");
        fs::read_dir("/proc").expect("Linux").find_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            arguments
                .split('\0')
                .any(|argument| argument == socket)
                .then_some(pid)
        })
    }

    pub(crate) fn signal_worker(&self, signal: Signal) {
        let pid = self.worker().expect("a worker runs");
        let pid = Pid::from_raw(pid.cast_signed()).expect("not zero");
        kill_process(pid, signal).expect("it is ours");
    }

    /// Sends SIGSTOP, and waits until every thread is stopped.
    pub(crate) fn stop_worker(&self) {
        self.signal_worker(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.worker().expect("a worker runs"));
        let stands = |task: fs::DirEntry| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ")
                .is_some_and(|(_, state)| state.starts_with('T'))
        };
        let begun = Instant::now();
        while !fs::read_dir(&tasks).expect("it runs").flatten().all(stands) {
            assert!(begun.elapsed() < SOON, "the worker does not stop");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Running {
    pub(crate) fn wait_for(&self, state: TokenState) -> TokenHealth {
        let begun = Instant::now();
        loop {
            let health = self.client.health();
            if health.state == state {
                return health;
            }
            assert!(begun.elapsed() < SOON, "not {state:?} but {health:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn key(&self) -> KeyDescription {
        self.key_with_id(7)
    }

    pub(crate) fn key_with_id(&self, id: u8) -> KeyDescription {
        self.wait_for(TokenState::Ready);
        let specification = KeySpecification {
            key_type: KeyType::P256,
            label: "ca".into(),
            id: vec![id; 16],
        };
        self.client
            .generate(&specification, DEADLINE)
            .expect("a key")
    }

    /// Tries again, as issuance does for its callers, until a signature verifies.
    pub(crate) fn signs_again(&self, key: &KeyDescription) {
        let begun = Instant::now();
        while let Err(error) = self.client.prove(key, DEADLINE) {
            assert!(begun.elapsed() < SOON, "{error}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

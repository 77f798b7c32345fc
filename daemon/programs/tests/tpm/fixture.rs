//! Sets up a test: a software TPM, a credential, a configuration, and a supervised worker.

use crate::software_tpm::SoftwareTpm;
use hallmarkd::token::client::{GENERATE_DEADLINE, TokenClient, TokenHealth};
use hallmarkd::token::health::TokenState;
use hallmarkd::token::supervisor::{Supervisor, WorkerCommand};
use hallmarkd::token::{KeyDescription, KeyReference, KeySpecification, TokenError};
use hallmarkd::x509::key::KeyType;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const HALLMARKD: &str = env!("CARGO_BIN_EXE_hallmarkd");
pub(crate) const CREDENTIAL: &str = "2c7c1f0e9b6d4a5f8e3b7a1d";
pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// A folder with a TPM, its credential and a configuration.
pub(crate) struct Fixture {
    pub(crate) tpm: SoftwareTpm,
    folder: tempfile::TempDir,
}

/// A supervised worker and its client.
pub(crate) struct Running {
    pub(crate) client: TokenClient,
    _supervisor: Supervisor,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// Makes a fixture with additional settings of the token.
    pub(crate) fn with(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fixture = Fixture {
            tpm: SoftwareTpm::start(folder.path().join("tpm")),
            folder,
        };
        fixture.write_credential(CREDENTIAL);
        fixture.configure(more);
        fixture
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn configure(&self, more: &str) {
        let (state, credential) = (self.path(""), self.path("credential"));
        let tcti = self.tpm.tcti();
        let text = format!(
            "state_dir = {state:?}\n[[token]]\nname = \"gate\"\nkind = \"tpm\"\ntcti = {tcti:?}\n\
             credential = {credential:?}\n{more}\n"
        );
        fs::write(self.path("hallmark.toml"), text).unwrap();
    }

    pub(crate) fn write_credential(&self, text: &str) {
        let path = self.path("credential");
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn start(&self) -> Running {
        self.start_on("gate.sock")
    }

    pub(crate) fn start_on(&self, socket: &str) -> Running {
        let socket = self.path(socket);
        let client = TokenClient::new("gate", socket.clone());
        let configuration = self.path("hallmark.toml").into_os_string();
        let command = WorkerCommand {
            program: HALLMARKD.into(),
            arguments: vec![
                "token".into(),
                "gate".into(),
                "--config".into(),
                configuration,
            ],
            socket,
            environment: Default::default(),
        };
        let _supervisor = Supervisor::start(client.clone(), command);
        Running {
            client,
            _supervisor,
        }
    }

    /// Sends SIGKILL to the worker, found by its command line.
    pub(crate) fn kill_worker(&self) {
        let socket = self.path("gate.sock").display().to_string();
        let worker = fs::read_dir("/proc").unwrap().find_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            let ours = arguments.split('\0').any(|argument| argument == socket);
            ours.then(|| Pid::from_raw(pid))?
        });
        kill_process(worker.expect("a worker runs"), Signal::KILL).unwrap();
    }
}

impl Running {
    pub(crate) fn wait_for(&self, state: TokenState) -> TokenHealth {
        self.wait_until(|health| health.state == state)
    }

    pub(crate) fn wait_until(&self, wanted: impl Fn(&TokenHealth) -> bool) -> TokenHealth {
        let begun = Instant::now();
        loop {
            let health = self.client.health();
            if wanted(&health) {
                return health;
            }
            assert!(begun.elapsed() < SOON, "still {health:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn key(&self) -> KeyDescription {
        self.key_of(KeyType::P256)
    }

    pub(crate) fn key_of(&self, key_type: KeyType) -> KeyDescription {
        self.wait_for(TokenState::Ready);
        let specification = KeySpecification {
            key_type,
            label: "ca".into(),
            id: vec![7; 16],
        };
        // A TPM looks for primes as long as it takes: an RSA key can need seconds on a busy
        // machine.
        self.client
            .generate(&specification, GENERATE_DEADLINE)
            .unwrap()
    }

    /// Tries again, as issuance does for its callers, until a signature verifies.
    pub(crate) fn signs_again(&self, key: &KeyDescription) {
        let begun = Instant::now();
        while let Err(error) = self.client.prove(key, DEADLINE) {
            assert!(begun.elapsed() < SOON, "{error}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns why the TPM does not sign with this key.
    pub(crate) fn lacks(&self, key: &KeyReference) -> String {
        match self.client.find(key, DEADLINE) {
            Err(TokenError::Key { reason, .. }) => reason,
            outcome => panic!("{outcome:?}"),
        }
    }
}

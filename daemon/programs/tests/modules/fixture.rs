//! Sets up the token of one module and its worker.

use hallmarkd::token::client::TokenClient;
use hallmarkd::token::contract::{self, Check, Report, Scope, Verdict};
use hallmarkd::token::fragment::Fragment;
use hallmarkd::token::health::TokenState;
use hallmarkd::token::supervisor::{Supervisor, WorkerCommand};
use hallmarkd::x509::key::KeyType;
use pkcs11_fault::plan::Plan;
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) const HALLMARKD: &str = env!("CARGO_BIN_EXE_hallmarkd");
/// Deadline for processes and tokens to become ready on a busy machine.
const SOON: Duration = Duration::from_secs(60);
const PERIOD: Duration = Duration::from_millis(50);

/// A folder, and the configuration of the token in it.
pub(crate) struct Fixture {
    pub(crate) fragment: &'static str,
    /// The module to configure in place of the family's.
    pub(crate) wrapped_by: Option<PathBuf>,
    pub(crate) label: &'static str,
    pub(crate) environment: BTreeMap<String, String>,
    /// Prefix of the worker's command line.
    pub(crate) wrapper: Vec<OsString>,
    folder: TempDir,
}

impl Fixture {
    /// Makes an empty folder. Fails if the module of `fragment` is not installed.
    pub(crate) fn new(fragment: &'static str, label: &'static str) -> Self {
        let family = Fragment::shipped(fragment).unwrap();
        let module = family.module();
        assert!(
            module.is_some(),
            "none of {:?} exists: {INSTALL}",
            family.modules
        );
        Self {
            fragment,
            wrapped_by: None,
            label,
            environment: BTreeMap::new(),
            wrapper: Vec::new(),
            folder: tempfile::Builder::new()
                .prefix("hallmark-")
                .tempdir()
                .unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        fs::create_dir(self.path(name)).unwrap();
        self.path(name)
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn write_secret(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.insert(name.to_owned(), value.into());
    }

    /// Returns the path of the family's module.
    pub(crate) fn module(fragment: &str) -> PathBuf {
        let family = Fragment::shipped(fragment).unwrap();
        family.module().expect(INSTALL).to_owned()
    }

    /// Puts the module with faults before the family's module. Returns its plan, without faults.
    pub(crate) fn wrapped(&mut self) -> Plan {
        let plan = Plan::new(self.path("faults"));
        plan.set(&[]).unwrap();
        self.set("PKCS11_FAULT_PLAN", self.text("faults"));
        let module = Self::module(self.fragment).display().to_string();
        self.set("PKCS11_FAULT_MODULE", module);
        self.wrapped_by = Some(module_with_faults());
        plan
    }

    /// Runs `hallmarkd init-token`, with PINs in the files `pin` and `so-pin`.
    pub(crate) fn init_token(&self, fragment: &str) -> Output {
        Command::new(HALLMARKD)
            .args(["init-token", "--label", self.label, "--module"])
            .arg(Self::module(fragment))
            .args([
                "--pin-file",
                &self.text("pin"),
                "--so-pin-file",
                &self.text("so-pin"),
            ])
            .envs(&self.environment)
            .output()
            .unwrap()
    }

    /// Starts the worker.
    pub(crate) fn begin(&self) -> (TokenClient, Supervisor) {
        let client = TokenClient::new("tried", self.path("tried.sock"));
        let supervisor = Supervisor::start(client.clone(), self.worker());
        (client, supervisor)
    }

    /// Starts the worker, and waits until the token is ready or parked.
    pub(crate) fn launch(&self) -> (TokenClient, Supervisor) {
        let (client, supervisor) = self.begin();
        client.wait_ready(SOON);
        (client, supervisor)
    }

    /// Starts the worker, runs the contract with every type of key, and stops the worker.
    pub(crate) fn check(&self) -> Report {
        self.check_with(&KeyType::ALL)
    }

    /// The same with these types.
    pub(crate) fn check_with(&self, key_types: &[KeyType]) -> Report {
        let (client, _supervisor) = self.start();
        let scope = Scope {
            key_types,
            tells_local: Fragment::shipped(self.fragment).unwrap().tells_local,
        };
        let report = contract::check_client(&client, scope, &mut |_| {});
        let failed = |check: &&Check| matches!(check.verdict, Verdict::Failed(_));
        let failed: Vec<_> = report.checks.iter().filter(failed).collect();
        assert!(report.is_good(), "{failed:#?} {:?}", report.left_behind);
        let recoveries = client.health().recoveries;
        let done = (
            recoveries.sessions,
            recoveries.logins,
            recoveries.initializations,
        );
        assert_eq!(done, (0, 1, 1), "it never had to recover");
        report
    }

    /// Starts the worker, and waits until the token is ready.
    pub(crate) fn start(&self) -> (TokenClient, Supervisor) {
        let (client, supervisor) = self.launch();
        let health = client.health();
        assert_eq!(health.state, TokenState::Ready, "{health:?}");
        (client, supervisor)
    }

    fn worker(&self) -> WorkerCommand {
        fs::write(self.path("hallmark.toml"), self.configuration()).unwrap();
        let mut line: Vec<OsString> = self.wrapper.clone();
        line.push(HALLMARKD.into());
        line.extend(["token", "tried", "--config"].map(OsString::from));
        line.push(self.path("hallmark.toml").into());
        WorkerCommand {
            program: line.remove(0).into(),
            arguments: line,
            socket: self.path("tried.sock"),
            environment: self.environment.clone(),
        }
    }

    fn configuration(&self) -> String {
        let (state, pin) = (self.text(""), self.text("pin"));
        let module = match &self.wrapped_by {
            Some(module) => format!("module = {module:?}"),
            None => format!("fragment = {:?}", self.fragment),
        };
        let mut text = format!(
            "state_dir = {state:?}\n[[token]]\nname = \"tried\"\nkind = \"pkcs11\"\n\
             {module}\nlabel = {:?}\ncredential = {pin:?}\n[token.environment]\n",
            self.label
        );
        for (name, value) in &self.environment {
            text.push_str(&format!("{name} = {value:?}\n"));
        }
        text
    }
}

/// Cargo writes the library beside the tests that depend on it.
fn module_with_faults() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let module = test.parent().unwrap().join("libpkcs11_fault.so");
    assert!(module.exists(), "{} is not built", module.display());
    module
}

const INSTALL: &str = "install the modules that the tests need with tests/install-modules";

/// A process that ends with its test, together with its children.
pub(crate) struct Running(Child);

impl Running {
    /// Starts `program`, which must be installed.
    pub(crate) fn start(command: &mut Command) -> Self {
        let started = command.stdin(Stdio::null()).process_group(0).spawn();
        Self(started.unwrap_or_else(|error| panic!("{command:?}: {error}: {INSTALL}")))
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both calls fail only if all processes have ended.
        let group = Pid::from_raw(self.0.id().cast_signed()).expect("not zero");
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.0.wait();
    }
}

/// Runs `command`, which must succeed.
pub(crate) fn done(command: &mut Command) -> Output {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}: {INSTALL}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// Calls `ask` until it returns a value.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < SOON, "not within {SOON:?}: {what}");
        std::thread::sleep(PERIOD);
    }
}

/// Waits for a file or socket.
pub(crate) fn appears(path: &Path) {
    until(&path.display().to_string(), || path.exists().then_some(()));
}

//! The environment of a test: a folder with a token, a configuration and a database, the daemon
//! over it, and an emulator. Drop stops the daemon in order and checks the invariants.

use crate::admin::AdminClient;
use crate::caller::Caller;
use crate::invariants;
use crate::kept;
use crate::process::{CommandOutput, PERIOD, Process, SOON, pid_with_argument, until};
use crate::receipts;
use crate::request::{Holder, Request};
use dps_emulator::{Emulator, Options};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;
use tempfile::TempDir;

pub(crate) const HALLMARKD: &str = env!("CARGO_BIN_EXE_hallmarkd");
pub(crate) const HALLMARK: &str = env!("CARGO_BIN_EXE_hallmark");
pub(crate) const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
/// The ceremony that ships: root, plant, line-1 below it, and operations.
pub(crate) const CEREMONY: &str = include_str!("../../softhsm-setup/ceremony.toml");
/// The address of plain HTTP for relying parties in the configuration; no machine has that name.
pub(crate) const PUBLIC_HTTP: &str = "http://pki.hallmark.example";
/// Names another build of `hallmarkd` to test instead: so a release's footprint is measured.
pub(crate) const ANOTHER_BUILD: &str = "HALLMARKD_UNDER_TEST";
const CONFIGURATION: &str = include_str!("hallmark.toml");

pub(crate) struct TestEnv {
    /// Shared with the probers of some tests.
    pub(crate) emulator: Arc<Emulator>,
    daemon: Option<Process>,
    /// A shell script that runs in a mount namespace of the daemon's own before it starts.
    namespace_script: Option<String>,
    /// The admin socket, below the folder.
    pub(crate) admin: &'static str,
    /// The worker certifies authorities whose keys are in tokens elsewhere.
    certifies_elsewhere: bool,
    folder: TempDir,
}

impl TestEnv {
    /// Makes token, emulator and configuration, without a daemon.
    pub(crate) fn new() -> Self {
        Self::with_hubs(&["hallmark.azure-devices.net"])
    }

    /// The same with these hubs linked to the provisioning service. The configuration has the first
    /// one.
    pub(crate) fn with_hubs(hubs: &[&str]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("hallmark-")
            .tempdir()
            .unwrap();
        let mut options = Options::new(folder.path().join("emulator"));
        options.switches.retry_after_seconds = 0;
        options.linked_hubs = hubs.iter().map(|it| (*it).to_owned()).collect();
        let env = Self {
            emulator: Arc::new(Emulator::start(options).unwrap()),
            daemon: None,
            namespace_script: None,
            admin: "state/admin.sock",
            certifies_elsewhere: false,
            folder,
        };
        let tokens = env.path("tokens");
        fs::create_dir(&tokens).unwrap();
        env.write(
            "softhsm2.conf",
            &format!("directories.tokendir = {}\n", tokens.display()),
        );
        env.make_token("factory");
        env.write("ceremony.toml", CEREMONY);
        env.write_secret(
            "connection-string",
            &env.emulator.service_connection_string(),
        );
        env.write_secret(
            "hub-connection-string",
            &env.emulator.hub_connection_string(),
        );
        env.write_secret("arm-token", &env.emulator.arm().token);
        env.configure(&env.configuration());
        env
    }

    /// Makes the same, with a token that certifies authorities elsewhere.
    pub(crate) fn certifying_elsewhere() -> Self {
        let mut env = Self::new();
        env.certifies_elsewhere = true;
        env.configure(&env.configuration());
        env
    }

    /// Starts everything: the ceremony is done, the root verified, and HTTPS answers.
    pub(crate) fn running() -> Self {
        Self::new().started()
    }

    /// The same over a configuration that the test has changed.
    pub(crate) fn started(mut self) -> Self {
        self.start();
        self.run_ceremony();
        self
    }

    /// From its next start on the daemon runs in a mount namespace of its own, in which `sh` runs
    /// `script` first, in the environment's folder.
    pub(crate) fn in_namespace(mut self, script: &str) -> Self {
        self.namespace_script = Some(format!("cd {:?}\n{script}\n", self.folder.path()));
        self
    }

    /// The same with another admin socket, below the folder; the test configures it.
    pub(crate) fn with_admin_socket(mut self, admin: &'static str) -> Self {
        self.admin = admin;
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// Replaces a credential as an operator would: as a whole, readable by its owner alone.
    pub(crate) fn write_secret(&self, name: &str, text: &str) {
        let beside = self.write("secret.new", text);
        fs::set_permissions(&beside, Permissions::from_mode(0o600)).unwrap();
        fs::rename(beside, self.path(name)).unwrap();
    }

    /// The configuration of all tests; some change it.
    pub(crate) fn configuration(&self) -> String {
        let (emulator, arm) = (&self.emulator, self.emulator.arm());
        let address = emulator.addr().to_string();
        let ca_file = emulator.ca_file().display().to_string();
        let folder = self.folder.path().display().to_string();
        let limits = if self.certifies_elsewhere {
            "authority_certificates = \"any\""
        } else {
            ""
        };
        [
            ("# @limits@", limits),
            ("@folder@", folder.as_str()),
            ("@service@", emulator.service_host()),
            ("@device@", emulator.device_host()),
            ("@arm@", emulator.arm_host()),
            ("@hub@", emulator.hub_host()),
            ("@address@", &address),
            ("@scope@", &emulator.id_scope()),
            ("@ca_file@", &ca_file),
            ("@subscription@", &arm.subscription),
            ("@group@", &arm.resource_group),
            ("@name@", &arm.name),
        ]
        .into_iter()
        .fold(CONFIGURATION.to_owned(), |text, (mark, value)| {
            text.replace(mark, value)
        })
    }

    pub(crate) fn configure(&self, configuration: &str) {
        self.write("hallmark.toml", configuration);
    }

    pub(crate) fn make_token(&self, label: &str) {
        self.make_token_at(label, "softhsm2.conf");
    }

    /// The same with another configuration of SoftHSM.
    pub(crate) fn make_token_at(&self, label: &str, conf: &str) {
        let output = self
            .hallmarkd(&["init-token", "--module", MODULE, "--label", label])
            .arg("--pin-file")
            .arg(self.path("pin"))
            .arg("--so-pin-file")
            .arg(self.path("so-pin"))
            .env("SOFTHSM2_CONF", self.path(conf))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    pub(crate) fn hallmarkd(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(arguments);
        // Variables that systemd or a developer's shell may have set.
        for variable in [
            "FAILPOINTS",
            "CREDENTIALS_DIRECTORY",
            "NOTIFY_SOCKET",
            "WATCHDOG_USEC",
            "LISTEN_FDS",
            "JOURNAL_STREAM",
            "INVOCATION_ID",
        ] {
            command.env_remove(variable);
        }
        command
    }

    pub(crate) fn check(&self) -> CommandOutput {
        let mut command = self.hallmarkd(&["check", "--config"]);
        CommandOutput::of(command.arg(self.path("hallmark.toml")))
    }

    /// Starts the daemon, and waits until its admin socket answers.
    pub(crate) fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same with these failpoints.
    pub(crate) fn start_with(&mut self, failpoints: &[String]) {
        let mut command = self.serve(failpoints);
        let daemon = Process::start(&mut command, self.path("hallmarkd.log"));
        self.attend(daemon);
    }

    /// The command that starts the daemon.
    pub(crate) fn serve(&self, failpoints: &[String]) -> Command {
        let mut failpoints = failpoints.to_vec();
        failpoints.extend(self.clock_settings());
        let mut command = self.hallmarkd(&["serve", "--config"]);
        command.arg(self.path("hallmark.toml"));
        if let Some(script) = &self.namespace_script {
            command = in_namespace_of(script, &command);
        }
        command.env("FAILPOINTS", failpoints.join(";"));
        command
    }

    /// Takes over a daemon that was started, and waits until its admin socket answers.
    pub(crate) fn attend(&mut self, mut daemon: Process) {
        assert!(self.daemon.is_none(), "it runs already");
        until("the admin socket answers", || {
            assert!(!daemon.has_ended(), "the daemon does not start");
            (self.hallmark(&["status"]).code != Some(3)).then_some(())
        });
        self.daemon = Some(daemon);
    }

    /// Makes the authorities, and waits until the daemon has done what follows.
    pub(crate) fn run_ceremony(&self) {
        let file = self.path("ceremony.toml");
        self.run(&["ceremony", "run", file.to_str().unwrap()]);
        until("the root is verified", || {
            let held = self.emulator.authorities();
            let verified = |it: &Value| it["properties"]["isVerified"] == true;
            held.iter().any(verified).then_some(())
        });
        self.wait_in_sync();
        self.wait_ready();
        until("every authority has a revocation list", || {
            let authorities = self.json(&["authority", "list"]);
            let listed = |it: &Value| it["crl_number"].is_i64();
            let mut authorities = authorities.as_array().unwrap().iter();
            authorities.all(listed).then_some(())
        });
        until("HTTPS answers", || {
            let stranger = self.stranger();
            stranger
                .try_get("/healthz")
                .ok()
                .filter(|answer| answer.status == 200)
        });
    }

    /// Stops the daemon in order.
    pub(crate) fn stop(&mut self) {
        let daemon = self.daemon.take().expect("it runs");
        let status = daemon.terminate();
        assert!(status.success(), "the daemon ended with {status}");
    }

    pub(crate) fn kill(&mut self) {
        self.daemon.take().expect("it runs").kill();
    }

    pub(crate) fn restart(&mut self) {
        self.stop();
        self.start();
        self.wait_ready();
    }

    /// The daemon's process id.
    pub(crate) fn daemon(&self) -> u32 {
        self.daemon.as_ref().expect("it runs").id()
    }

    /// The worker's process id, found as an operator would: by its command line.
    pub(crate) fn worker(&self) -> Option<u32> {
        pid_with_argument(&self.path("state/token-factory.sock"))
    }

    /// Runs `hallmark`, with any result.
    pub(crate) fn hallmark(&self, arguments: &[&str]) -> CommandOutput {
        self.client().hallmark(arguments)
    }

    /// A client that runs `hallmark` while the test goes on.
    pub(crate) fn client(&self) -> AdminClient {
        AdminClient {
            socket: self.path(self.admin),
        }
    }

    /// Runs `hallmark`, which must succeed; returns its standard output.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = self.hallmark(arguments);
        assert_eq!(output.code, Some(0), "{arguments:?}: {output:?}");
        output.out
    }

    /// Runs `hallmark --json`, which must succeed.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let out = self.run(&[&["--json"], arguments].concat());
        let parsed = serde_json::from_str(&out);
        let answer: Value = parsed.unwrap_or_else(|error| panic!("{arguments:?}: {error}: {out}"));
        if answer["receipt"].is_object() {
            receipts::hold(&self.database(), &self.emulator, &answer);
        }
        answer
    }

    /// Adds a group of an authority at the provisioning service.
    pub(crate) fn add_group(&self, name: &str, authority: &str) {
        let add = [
            "enrollment",
            "add",
            "--group",
            name,
            "--authority",
            authority,
        ];
        self.run(&add);
    }

    /// Waits until certificates can be issued.
    pub(crate) fn wait_ready(&self) {
        until("the daemon is ready", || {
            (self.json(&["status"])["ready"] == true).then_some(())
        });
    }

    /// Waits until nothing is left to do at the provisioning service.
    pub(crate) fn wait_in_sync(&self) {
        let begun = Instant::now();
        loop {
            let queue = self.json(&["push", "list"]);
            if queue == Value::Array(Vec::new()) {
                return;
            }
            assert!(begun.elapsed() < SOON, "this is still to do: {queue:#}");
            std::thread::sleep(PERIOD);
        }
    }

    /// The PEM of an authority.
    pub(crate) fn authority(&self, name: &str) -> String {
        self.run(&["authority", "show", name, "--pem"])
    }

    /// The base address of HTTPS.
    pub(crate) fn https(&self) -> String {
        let address = self.json(&["status"])["https"].as_str().unwrap().to_owned();
        format!("https://{address}")
    }

    /// A client of plain HTTP.
    pub(crate) fn plain_http(&self) -> Caller {
        let address = self.json(&["status"])["http"].as_str().unwrap().to_owned();
        Caller::new(format!("http://{address}"), &self.authority("root"), None)
    }

    /// Compares the receipts of all compromises and blocks, as they are now, with the emulator.
    fn compare_receipts(&self) {
        let store = invariants::open(&self.database());
        let compromises = "roll WHERE reason = 'compromise' AND parent IS NULL";
        for roll in invariants::ids(&store, compromises) {
            self.json(&["roll", "show", &roll.to_string()]);
        }
        for path in invariants::blocks(&store) {
            let shown = self.get(&format!("/v1/blocks/{path}"));
            let answer = serde_json::from_str(&shown).unwrap();
            receipts::hold(&self.database(), &self.emulator, &answer);
        }
    }

    /// A client without a certificate.
    pub(crate) fn stranger(&self) -> Caller {
        Caller::new(self.https(), &self.authority("root"), None)
    }

    /// A client with this certificate.
    pub(crate) fn caller(&self, holder: &Holder) -> Caller {
        Caller::new(self.https(), &self.authority("root"), Some(holder))
    }

    /// A new station's client.
    pub(crate) fn station(&self) -> Caller {
        self.caller(&self.enlist("station", "station-1"))
    }

    /// The client of another station.
    pub(crate) fn station_called(&self, id: &str) -> Caller {
        self.caller(&self.enlist("station", id))
    }

    /// Issues a certificate as an operator over the admin socket.
    pub(crate) fn enlist(&self, profile: &str, id: &str) -> Holder {
        let request = Request::new(profile, id);
        let answer = self.json(&self.issue(&request).each_ref().map(String::as_str));
        request.holder(&answer)
    }

    /// The same, while an authority is being replaced.
    pub(crate) fn enlist_when_possible(&self, profile: &str, id: &str) -> Holder {
        let request = Request::new(profile, id);
        until("the certificate is issued", || self.try_to_issue(&request))
    }

    /// The same, if it is issued at once.
    pub(crate) fn try_to_issue(&self, request: &Request) -> Option<Holder> {
        let command = self.issue(request);
        let command = command.each_ref().map(String::as_str);
        let output = self.hallmark(&[&["--json"], &command[..]].concat());
        // A command that failed prints its error as JSON, too.
        let answer = serde_json::from_str(&output.out).ok();
        let answer = answer.filter(|_| output.code == Some(0))?;
        Some(request.holder(&answer))
    }

    pub(crate) fn issue(&self, request: &Request) -> [String; 7] {
        let csr = self.write(&format!("{}.csr", request.id), &request.csr);
        let csr = csr.to_str().unwrap();
        let (profile, id) = (request.profile.as_str(), request.id.as_str());
        ["issue", "--profile", profile, "--id", id, "--csr", csr].map(str::to_owned)
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path("state/hallmark.db")
    }

    /// Number of entries of the journal except those of the use of keys: a token's test signatures
    /// are recorded some time after its return.
    pub(crate) fn entries(&self) -> i64 {
        self.count("audit WHERE action <> 'key.used'")
    }

    /// Number of rows of `what` (`table WHERE …`).
    pub(crate) fn count(&self, what: &str) -> i64 {
        invariants::count(&invariants::open(&self.database()), what)
    }
}

fn program() -> PathBuf {
    std::env::var_os(ANOTHER_BUILD).map_or_else(|| HALLMARKD.into(), PathBuf::from)
}

/// The same command, with the same process id in the end.
fn in_namespace_of(script: &str, command: &Command) -> Command {
    let mut surrounded = Command::new("unshare");
    surrounded.args(["--mount", "--propagation", "private", "sh", "-ec"]);
    surrounded.arg(format!("{script}exec \"$@\"")).arg("sh");
    surrounded
        .arg(command.get_program())
        .args(command.get_args());
    for (variable, _) in command.get_envs() {
        surrounded.env_remove(variable);
    }
    surrounded
}

impl Drop for TestEnv {
    /// Stops the daemon and checks the invariants, unless the test has failed already.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if self.daemon.is_some() {
            self.compare_receipts();
            self.stop();
        }
        until("its worker ends with it", || {
            self.worker().is_none().then_some(())
        });
        if self.database().exists() {
            invariants::hold(&self.database(), &self.emulator);
            kept::keep(&self.database());
        }
    }
}

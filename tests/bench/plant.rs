//! The measured system: a token, the daemon with its worker, and a station's client certificate.
//!
//! Everything lies in a folder of its own, listens on loopback, and is stopped by its process id.

use crate::scratch_folder;
use anyhow::{Context, bail, ensure};
use rcgen::{CertificateParams, DnType, KeyPair};
use rusqlite::{Connection, OpenFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// SoftHSM, where Debian puts it.
pub(crate) const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
/// The profile that the load asks for.
pub(crate) const PROFILE: &str = "device";

const HALLMARKD: &str = env!("CARGO_BIN_EXE_hallmarkd");
const HALLMARK: &str = env!("CARGO_BIN_EXE_hallmark");
/// How long the daemon may take to come up, and to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Unit of the times in `/proc`: USER_HZ, which is 100 wherever Linux runs.
const CPU_TICK: Duration = Duration::from_millis(10);

pub(crate) struct Plant {
    folder: TempDir,
    /// Short paths, which a Unix socket needs.
    sockets: TempDir,
    daemon: Running,
}

/// Processor time used so far, or in between.
pub(crate) struct CpuTime {
    pub(crate) daemon: Duration,
    pub(crate) worker: Duration,
    pub(crate) load: Duration,
    /// Of all programs on this machine, these three among them.
    pub(crate) machine: Duration,
}

impl CpuTime {
    /// Time that none of these three has used.
    pub(crate) fn elsewhere(&self) -> Duration {
        self.machine
            .saturating_sub(self.daemon + self.worker + self.load)
    }

    pub(crate) fn since(self, before: &CpuTime) -> CpuTime {
        CpuTime {
            daemon: self.daemon.saturating_sub(before.daemon),
            worker: self.worker.saturating_sub(before.worker),
            load: self.load.saturating_sub(before.load),
            machine: self.machine.saturating_sub(before.machine),
        }
    }
}

impl Plant {
    pub(crate) fn build() -> anyhow::Result<Self> {
        let (folder, sockets) = (scratch_folder()?, tempfile::tempdir()?);
        prepare(&folder, &sockets)?;
        let log = File::create(folder.path().join("hallmarkd.log"))?;
        let daemon = Command::new(HALLMARKD)
            .args(["serve", "--config"])
            .arg(folder.path().join("hallmark.toml"))
            .env_remove("CREDENTIALS_DIRECTORY")
            .stderr(log)
            .spawn()
            .context("cannot start hallmarkd")?;
        let plant = Self {
            folder,
            sockets,
            daemon: Running(daemon),
        };
        plant
            .bring_up()
            .inspect_err(|_| plant.show_log())
            .map(|()| plant)
    }

    fn bring_up(&self) -> anyhow::Result<()> {
        self.wait_until("the admin socket", || self.hallmark(&["status"]).is_ok())?;
        self.wait_until("the token", || {
            let status = self.status();
            status.is_ok_and(|status| status["tokens"]["bench"]["state"] == "ready")
        })?;
        self.hallmark(&["ceremony", "run", &self.at("ceremony.toml")])?;
        let authority = self.hallmark(&["authority", "show", "line", "--pem"])?;
        fs::write(self.path("line.pem"), authority)?;
        let root = self.hallmark(&["authority", "show", "root", "--pem"])?;
        fs::write(self.path("root.pem"), root)?;
        self.certify_station()
    }

    fn certify_station(&self) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters
            .distinguished_name
            .push(DnType::CommonName, "station-1");
        fs::write(self.path("station.key"), key.serialize_pem())?;
        let request = parameters.serialize_request(&key)?.pem()?;
        fs::write(self.path("station.csr"), request)?;
        let (csr, pem) = (self.at("station.csr"), self.at("station.pem"));
        let ask = ["issue", "--profile", "station", "--id", "station-1"];
        self.hallmark(&[&ask[..], &["--csr", &csr, "--out", &pem]].concat())?;
        Ok(())
    }

    pub(crate) fn address(&self) -> anyhow::Result<SocketAddr> {
        let status = self.status()?;
        let address = status["https"]
            .as_str()
            .context("HTTPS does not listen yet")?;
        Ok(address.parse()?)
    }

    /// The root that the listener's certificate leads to.
    pub(crate) fn root(&self) -> anyhow::Result<CertificateDer<'static>> {
        Ok(CertificateDer::from_pem_file(self.path("root.pem"))?)
    }

    /// The authority that signs for [`PROFILE`].
    pub(crate) fn authority(&self) -> anyhow::Result<CertificateDer<'static>> {
        Ok(CertificateDer::from_pem_file(self.path("line.pem"))?)
    }

    /// The station's certificate with its chain, and its key.
    pub(crate) fn station(
        &self,
    ) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let chain = CertificateDer::pem_file_iter(self.path("station.pem"))?;
        let key = PrivateKeyDer::from_pem_file(self.path("station.key"))?;
        Ok((chain.collect::<Result<_, _>>()?, key))
    }

    pub(crate) fn pin_file(&self) -> PathBuf {
        self.path("pin")
    }

    pub(crate) fn softhsm_conf(&self) -> PathBuf {
        self.path("softhsm2.conf")
    }

    /// Hex `CKA_ID` of the key that signs for [`PROFILE`].
    pub(crate) fn signing_key_id(&self) -> anyhow::Result<String> {
        let key_id: Vec<u8> = self.database()?.query_row(
            "SELECT key_id FROM generation WHERE authority = 'line' AND state = 'serving'",
            [],
            |row| row.get(0),
        )?;
        Ok(hex::encode(key_id))
    }

    pub(crate) fn cpu_time(&self) -> anyhow::Result<CpuTime> {
        let daemon = self.daemon.0.id();
        let worker = child_of(daemon)?.context("the daemon has no worker")?;
        Ok(CpuTime {
            daemon: cpu_time_of(daemon)?,
            worker: cpu_time_of(worker)?,
            load: cpu_time_of(std::process::id())?,
            machine: cpu_time_of_machine()?,
        })
    }

    /// Stops the daemon, and gives the number of certificates that it left in its database.
    pub(crate) fn stop(mut self) -> anyhow::Result<i64> {
        self.daemon.stop();
        let count = "SELECT count(*) FROM certificate c JOIN intent_state i ON i.id = c.intent
                     WHERE i.profile = ?1 AND i.state = 'issued'";
        let open = "SELECT count(*) FROM intent_state WHERE state = 'intended'";
        let database = self.database()?;
        let open: i64 = database.query_row(open, [], |row| row.get(0))?;
        ensure!(open == 0, "{open} intents were left open");
        Ok(database.query_row(count, [PROFILE], |row| row.get(0))?)
    }

    fn status(&self) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_str(
            &self.hallmark(&["--json", "status"])?,
        )?)
    }

    fn database(&self) -> anyhow::Result<Connection> {
        let path = self.path("state/hallmark.db");
        Ok(Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_ONLY,
        )?)
    }

    /// Output of the `hallmark` command.
    fn hallmark(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(HALLMARK)
            .args(arguments)
            .env(
                "HALLMARK_ADMIN_SOCKET",
                self.sockets.path().join("admin.sock"),
            )
            .output()?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("hallmark {}: {}", arguments.join(" "), reason.trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    pub(crate) fn wait_until(&self, what: &str, holds: impl Fn() -> bool) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        while !holds() {
            ensure!(Instant::now() < until, "{what} did not come about");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn show_log(&self) {
        crate::say(&fs::read_to_string(self.path("hallmarkd.log")).unwrap_or_default());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

/// The token, the configuration and the ceremony file.
fn prepare(folder: &TempDir, sockets: &TempDir) -> anyhow::Result<()> {
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::create_dir(at("tokens"))?;
    fs::write(
        at("softhsm2.conf"),
        format!(
            "directories.tokendir = {}\nlog.level = ERROR\n",
            at("tokens")
        ),
    )?;
    let made = Command::new(HALLMARKD)
        .args(["init-token", "--module", MODULE, "--label", "bench"])
        .args(["--pin-file", &at("pin"), "--so-pin-file", &at("so-pin")])
        .env("SOFTHSM2_CONF", at("softhsm2.conf"))
        .stdout(Stdio::null())
        .status()?;
    ensure!(
        made.success(),
        "no token: is SoftHSM installed? (softhsm-setup/install)"
    );
    let runtime = sockets.path().display().to_string();
    let configuration = configuration(&at("state"), &runtime, &at("pin"), &at("softhsm2.conf"));
    fs::write(at("hallmark.toml"), configuration)?;
    fs::write(at("ceremony.toml"), CEREMONY)?;
    Ok(())
}

fn configuration(state: &str, runtime: &str, pin: &str, softhsm_conf: &str) -> String {
    format!(
        r#"
state_dir = {state:?}
runtime_dir = {runtime:?}

[listen]
https = "127.0.0.1:0"
names = ["localhost"]
profile = "server"

[[token]]
name = "bench"
kind = "pkcs11"
fragment = "softhsm2"
label = "bench"
credential = {pin:?}
[token.environment]
SOFTHSM2_CONF = {softhsm_conf:?}

[[authority]]
name = "root"
token = "bench"
[[authority]]
name = "line"
token = "bench"

[[profile]]
name = "device"
authority = "line"
role = "device"
[profile.certificate]
kind = "leaf"
validity = "90d"
key_types = ["p256"]
key_usage = ["digital_signature"]
extended_key_usage = ["client_auth"]

[[profile]]
name = "station"
authority = "line"
role = "station"
[profile.certificate]
kind = "leaf"
validity = "90d"
key_types = ["p256"]
key_usage = ["digital_signature"]
extended_key_usage = ["client_auth"]

[[profile]]
name = "server"
authority = "line"
role = "server"
[profile.certificate]
kind = "leaf"
validity = "90d"
key_types = ["p256"]
key_usage = ["digital_signature"]
extended_key_usage = ["server_auth"]
subject_alternative_names = "dns_and_ip"

[[station]]
name = "station-1"
profiles = ["device"]
ids = ["*"]
"#
    )
}

const CEREMONY: &str = r#"
name = "bench"

[[authority]]
name = "root"
key_type = "p256"
subject = { common_name = "Bench Root" }
validity = "20y"
path_length = 1

[[authority]]
name = "line"
issuer = "root"
key_type = "p256"
subject = { common_name = "Bench Line" }
validity = "5y"
path_length = 0
"#;

/// A process that is stopped with its owner.
struct Running(Child);

impl Running {
    /// Asks it to end, and insists when it does not.
    fn stop(&mut self) {
        if let Ok(Some(_)) = self.0.try_wait() {
            return;
        }
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Ok(Some(_)) = self.0.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A child of any thread of this process.
fn child_of(process: u32) -> anyhow::Result<Option<u32>> {
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let children = fs::read_to_string(thread?.path().join("children"))?;
        if let Some(child) = children.split_whitespace().next() {
            return Ok(Some(child.parse()?));
        }
    }
    Ok(None)
}

/// Time in which the processors were not idle (proc(5): the first line of `/proc/stat`), time that
/// the machine below a virtual one has taken away included.
fn cpu_time_of_machine() -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let ticks: Vec<u32> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else {
        bail!("/proc/stat is too short");
    };
    Ok(CPU_TICK * (user + nice + system + irq + softirq + steal))
}

/// User and system time of a process (proc(5): fields 14 and 15 of `stat`).
fn cpu_time_of(process: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')').context("stat without a name")?;
    let ticks = |field: usize| -> anyhow::Result<u32> {
        let text = fields.split_whitespace().nth(field - 3);
        Ok(text.context("stat is too short")?.parse()?)
    };
    Ok(CPU_TICK * (ticks(14)? + ticks(15)?))
}

//! Hallmark under load: a token, the daemon with its worker, and a station's client certificate.
//!
//! Everything lies in a folder of its own, listens on loopback, and is stopped by its process id.

use crate::process::{Running, child_of, memory_of, output_of, wait_until};
use crate::scratch_folder;
use crate::target::{Api, PROFILE, Target};
use anyhow::{Context, ensure};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rusqlite::{Connection, OpenFlags};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;
use tokio_rustls::TlsConnector;

/// SoftHSM, where Debian puts it.
pub(crate) const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

const HALLMARKD: &str = env!("CARGO_BIN_EXE_hallmarkd");
const HALLMARK: &str = env!("CARGO_BIN_EXE_hallmark");

/// The keys of a hierarchy, and their token.
#[derive(Clone, Copy)]
pub(crate) struct Keys {
    /// Of the authority that signs for the load.
    pub(crate) line: &'static str,
    pub(crate) token: TokenKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    SoftHsm,
    /// A software TPM.
    Tpm,
}

impl Keys {
    pub(crate) const P256: Self = Self {
        line: "p256",
        token: TokenKind::SoftHsm,
    };
}

pub(crate) struct Plant {
    folder: TempDir,
    /// Short paths, which a Unix socket needs.
    sockets: TempDir,
    keys: Keys,
    daemon: Option<Running>,
}

impl Plant {
    pub(crate) fn build(keys: Keys) -> anyhow::Result<Self> {
        let (folder, sockets) = (scratch_folder()?, tempfile::tempdir()?);
        let mut plant = Self {
            folder,
            sockets,
            keys,
            daemon: None,
        };
        plant.prepare()?;
        plant.start()?;
        let up = plant.bring_up();
        up.inspect_err(|_| plant.show_log())?;
        Ok(plant)
    }

    /// Starts the daemon, and waits for its token.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(HALLMARKD);
        command
            .args(["serve", "--config"])
            .arg(self.path("hallmark.toml"))
            .env_remove("CREDENTIALS_DIRECTORY");
        self.daemon = Some(Running::start(&mut command, &self.path("hallmarkd.log"))?);
        wait_until("the admin socket answers", || self.status().is_ok())?;
        wait_until("the token is ready", || {
            let status = self.status();
            status.is_ok_and(|status| status["tokens"]["bench"]["state"] == "ready")
        })
    }

    pub(crate) fn stop(&mut self) {
        self.daemon = None;
    }

    fn bring_up(&self) -> anyhow::Result<()> {
        self.hallmark(&["ceremony", "run", &self.at("ceremony.toml")])?;
        for authority in ["line", "root"] {
            let pem = self.hallmark(&["authority", "show", authority, "--pem"])?;
            fs::write(self.path(&format!("{authority}.pem")), pem)?;
        }
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters
            .distinguished_name
            .push(DnType::CommonName, "station-1");
        fs::write(self.path("station.key"), key.serialize_pem())?;
        let request = parameters.serialize_request(&key)?.pem()?;
        fs::write(self.path("station.csr"), request)?;
        let (csr, pem) = (self.at("station.csr"), self.at("station.pem"));
        let ask = ["issue", "--profile", "station", "--id", "station-1"];
        self.hallmark(&[&ask[..], &["--csr", &csr, "--out", &pem]].concat())?;
        wait_until("HTTPS listens", || self.address().is_ok())
    }

    /// The load's view of this plant, asked in the way of `api`.
    pub(crate) fn target(&self, name: &'static str, api: Api) -> anyhow::Result<Target> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("root.pem"))?)?;
        let chain = CertificateDer::pem_file_iter(self.path("station.pem"))?;
        let chain = chain.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(self.path("station.key"))?;
        let tls = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        Ok(Target {
            name,
            address: self.address()?,
            tls: Some(TlsConnector::from(Arc::new(tls))),
            api,
            authority: CertificateDer::from_pem_file(self.path("line.pem"))?,
            processes: self.processes()?,
            devices: None,
        })
    }

    /// The daemon, its worker, and a software TPM.
    pub(crate) fn processes(&self) -> anyhow::Result<Vec<u32>> {
        let daemon = self.daemon.as_ref().context("it does not run")?.id();
        let worker = child_of(daemon)?.context("the daemon has no worker")?;
        Ok([daemon, worker].into_iter().chain(self.tpm()).collect())
    }

    fn tpm(&self) -> Option<u32> {
        let pid = fs::read_to_string(self.path("tpm/pid")).ok()?;
        pid.trim().parse().ok()
    }

    /// Resident and proportional memory of these processes together, in KiB.
    pub(crate) fn memory(&self) -> anyhow::Result<[u64; 2]> {
        let [mut resident, mut proportional] = [0, 0];
        for process in self.processes()? {
            let [its_resident, its_proportional] = memory_of(process)?;
            resident += its_resident;
            proportional += its_proportional;
        }
        Ok([resident, proportional])
    }

    fn address(&self) -> anyhow::Result<SocketAddr> {
        let status = self.status()?;
        let address = status["https"].as_str();
        Ok(address.context("HTTPS does not listen yet")?.parse()?)
    }

    pub(crate) fn pin_file(&self) -> PathBuf {
        self.path("pin")
    }

    pub(crate) fn softhsm_conf(&self) -> PathBuf {
        self.path("softhsm2.conf")
    }

    /// Hex `CKA_ID` of the key that signs for the load.
    pub(crate) fn signing_key_id(&self) -> anyhow::Result<String> {
        let key_id: Vec<u8> = self.database()?.query_row(
            "SELECT key_id FROM generation WHERE authority = 'line' AND state = 'serving'",
            [],
            |row| row.get(0),
        )?;
        Ok(hex::encode(key_id))
    }

    /// Fails unless the database has exactly the certificates that were answered, each with a
    /// serial number of its own and nothing left open, and the chain of the journal is whole.
    pub(crate) fn check(&mut self, answered: usize) -> anyhow::Result<()> {
        self.hallmark(&["audit", "verify"])?;
        self.stop();
        let database = self.database()?;
        let count = |sql: &str| database.query_row(sql, [PROFILE], |row| row.get::<_, i64>(0));
        let issued = "FROM intent i JOIN certificate c ON c.intent = i.id WHERE i.profile = ?1";
        let recorded = count(&format!("SELECT count(*) {issued}"))?;
        ensure!(
            usize::try_from(recorded)? == answered,
            "{answered} certificates were answered, the database has {recorded}"
        );
        let serials = count(&format!("SELECT count(DISTINCT i.serial) {issued}"))?;
        ensure!(
            serials == recorded,
            "{recorded} certificates, {serials} serial numbers"
        );
        let intents = count("SELECT count(*) FROM intent WHERE profile = ?1")?;
        ensure!(
            intents == recorded,
            "{} intents have no certificate",
            intents - recorded
        );
        let intact =
            database.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
        ensure!(intact? == "ok", "the database is damaged");
        Ok(())
    }

    pub(crate) fn status(&self) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_str(
            &self.hallmark(&["--json", "status"])?,
        )?)
    }

    pub(crate) fn database(&self) -> anyhow::Result<Connection> {
        let path = self.path("state/hallmark.db");
        Ok(Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_ONLY,
        )?)
    }

    /// Output of the `hallmark` command.
    pub(crate) fn hallmark(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let socket = self.sockets.path().join("admin.sock");
        let mut command = Command::new(HALLMARK);
        output_of(command.args(arguments).env("HALLMARK_ADMIN_SOCKET", socket))
    }

    fn show_log(&self) {
        crate::say(&fs::read_to_string(self.path("hallmarkd.log")).unwrap_or_default());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Makes the token, the configuration and the ceremony file.
    fn prepare(&self) -> anyhow::Result<()> {
        let token = match self.keys.token {
            TokenKind::SoftHsm => self.make_token()?,
            TokenKind::Tpm => self.make_tpm()?,
        };
        let state = self.at("state");
        let runtime = self.sockets.path().display().to_string();
        let head = format!("state_dir = {state:?}\nruntime_dir = {runtime:?}\n");
        fs::write(
            self.path("hallmark.toml"),
            [&head, CONFIGURATION, &token].concat(),
        )?;
        fs::write(
            self.path("ceremony.toml"),
            CEREMONY.replace("@line@", self.keys.line),
        )?;
        Ok(())
    }

    fn make_token(&self) -> anyhow::Result<String> {
        make_softhsm(&self.path("tokens"), &self.path("softhsm2.conf"))?;
        let mut command = Command::new(HALLMARKD);
        command
            .args(["init-token", "--module", MODULE, "--label", "bench"])
            .args([
                "--pin-file",
                &self.at("pin"),
                "--so-pin-file",
                &self.at("so-pin"),
            ])
            .env("SOFTHSM2_CONF", self.softhsm_conf());
        output_of(&mut command).context("no token: softhsm-setup/install installs SoftHSM")?;
        let [pin, conf] = [self.at("pin"), self.at("softhsm2.conf")];
        Ok(format!(
            "[[token]]\nname = \"bench\"\nkind = \"pkcs11\"\nfragment = \"softhsm2\"\n\
             label = \"bench\"\ncredential = {pin:?}\n[token.environment]\n\
             SOFTHSM2_CONF = {conf:?}\n"
        ))
    }

    /// Starts a software TPM, which ends with the plant.
    fn make_tpm(&self) -> anyhow::Result<String> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../softhsm-setup/new-tpm");
        output_of(Command::new(script).args([&self.at("tpm"), "bench"]))
    }
}

impl Drop for Plant {
    fn drop(&mut self) {
        self.stop();
        if let Some(tpm) = self.tpm() {
            crate::process::terminate(tpm);
        }
    }
}

/// Writes a configuration of SoftHSM for a folder of tokens.
pub(crate) fn make_softhsm(tokens: &Path, conf: &Path) -> anyhow::Result<()> {
    fs::create_dir(tokens)?;
    let tokens = tokens.display();
    let text = format!("directories.tokendir = {tokens}\nlog.level = ERROR\n");
    Ok(fs::write(conf, text)?)
}

const CONFIGURATION: &str = r#"
[listen]
https = "127.0.0.1:0"
names = ["localhost"]
profile = "server"

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

"#;

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
key_type = "@line@"
subject = { common_name = "Bench Line" }
validity = "5y"
path_length = 0
"#;

//! The programs that Hallmark is compared with. Each has a folder and a port of its own.
//!
//! `tests/bench/run` fetches them and names them by environment variables; a peer without its
//! variable is left out of the table.

use crate::hallmark::{MODULE, make_softhsm};
use crate::process::{Running, free_port, output_of, wait_until};
use crate::scratch_folder;
use crate::target::{Api, Target};
use anyhow::{Context, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;
use tokio_rustls::TlsConnector;

/// The PIN that the prototype uses.
const PROTOTYPE_PIN: &str = "1234";

/// Starts the peer whose program is at this path.
type Start = fn(&Path) -> anyhow::Result<Peer>;

/// A running peer.
pub(crate) struct Peer {
    pub(crate) target: Target,
    process: Running,
    folder: TempDir,
}

impl Peer {
    /// Starts the peers that there are, and says which are missing.
    pub(crate) fn start_all() -> anyhow::Result<Vec<Self>> {
        let starts: [(&str, &str, Start); 3] = [
            ("prototype", "BENCH_PROTOTYPE", prototype),
            ("cfssl", "BENCH_CFSSL", cfssl),
            ("OpenBao", "BENCH_OPENBAO", openbao),
        ];
        let mut peers = Vec::new();
        for (name, variable, start) in starts {
            match std::env::var_os(variable).map(PathBuf::from) {
                Some(program) if program.is_file() => {
                    peers.push(start(&program).context(name)?);
                }
                _ => crate::say(&format!("{name} is left out: {variable} names no program")),
            }
        }
        Ok(peers)
    }

    /// A peer that answers at this port, without TLS.
    fn new(
        name: &'static str,
        port: u16,
        api: Api,
        authority: CertificateDer<'static>,
        process: Running,
        folder: TempDir,
    ) -> Self {
        let target = Target {
            name,
            address: ([127, 0, 0, 1], port).into(),
            tls: None,
            api,
            authority,
            processes: vec![process.id()],
            devices: None,
        };
        Self {
            target,
            process,
            folder,
        }
    }

    /// Stops it. The prototype, which keeps rows, must have as many as it has answered.
    pub(crate) fn check(mut self, answered: usize) -> anyhow::Result<()> {
        self.process.stop();
        if !matches!(self.target.api, Api::Prototype) {
            return Ok(());
        }
        let database = rusqlite::Connection::open(self.folder.path().join("prototype.db"))?;
        let count = "SELECT count(DISTINCT serial) FROM certs";
        let recorded: i64 = database.query_row(count, [], |row| row.get(0))?;
        ensure!(
            usize::try_from(recorded)? == answered,
            "the prototype has {recorded} rows for {answered} answers"
        );
        Ok(())
    }
}

/// An authority with its key in files.
fn authority() -> anyhow::Result<CertifiedIssuer<'static, KeyPair>> {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.distinguished_name = DistinguishedName::new();
    parameters
        .distinguished_name
        .push(DnType::CommonName, "Bench Peer");
    Ok(CertifiedIssuer::self_signed(
        parameters,
        KeyPair::generate()?,
    )?)
}

/// One file, no records before signing; run with the check of its own signature, over mutual TLS.
fn prototype(program: &Path) -> anyhow::Result<Peer> {
    let folder = scratch_folder()?;
    let at = |name: &str| folder.path().join(name);
    let ca = authority()?;
    fs::write(at("ca.pem"), ca.pem())?;
    fs::write(at("ca.key"), ca.key().serialize_pem())?;
    let mut ends = Vec::new();
    for name in ["server", "client"] {
        let key = KeyPair::generate()?;
        let parameters = CertificateParams::new(vec!["localhost".to_owned()])?;
        let certificate = parameters.signed_by(&key, &ca)?;
        fs::write(at(&format!("{name}.pem")), certificate.pem())?;
        fs::write(at(&format!("{name}.key")), key.serialize_pem())?;
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?;
        ends.push((certificate.der().clone(), key));
    }
    make_softhsm(&at("tokens"), &at("softhsm2.conf"))?;
    let softhsm = |arguments: &[&str]| {
        let mut command = Command::new("softhsm2-util");
        let command = command
            .args(arguments)
            .env("SOFTHSM2_CONF", at("softhsm2.conf"));
        output_of(command)
    };
    let pin = ["--pin", PROTOTYPE_PIN];
    let token = [
        "--init-token",
        "--free",
        "--label",
        "peer",
        "--so-pin",
        PROTOTYPE_PIN,
    ];
    softhsm(&[&token[..], &pin].concat())?;
    let key = at("ca.key").display().to_string();
    let import = [
        "--import", &key, "--token", "peer", "--label", "ca", "--id", "01",
    ];
    softhsm(&[&import[..], &pin].concat())?;
    let port = free_port()?;
    let mut command = Command::new(program);
    command
        .args([
            "--mode",
            "mtls",
            "--label",
            "ca",
            "--signers",
            "2",
            "--selfcheck",
        ])
        .args(["--module", MODULE, "--listen", &format!("127.0.0.1:{port}")])
        .arg("--ca")
        .arg(at("ca.pem"))
        .arg("--cert")
        .arg(at("server.pem"))
        .arg("--key")
        .arg(at("server.key"))
        .arg("--db")
        .arg(at("prototype.db"))
        .env("SOFTHSM2_CONF", at("softhsm2.conf"));
    let process = Running::start(&mut command, &at("log"))?;
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone())?;
    let (chain, key) = ends.pop().context("a client")?;
    let tls = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![chain], key)?;
    let mut peer = Peer::new(
        "prototype",
        port,
        Api::Prototype,
        ca.der().clone(),
        process,
        folder,
    );
    peer.target.tls = Some(TlsConnector::from(Arc::new(tls)));
    Ok(peer)
}

/// `cfssl serve`: a key in a file, no database, plain HTTP.
fn cfssl(program: &Path) -> anyhow::Result<Peer> {
    let folder = scratch_folder()?;
    let at = |name: &str| folder.path().join(name);
    let ca = authority()?;
    fs::write(at("ca.pem"), ca.pem())?;
    // It reads no PKCS #8.
    fs::write(at("pkcs8.key"), ca.key().serialize_pem())?;
    let sec1 = output_of(
        Command::new("openssl")
            .args(["ec", "-in"])
            .arg(at("pkcs8.key")),
    )?;
    fs::write(at("ca.key"), sec1)?;
    let usages = json!(["signing", "client auth"]);
    let profile = json!({ "signing": { "default": { "expiry": "2160h", "usages": usages } } });
    fs::write(at("config.json"), profile.to_string())?;
    let port = free_port()?;
    let mut command = Command::new(program);
    command
        .args(["serve", "-loglevel", "5", "-address", "127.0.0.1"])
        .args(["-port", &port.to_string(), "-ca"])
        .arg(at("ca.pem"))
        .arg("-ca-key")
        .arg(at("ca.key"))
        .arg("-config")
        .arg(at("config.json"));
    let process = Running::start(&mut command, &at("log"))?;
    Ok(Peer::new(
        "cfssl",
        port,
        Api::Cfssl,
        ca.der().clone(),
        process,
        folder,
    ))
}

/// OpenBao with integrated storage (raft): a key in its storage, certificates stored, plain HTTP.
fn openbao(program: &Path) -> anyhow::Result<Peer> {
    let folder = scratch_folder()?;
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("raft"))?;
    let [port, cluster] = [free_port()?, free_port()?];
    let base = format!("http://127.0.0.1:{port}");
    let configuration = json!({
        "storage": { "raft": { "path": at("raft"), "node_id": "bench" } },
        "listener": { "tcp": { "address": format!("127.0.0.1:{port}"), "tls_disable": true } },
        "api_addr": base,
        "cluster_addr": format!("http://127.0.0.1:{cluster}"),
        "log_level": "error",
    });
    fs::write(at("config.json"), configuration.to_string())?;
    let mut command = Command::new(program);
    command.args(["server", "-config"]).arg(at("config.json"));
    let process = Running::start(&mut command, &at("log"))?;
    let http = reqwest::blocking::Client::builder().no_proxy().build()?;
    let post = |path: &str, token: &str, body: Value| -> anyhow::Result<Value> {
        let request = http.post(format!("{base}/v1/{path}")).json(&body);
        let answer = request.header("x-vault-token", token).send()?;
        let status = answer.status();
        let text = answer.text()?;
        ensure!(status.is_success(), "{path}: {status}: {text}");
        Ok(serde_json::from_str(&text).unwrap_or_default())
    };
    wait_until("OpenBao listens", || {
        http.get(format!("{base}/v1/sys/health")).send().is_ok()
    })?;
    let shares = json!({ "secret_shares": 1, "secret_threshold": 1 });
    let made = post("sys/init", "", shares)?;
    let token = made["root_token"].as_str().context("no token")?.to_owned();
    post("sys/unseal", "", json!({ "key": made["keys"][0] }))?;
    wait_until("OpenBao is its own leader", || {
        post("sys/mounts/pki", &token, json!({ "type": "pki" })).is_ok()
    })?;
    let root = json!({ "common_name": "Bench Peer", "key_type": "ec", "key_bits": 256 });
    let root = post("pki/root/generate/internal", &token, root)?;
    let pem = root["data"]["certificate"].as_str().context("no root")?;
    let authority = CertificateDer::from_pem_slice(pem.as_bytes())?;
    let role = json!({
        "allow_any_name": true, "enforce_hostnames": false, "key_type": "ec", "key_bits": 256,
        "server_flag": false, "ttl": "720h", "use_csr_sans": false, "no_store": false,
    });
    post("pki/roles/device", &token, role)?;
    Ok(Peer::new(
        "OpenBao",
        port,
        Api::OpenBao(token),
        authority,
        process,
        folder,
    ))
}

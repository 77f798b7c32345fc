//! A real SoftHSM token `factory`, its worker process, and the operator's commands.

use hallmarkd::provisioning::credential::keys::TokenKeys;
use hallmarkd::service::token_keys;
use hallmarkd::token::client::TokenClient;
use hallmarkd::token::health::TokenState;
use hallmarkd::token::supervisor::{Supervisor, WorkerCommand};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

const HALLMARKD: &str = env!("CARGO_BIN_EXE_hallmarkd");
const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

pub(crate) struct Factory {
    pub(crate) client: TokenClient,
    _supervisor: Supervisor,
    folder: TempDir,
}

impl Factory {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        make_token(folder.path());
        let client = TokenClient::new("factory", folder.path().join("factory.sock"));
        let command = WorkerCommand {
            program: HALLMARKD.into(),
            arguments: ["token", "factory", "--config"]
                .map(Into::into)
                .into_iter()
                .chain([configuration(folder.path()).into_os_string()])
                .collect(),
            socket: folder.path().join("factory.sock"),
            environment: Default::default(),
        };
        let factory = Self {
            _supervisor: Supervisor::start(client.clone(), command),
            client,
            folder,
        };
        let health = factory.client.wait_ready(Duration::from_secs(20));
        assert_eq!(health.state, TokenState::Ready, "{health:?}");
        factory
    }

    /// Its credential keys, as `serve` hands them to the clients.
    pub(crate) fn keys(&self) -> TokenKeys {
        token_keys([&self.client])
    }

    /// A file beside the token.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// One of the commands that put credential keys into the token.
    pub(crate) fn run(&self, command: &str, more: &[&str]) -> Output {
        Command::new(HALLMARKD)
            .args([command, "--token", "factory", "--config"])
            .arg(configuration(self.folder.path()))
            .args(more)
            .output()
            .unwrap()
    }
}

fn make_token(folder: &Path) {
    let at = |name: &str| folder.join(name);
    std::fs::create_dir(at("tokens")).unwrap();
    let tokens = at("tokens");
    let softhsm = format!("directories.tokendir = {}\n", tokens.display());
    std::fs::write(at("softhsm2.conf"), softhsm).unwrap();
    let status = Command::new(HALLMARKD)
        .args(["init-token", "--label", "factory", "--module", MODULE])
        .arg("--pin-file")
        .arg(at("pin"))
        .arg("--so-pin-file")
        .arg(at("so-pin"))
        .env("SOFTHSM2_CONF", at("softhsm2.conf"))
        .status()
        .unwrap();
    assert!(status.success(), "softhsm-setup/install brings SoftHSM");
    let text = format!(
        "state_dir = {folder:?}\n[listen]\n[[token]]\nname = \"factory\"\nkind = \"pkcs11\"\n\
         fragment = \"softhsm2\"\nlabel = \"factory\"\ncredential = {pin:?}\n\
         [token.environment]\nSOFTHSM2_CONF = {softhsm:?}\n",
        pin = at("pin"),
        softhsm = at("softhsm2.conf"),
    );
    std::fs::write(configuration(folder), text).unwrap();
}

fn configuration(folder: &Path) -> PathBuf {
    folder.join("hallmark.toml")
}

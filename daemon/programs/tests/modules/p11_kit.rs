//! p11-kit remote, in front of SoftHSM: a module behind a socket, whose server can be stopped.

use crate::fixture::{Fixture, Running, appears, until};
use crate::{softhsm, table};
use hallmarkd::token::{KeySpecification, TokenError};
use hallmarkd::x509::key::KeyType;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(5);

/// SoftHSM behind a server that can be restarted.
pub(crate) struct Remote {
    pub(crate) fixture: Fixture,
    softhsm: BTreeMap<String, String>,
}

impl Remote {
    pub(crate) fn make() -> Self {
        let mut fixture = Fixture::new("p11-kit", "factory");
        softhsm::make(&mut fixture);
        let softhsm = std::mem::take(&mut fixture.environment);
        let socket = fixture.text("p11-kit.sock");
        fixture.set("P11_KIT_SERVER_ADDRESS", format!("unix:path={socket}"));
        Self { fixture, softhsm }
    }

    /// Makes another way to the SoftHSM token of `tried`.
    pub(crate) fn of(tried: &Fixture) -> Self {
        let mut fixture = Fixture::new("p11-kit", tried.label);
        let pin = fs::read_to_string(tried.path("pin")).unwrap();
        fixture.write_secret("pin", &pin);
        let socket = fixture.text("p11-kit.sock");
        fixture.set("P11_KIT_SERVER_ADDRESS", format!("unix:path={socket}"));
        let softhsm = tried.environment.clone();
        Self { fixture, softhsm }
    }

    pub(crate) fn server(&self) -> Running {
        let socket = self.fixture.path("p11-kit.sock");
        let _ = fs::remove_file(&socket);
        let mut server = Command::new("p11-kit");
        server.args(["server", "-f", "-n"]).arg(&socket);
        server.arg("--provider").arg(Fixture::module("softhsm2"));
        let running = Running::start(server.arg("pkcs11:").envs(&self.softhsm));
        appears(&socket);
        running
    }
}

#[test]
fn p11_kit_keeps_the_contract() {
    let remote = Remote::make();
    let _server = remote.server();
    table::holds("p11-kit 0.24.1, SoftHSM behind it", &remote.fixture.check());
}

/// A killed server acts like an unplugged HSM: every call returns CKR_DEVICE_ERROR until C_Finalize
/// and C_Initialize.
#[test]
fn a_token_behind_a_restarted_server_signs_again_without_a_restart_of_the_worker() {
    let remote = Remote::make();
    let server = remote.server();
    let (client, _supervisor) = remote.fixture.start();
    let key = KeySpecification {
        key_type: KeyType::P256,
        label: "ca".into(),
        id: vec![7; 16],
    };
    let key = client.generate(&key, DEADLINE).unwrap();
    client.prove(&key, DEADLINE).unwrap();
    drop(server);
    let error = client.prove(&key, DEADLINE).unwrap_err();
    assert!(matches!(error, TokenError::Unavailable { .. }), "{error:?}");
    let _server = remote.server();
    until("it signs again", || client.prove(&key, DEADLINE).ok());
    assert_eq!(client.health().restarts, 0);
}

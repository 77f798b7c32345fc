//! p11-kit remote, in front of SoftHSM: a module behind a socket.

use crate::rig::{Rig, Running, appears};
use crate::{softhsm, table};
use std::process::Command;

#[test]
fn p11_kit_keeps_the_contract() {
    let mut rig = Rig::new("p11-kit", "factory");
    softhsm::make(&mut rig);
    let socket = rig.path("p11-kit.sock");
    let mut server = Command::new("p11-kit");
    server
        .args(["server", "-f", "-n"])
        .arg(&socket)
        .arg("--provider");
    server
        .arg(Rig::module("softhsm2"))
        .arg("pkcs11:")
        .envs(&rig.environment);
    let _server = Running::start(&mut server);
    appears(&socket);
    rig.environment.clear();
    rig.set(
        "P11_KIT_SERVER_ADDRESS",
        format!("unix:path={}", socket.display()),
    );
    table::holds("p11-kit 0.24.1, SoftHSM behind it", &rig.check());
}

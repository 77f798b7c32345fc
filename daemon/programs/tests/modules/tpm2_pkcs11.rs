//! tpm2-pkcs11 on swtpm, with a resource manager between them: a TPM has slots for three keys.

use crate::fixture::{Fixture, Running, until};
use crate::{pin, table};
use hallmarkd::x509::key::KeyType;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};

/// Starts a TPM simulator; returns its port.
fn swtpm(fixture: &Fixture) -> (Running, u16) {
    let state = fixture.folder("swtpm");
    until("swtpm listens", || {
        let port = two_free_ports()?;
        let mut command = Command::new("swtpm");
        command.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"]);
        command
            .arg("--tpmstate")
            .arg(format!("dir={}", state.display()));
        command
            .arg("--server")
            .arg(format!("type=tcp,port={port},bindaddr=127.0.0.1"));
        command
            .arg("--ctrl")
            .arg(format!("type=tcp,port={},bindaddr=127.0.0.1", port + 1));
        let mut swtpm = Running::start(command.stderr(Stdio::null()));
        // Another process may have taken a port since; then the simulator ends, and others are
        // tried.
        until("swtpm listens or ends", || {
            (swtpm.has_ended() || is_taken(port)).then_some(())
        });
        (!swtpm.has_ended()).then_some((swtpm, port))
    })
}

/// Returns a port whose next one is free, too: the library expects the control channel there.
fn two_free_ports() -> Option<u16> {
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = first.local_addr().unwrap().port();
    let next = port.checked_add(1)?;
    TcpListener::bind(("127.0.0.1", next)).ok().map(|_| port)
}

fn is_taken(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_err()
}

/// Starts a message bus; returns its address.
fn bus() -> (Running, String) {
    let mut command = Command::new("dbus-daemon");
    command.args(["--session", "--nofork", "--print-address"]);
    let mut bus = Running::start(command.stdout(Stdio::piped()));
    let mut address = String::new();
    let output = bus.child().stdout.take().unwrap();
    BufReader::new(output).read_line(&mut address).unwrap();
    (bus, address.trim().to_owned())
}

/// Makes a token, and starts the processes below it.
pub(crate) fn prepared() -> (Fixture, [Running; 3]) {
    let mut fixture = Fixture::new("tpm2-pkcs11", "gateway");
    let (swtpm, port) = swtpm(&fixture);
    let (bus, address) = bus();
    let mut command = Command::new("tpm2-abrmd");
    command.args(["--session", "--allow-root", "--flush-all"]);
    command.arg(format!("--tcti=swtpm:host=127.0.0.1,port={port}"));
    command.env("DBUS_SESSION_BUS_ADDRESS", &address);
    let resource_manager = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
    let store = fixture.folder("store").display().to_string();
    fixture.set("DBUS_SESSION_BUS_ADDRESS", address);
    fixture.set("TPM2_PKCS11_TCTI", "tabrmd:bus_type=session");
    fixture.set("TPM2_PKCS11_STORE", store);
    fixture.set("TPM2_PKCS11_LOG_LEVEL", "0");
    fixture.set("TSS2_LOG", "all+none");
    until("the token is made", || {
        fixture
            .init_token("tpm2-pkcs11")
            .status
            .success()
            .then_some(())
    });
    (fixture, [resource_manager, bus, swtpm])
}

#[test]
fn tpm2_pkcs11_keeps_the_contract() {
    let (fixture, _processes) = prepared();
    // It makes a P-521 key, and cannot sign with it (CKR_HOST_MEMORY).
    let signs = KeyType::ALL.into_iter().filter(|it| *it != KeyType::P521);
    let report = fixture.check_with(&signs.collect::<Vec<_>>());
    table::holds("tpm2-pkcs11 1.9.0, swtpm behind it", &report);
}

#[test]
fn tpm2_pkcs11_is_never_locked_by_us() {
    let (fixture, _processes) = prepared();
    let pin = std::fs::read_to_string(fixture.path("pin")).unwrap();
    pin::is_never_locked(&fixture, pin.trim(), &|| {});
}

//! Tests a TPM behind tpm2-abrmd, which `tests/install-modules` installs.

use crate::fixture::{DEADLINE, Fixture};
use crate::software_tpm::SoftwareTpm;
use hallmarkd::token::contract::{self, Scope};
use hallmarkd::token::health::TokenState;
use hallmarkd::x509::key::KeyType;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// tpm2-abrmd on its own bus, in front of the fixture's TPM. It ends with its test.
struct ResourceManager {
    bus: Child,
    manager: Child,
    bus_address: String,
}

impl ResourceManager {
    fn start(tpm: &SoftwareTpm) -> Self {
        let mut bus = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon: tests/install-modules installs it");
        let mut address = String::new();
        let mut output = BufReader::new(bus.stdout.take().unwrap());
        output.read_line(&mut address).unwrap();
        let bus_address = address.trim().to_owned();
        let manager = Command::new("tpm2-abrmd")
            .args(["--session", "--allow-root", "--flush-all"])
            .arg(format!("--tcti={}", tpm.tcti()))
            .env("DBUS_SESSION_BUS_ADDRESS", &bus_address)
            .env("G_MESSAGES_DEBUG", "")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tpm2-abrmd: tests/install-modules installs it");
        Self {
            bus,
            manager,
            bus_address,
        }
    }
}

impl Drop for ResourceManager {
    fn drop(&mut self) {
        for process in [&mut self.manager, &mut self.bus] {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Behind a resource manager each program has its own three slots, and objects of a killed worker
/// are flushed: two workers run at once, and leave nothing.
#[test]
fn behind_a_resource_manager_the_contract_holds_for_two_workers_at_once() {
    let fixture = Fixture::new();
    let manager = ResourceManager::start(&fixture.tpm);
    let configuration = fs::read_to_string(fixture.path("hallmark.toml")).unwrap();
    let configuration = configuration.replace(&fixture.tpm.tcti(), "tabrmd:bus_type=session")
        + &format!(
            "[token.environment]\nDBUS_SESSION_BUS_ADDRESS = {:?}\n",
            manager.bus_address
        );
    fs::write(fixture.path("hallmark.toml"), configuration).unwrap();
    let (first, second) = (fixture.start(), fixture.start_on("second.sock"));
    let key = first.key();
    second.wait_for(TokenState::Ready);
    std::thread::scope(|scope| {
        let (client, key) = (&second.client, &key);
        scope.spawn(move || {
            for _ in 0..50 {
                client.prove(key, DEADLINE).unwrap();
            }
        });
        let scope = Scope {
            key_types: &[KeyType::P256],
            tells_local: true,
        };
        let report = contract::check_client(&first.client, scope, &mut |_| {});
        assert!(report.is_good(), "{report:?}");
    });
    fixture.kill_worker();
    first.signs_again(&key);
    second.client.prove(&key, DEADLINE).unwrap();
}

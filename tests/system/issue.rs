//! Tests the main path from the ceremony to an assigned device, the places where no secret is, and
//! the seal of the journal.

use crate::device::is_assigned;
use crate::invariants::open;
use crate::request::{Request, der};
use crate::test_env::TestEnv;
use rusqlite::Connection;
use std::fs;
use std::path::Path;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Verifies: every certificate satisfies `openssl verify -x509_strict`; the chain given to a device
/// ends with the root that DPS verified; a device is assigned by its group; the device's common
/// name is its registration id.
#[test]
fn a_station_gets_a_certificate_for_a_device_that_is_then_assigned_by_its_group() {
    let env = TestEnv::running();
    env.add_group("line-1", "line-1");
    env.wait_in_sync();
    let root = env.authority("root");
    let station = env.enlist("station", "station-1");
    station.is_accepted_by_openssl(&root);

    let device = env.caller(&station).obtain(&Request::device("press-7"));

    device.is_accepted_by_openssl(&root);
    let above = ["line-1", "plant", "root"].map(|name| der(&env.authority(name)));
    let chain: Vec<_> = device.chain.iter().map(|pem| der(pem)).collect();
    assert_eq!(chain, above);
    is_assigned(&env.emulator, &device);
    let seen = env.json(&["device", "show", "press-7"]);
    assert_eq!(seen["serial"], device.serial);
    assert_eq!(seen["thumbprint"], device.thumbprint);
}

/// Hallmark sets the name, so a CSR without a name is accepted. RSA is accepted where the profile
/// says so. The profile decides about the usage of a certificate.
#[test]
fn a_csr_gives_a_key_and_the_profile_gives_the_rest() {
    let env = TestEnv::running();
    let station = env.station();
    let rsa = Request::by_openssl("rsa-1", &env.path(""), &["rsa:2048"]);
    for request in [Request::named("device", "nameless-1", None), rsa] {
        let device = station.obtain(&request);
        device.is_accepted_by_openssl(&env.authority("root"));
        let leaf = der(&device.certificate);
        let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
        let name = leaf.subject().iter_common_name().next().unwrap();
        assert_eq!(name.as_str().unwrap(), request.id);
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any);
        assert!(!leaf.is_ca());
    }
}

/// `serve` faces the network, and must have no secret: no token library, no PIN.
#[test]
fn only_the_worker_loads_the_token_library_and_no_process_shows_the_pin() {
    let env = TestEnv::running();
    env.station().obtain(&Request::device("press-7"));
    let worker = env.worker().expect("a worker runs");
    let maps = |pid: u32| fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    assert!(maps(worker).contains("libsofthsm2.so"));
    assert!(maps(worker).contains("libtss2-esys"), "linked");
    for library in ["softhsm", "libtss2"] {
        assert!(!maps(env.daemon()).contains(library), "{library}");
    }

    let pin = fs::read_to_string(env.path("pin")).unwrap();
    let pin = pin.trim();
    assert!(pin.len() >= 6, "too short to be looked for");
    for pid in [env.daemon(), worker] {
        for place in ["cmdline", "environ"] {
            let bytes = fs::read(format!("/proc/{pid}/{place}")).unwrap();
            assert!(!contains(&bytes, pin), "{place} of {pid}");
        }
    }
    let mut files = files_below(&env.path("state"));
    assert!(files.iter().any(|file| file.ends_with("hallmark.db")));
    files.push(env.path("hallmarkd.log"));
    for file in files {
        assert!(
            !contains(&fs::read(&file).unwrap(), pin),
            "{}",
            file.display()
        );
    }
}

/// The journal is a hash chain: `audit verify` finds an entry that was changed behind the daemon's
/// back.
#[test]
fn a_changed_entry_of_the_journal_is_found() {
    let mut env = TestEnv::running();
    env.run(&["audit", "verify"]);
    env.stop();
    let honest = env.path("honest.db");
    fs::copy(env.database(), &honest).unwrap();
    tamper(&env.database());
    env.start();
    let output = env.hallmark(&["audit", "verify"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.error.contains("broken at entry 2"), "{output:?}");
    env.stop();
    fs::copy(honest, env.database()).unwrap();
}

/// Changes one word of entry 2, past the triggers.
fn tamper(database: &Path) {
    let connection = Connection::open(database).unwrap();
    let changed = connection.execute_batch(
        "DROP TRIGGER audit_is_append_only_update;
         UPDATE audit SET actor = 'somebody else' WHERE sequence = 2;
         PRAGMA wal_checkpoint(TRUNCATE);",
    );
    changed.unwrap();
    let (actor,): (String,) = open(database)
        .query_row("SELECT actor FROM audit WHERE sequence = 2", [], |row| {
            Ok((row.get(0)?,))
        })
        .unwrap();
    assert_eq!(actor, "somebody else");
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    let needle = needle.as_bytes();
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

/// Regular files only; a socket holds no content.
fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files_below(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}

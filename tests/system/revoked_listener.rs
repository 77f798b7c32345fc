//! Tests that a revoked certificate of the daemon's own HTTPS listener is replaced, and presented
//! to no client.

use crate::keepalive::KeepAlive;
use crate::process::{SOON, until};
use crate::revoked_callers::{SOMEWHERE, is_identified, revoke};
use crate::test_env::TestEnv;
use serde_json::json;
use std::fs;
use std::time::Instant;
use x509_parser::prelude::{FromDer, X509Certificate};

fn serial_of(der: &[u8]) -> String {
    let (_, parsed) = X509Certificate::from_der(der).unwrap();
    hex::encode_upper(parsed.tbs_certificate.serial.to_bytes_be())
}

/// The listener's own certificate. Verifies: from the answer on it is not presented; a new one is,
/// with another key, and stays after a restart; kept-alive connections go on.
#[test]
fn the_listeners_own_certificate_is_replaced_at_once() {
    let mut env = TestEnv::running();
    let station = env.enlist("station", "station-1");
    let mut kept = KeepAlive::secured(&env, &station);
    let file = env.path("state/tls/server.pem");
    let key = || fs::read_to_string(env.path("state/tls/server.key")).unwrap();
    let old = serial_of(&kept.presented);
    let old_key = key();
    let named = ["--file", file.to_str().unwrap()];
    let output = revoke(&env, &[&named[..], &["--reason", "keyCompromise"]].concat());
    assert_eq!(
        (&output["serial"], &output["role"]),
        (&json!(old), &json!("server"))
    );
    let begun = Instant::now();
    let mut new = loop {
        if let Ok(connection) = KeepAlive::try_secured(&env, &station) {
            break connection;
        }
        assert!(begun.elapsed() < SOON, "HTTPS does not come back");
    };
    let presented = serial_of(&new.presented);
    assert_ne!(presented, old, "the revoked certificate is presented");
    is_identified(&new.asks(SOMEWHERE));
    is_identified(&kept.asks(SOMEWHERE));
    assert_ne!(key(), old_key);
    env.restart();
    let after = until("HTTPS answers", || {
        KeepAlive::try_secured(&env, &station).ok()
    });
    assert_eq!(serial_of(&after.presented), presented);
}

/// The daemon stops before the new one is there. Verifies: the next start does not present the
/// revoked one.
#[test]
fn a_revoked_certificate_of_the_listener_is_not_presented_by_the_next_start() {
    let mut env = TestEnv::running();
    let station = env.enlist("station", "station-1");
    let [pem, key] = ["server.pem", "server.key"].map(|name| env.path("state/tls").join(name));
    let files = [&pem, &key].map(|path| fs::read(path).unwrap());
    let named = ["--file", pem.to_str().unwrap()];
    let output = revoke(&env, &[&named[..], &["--reason", "superseded"]].concat());
    env.stop();
    for (path, bytes) in [&pem, &key].into_iter().zip(files) {
        fs::write(path, bytes).unwrap();
    }
    env.start();
    let begun = Instant::now();
    let presented = loop {
        if let Ok(connection) = KeepAlive::try_secured(&env, &station) {
            break serial_of(&connection.presented);
        }
        assert!(begun.elapsed() < SOON, "HTTPS does not come back");
    };
    assert_ne!(output["serial"], presented);
}

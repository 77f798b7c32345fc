//! Tests that a module that finds no token is explained by its environment: the variable, the path,
//! and what is wrong with it.

use crate::fixture::{Fixture, until};
use crate::{nss, p11_kit, softhsm};
use hallmarkd::token::health::TokenState;
use std::fs;

/// Checks that the token is unavailable for a reason with these words.
fn explains(fixture: &Fixture, words: &[&str]) {
    let (client, _supervisor) = fixture.begin();
    let health = until("the module has failed", || {
        let health = client.health();
        health.reason.contains("initialize").then_some(health)
    });
    let reason = &health.reason;
    assert_eq!(health.state, TokenState::Unavailable, "{reason}");
    assert!(
        words.iter().all(|it| reason.contains(it)),
        "{words:?}: {reason}"
    );
    assert_eq!(health.recoveries.logins, 0);
}

#[test]
fn a_wrong_configuration_of_softhsm_is_named() {
    let mut fixture = Fixture::new("softhsm2", "factory");
    softhsm::make(&mut fixture);
    let missing = fixture.text("missing.conf");
    fixture.set("SOFTHSM2_CONF", missing.clone());
    explains(&fixture, &["SOFTHSM2_CONF", &missing, "No such file"]);

    let told = fixture.init_token("softhsm2");
    let words = String::from_utf8(told.stderr).unwrap();
    assert!(!told.status.success());
    assert!(
        words.contains("SOFTHSM2_CONF") && words.contains(&missing),
        "{words}"
    );

    let away = fixture.text("away");
    fs::write(&missing, format!("directories.tokendir = {away}\n")).unwrap();
    explains(
        &fixture,
        &["SOFTHSM2_CONF", &missing, &away, "No such file"],
    );
    // A folder without the token: nothing is wrong with it, and it is not the right one.
    fs::create_dir(&away).unwrap();
    explains(
        &fixture,
        &["labelled \"factory\"", "SOFTHSM2_CONF", &missing],
    );
}

#[test]
fn a_wrong_folder_of_nss_is_named() {
    let mut fixture = nss::prepared();
    let missing = fixture.text("missing");
    fixture.set("NSS_CONFIGDIR", missing.clone());
    explains(&fixture, &["NSS_CONFIGDIR", &missing, "No such file"]);
}

#[test]
fn a_missing_server_of_p11_kit_is_named() {
    let remote = p11_kit::Remote::make();
    let socket = remote.fixture.text("p11-kit.sock");
    explains(
        &remote.fixture,
        &["P11_KIT_SERVER_ADDRESS", &socket, "No such file"],
    );
}

#[test]
fn a_missing_daemon_of_opencryptoki_is_named() {
    let fixture = Fixture::new("opencryptoki", "factory");
    fixture.write_secret("pin", "13572468");
    explains(&fixture, &["/run/pkcsslotd.socket", "start the program"]);
}

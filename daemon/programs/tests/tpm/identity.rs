//! Tests another TPM, a cleared one, another credential, an altered record, and a lockout by
//! another program.

use crate::fixture::{CREDENTIAL, DEADLINE, Fixture};
use hallmarkd::token::TokenError;
use hallmarkd::token::health::TokenState;
use std::fs;

#[test]
fn a_wrong_credential_is_tried_once_and_adds_to_no_counter() {
    let fixture = Fixture::new();
    let running = fixture.start();
    let key = running.key();
    running.client.prove(&key, DEADLINE).unwrap();
    drop(running);

    fixture.write_credential("another credential of 16 bytes or more");
    let running = fixture.start();
    let health = running.wait_for(TokenState::Parked);
    assert!(health.reason.contains("BadAuth"), "{health:?}");
    let error = running.client.prove(&key, DEADLINE).expect_err("parked");
    assert!(matches!(error, TokenError::Parked { .. }), "{error:?}");
    fixture.kill_worker();
    running.wait_for(TokenState::Unavailable);
    let health = running.wait_for(TokenState::Parked);
    assert_eq!(
        health.recoveries.logins, 0,
        "the next worker has not tried it"
    );
    let properties = fixture.tpm.tool("tpm2_getcap", &["properties-variable"]);
    assert!(
        properties.contains("TPM2_PT_LOCKOUT_COUNTER: 0x0"),
        "{properties}"
    );

    fixture.write_credential(CREDENTIAL);
    running.wait_for(TokenState::Ready);
    running.client.prove(&key, DEADLINE).unwrap();
}

#[test]
fn a_credential_that_can_be_guessed_is_refused() {
    let fixture = Fixture::new();
    fixture.write_credential("1234");
    let running = fixture.start();
    let health = running.wait_for(TokenState::Parked);
    assert!(health.reason.contains("random bytes"), "{health:?}");
    assert!(!fixture.path("token-gate.tpm").exists());
}

#[test]
fn a_key_whose_label_was_altered_on_record_is_refused_by_the_tpm() {
    let fixture = Fixture::new();
    let running = fixture.start();
    let key = running.key();
    let mut altered = key.clone();
    let wrapped = altered.wrapped.as_mut().unwrap();
    let at = wrapped.windows(2).position(|bytes| bytes == b"ca").unwrap();
    wrapped[at..at + 2].copy_from_slice(b"cb");
    for _ in 0..2 {
        let reason = match running.client.prove(&altered, DEADLINE) {
            Err(TokenError::Key { reason, .. }) => reason,
            outcome => panic!("{outcome:?}"),
        };
        assert!(reason.contains("authorization value"), "{reason}");
    }
    assert_eq!(running.client.health().state, TokenState::Ready);
}

#[test]
fn a_cleared_tpm_parks_and_its_keys_are_gone_for_good() {
    let fixture = Fixture::new();
    let running = fixture.start();
    let key = running.key();
    running.client.prove(&key, DEADLINE).unwrap();
    fixture.tpm.tool("tpm2_clear", &[]);
    let health = running.wait_for(TokenState::Parked);
    assert!(health.reason.contains("cleared or exchanged"), "{health:?}");
    assert!(health.reason.contains("token-gate.tpm"), "{health:?}");
    assert_eq!(
        fixture.tpm.transient_objects(),
        0,
        "nothing is made in its place"
    );

    // The operator accepts the TPM as it is.
    fs::remove_file(fixture.path("token-gate.tpm")).unwrap();
    running.wait_until(|health| health.state == TokenState::Ready);
    let reason = running.lacks(&key.reference());
    assert!(reason.contains("gone for good"), "{reason}");
    let health = running.client.health();
    assert!(health.reason.contains("keys not found: ca"), "{health:?}");
    running.client.prove(&running.key(), DEADLINE).unwrap();
}

#[test]
fn an_exchanged_tpm_parks_until_the_old_one_is_back() {
    let mut fixture = Fixture::new();
    let running = fixture.start();
    let key = running.key();
    let serial = running.client.describe(DEADLINE).unwrap().serial;
    fixture.tpm.exchange(fixture.path("another-tpm"));
    let health = running.wait_for(TokenState::Parked);
    assert!(health.reason.contains(&serial), "{health:?}");
    fixture.tpm.exchange(fixture.path("tpm"));
    running.wait_for(TokenState::Ready);
    running.client.prove(&key, DEADLINE).unwrap();
    drop(running);

    // With its serial in the configuration, another TPM is detected without the file.
    fs::remove_file(fixture.path("token-gate.tpm")).unwrap();
    fixture.tpm.exchange(fixture.path("another-tpm"));
    fixture.configure(&format!("serial = {serial:?}"));
    let health = fixture.start().wait_for(TokenState::Parked);
    assert!(health.reason.contains("another one"), "{health:?}");
}

#[test]
fn a_lockout_by_another_program_is_reported_and_stops_nothing() {
    let fixture = Fixture::new();
    fixture.tpm.make_prey();
    let running = fixture.start();
    let key = running.key();
    fixture.tpm.provoke_lockout();
    let health = running.wait_until(|health| health.reason.contains("lockout"));
    assert_eq!(health.state, TokenState::Ready, "{health:?}");
    assert!(health.reason.contains("for at most"), "{health:?}");
    running.signs_again(&key);
    drop(running);
    let running = fixture.start();
    running.wait_for(TokenState::Ready);
    running
        .client
        .prove(&key, DEADLINE)
        .expect("and after a restart");
    fixture
        .tpm
        .tool("tpm2_dictionarylockout", &["--clear-lockout"]);
    running.wait_until(|health| health.state == TokenState::Ready && health.reason.is_empty());
}

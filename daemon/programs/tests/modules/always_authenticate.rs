//! Tests keys with `CKA_ALWAYS_AUTHENTICATE`, which SoftHSM honours: each signature needs a login
//! of its own. The module with faults adds the attribute when a key is made.

use crate::fixture::{Fixture, until};
use crate::{p11_kit, softhsm};
use hallmarkd::token::client::{GENERATE_DEADLINE, LOOKUP_DEADLINE, TokenClient};
use hallmarkd::token::health::TokenState;
use hallmarkd::token::{KeyDescription, KeySpecification, TokenError};
use hallmarkd::x509::key::KeyType;
use pkcs11_fault::plan::{Action, Fault, Plan};
use std::fs;
use std::thread;
use std::time::Duration;

const REST: Duration = Duration::from_millis(2500);
const CKR_PIN_INCORRECT: u64 = 0xa0;
const CKR_USER_TYPE_INVALID: u64 = 0x103;

fn prepared() -> (Fixture, Plan) {
    let mut fixture = Fixture::new("softhsm2", "factory");
    softhsm::make(&mut fixture);
    let plan = fixture.wrapped();
    let with_login = Fault::from("C_GenerateKeyPair", 1, Action::AlwaysAuthenticate);
    plan.set(&[with_login]).unwrap();
    (fixture, plan)
}

fn make(client: &TokenClient, id: u8, key_type: KeyType) -> KeyDescription {
    let specification = KeySpecification {
        key_type,
        label: "ca".into(),
        id: vec![id; 16],
    };
    client.generate(&specification, GENERATE_DEADLINE).unwrap()
}

#[test]
fn a_key_that_needs_a_login_for_each_signature_signs() {
    let (fixture, plan) = prepared();
    let keys: Vec<KeyDescription> = {
        let (client, _supervisor) = fixture.start();
        let types = [KeyType::P256, KeyType::Rsa2048, KeyType::Ed25519];
        let made = types.into_iter().zip(1..);
        let keys = made.map(|(it, id)| make(&client, id, it)).collect();
        for key in &keys {
            client.prove(key, LOOKUP_DEADLINE).unwrap();
        }
        keys
    };
    assert_eq!(plan.came().len(), keys.len(), "the attribute was added");
    let (client, _supervisor) = fixture.start();
    for key in keys.iter().cycle().take(9) {
        client.prove(key, LOOKUP_DEADLINE).unwrap();
    }
    let listed = client.inventory(LOOKUP_DEADLINE).unwrap();
    assert_eq!(listed.keys.len(), keys.len(), "{listed:?}");
    let recoveries = client.health().recoveries;
    assert_eq!((recoveries.sessions, recoveries.logins), (0, 1));
}

/// Verifies: the PIN that the token accepts at the login and refuses for a signature is tried once,
/// however many signatures are asked for and however often the worker is started.
#[test]
fn a_pin_that_is_refused_for_a_signature_is_not_tried_again() {
    let (fixture, plan) = prepared();
    let (client, supervisor) = fixture.start();
    let key = make(&client, 1, KeyType::P256);
    client.prove(&key, LOOKUP_DEADLINE).unwrap();
    let refusals = [Fault::from("C_Login", 1, Action::Return(CKR_PIN_INCORRECT))];
    plan.set(&refusals).unwrap();
    for _ in 0..3 {
        let error = client.prove(&key, LOOKUP_DEADLINE).unwrap_err();
        assert!(matches!(error, TokenError::Parked { .. }), "{error}");
        let words = error.to_string();
        assert!(words.contains("CKA_ALWAYS_AUTHENTICATE"), "{words}");
        assert!(words.contains("token-tried.parked"), "{words}");
    }
    thread::sleep(REST);
    assert_eq!(client.health().state, TokenState::Parked);
    drop((client, supervisor));
    let (client, _supervisor) = fixture.launch();
    assert_eq!(client.health().state, TokenState::Parked);
    assert_eq!(plan.came().len(), 1, "it was tried once");

    plan.set(&[]).unwrap();
    fs::remove_file(fixture.path("token-tried.parked")).unwrap();
    until("it signs", || client.prove(&key, LOOKUP_DEADLINE).ok());
}

#[test]
fn a_module_without_logins_for_signatures_is_named_as_the_cause() {
    let (fixture, plan) = prepared();
    let (client, _supervisor) = fixture.start();
    let key = make(&client, 1, KeyType::P256);
    let refusal = Fault::at("C_Login", 1, Action::Return(CKR_USER_TYPE_INVALID));
    plan.set(&[refusal]).unwrap();
    let error = client.prove(&key, LOOKUP_DEADLINE).unwrap_err();
    assert!(matches!(error, TokenError::Key { .. }), "{error}");
    let words = error.to_string();
    assert!(words.contains("login for each signature"), "{words}");
    assert!(words.contains("C_Login: UserTypeInvalid"), "{words}");
    assert_eq!(client.health().state, TokenState::Ready);
    client.prove(&key, LOOKUP_DEADLINE).unwrap();
}

/// Verifies: p11-kit's client does not let the login through; the key is named as the cause, and
/// the token stays ready.
#[test]
fn such_a_key_behind_p11_kit_is_refused_with_the_reason() {
    let (fixture, _plan) = prepared();
    let key = {
        let (client, _supervisor) = fixture.start();
        make(&client, 1, KeyType::P256)
    };
    let remote = p11_kit::Remote::of(&fixture);
    let _server = remote.server();
    let (client, _supervisor) = remote.fixture.start();
    let error = client.prove(&key, LOOKUP_DEADLINE).unwrap_err();
    assert!(matches!(error, TokenError::Key { .. }), "{error}");
    assert!(
        error.to_string().contains("login for each signature"),
        "{error}"
    );
    assert_eq!(client.health().state, TokenState::Ready);
}

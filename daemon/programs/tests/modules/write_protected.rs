//! Tests write-protected tokens: NSS, opened read-only, which shows it by a failing generation;
//! SoftHSM behind a module that sets the flag; and behind one that refuses read-write sessions
//! without the flag.

use crate::fixture::Fixture;
use crate::{nss, softhsm};
use hallmarkd::token::client::{GENERATE_DEADLINE, LOOKUP_DEADLINE, TokenClient};
use hallmarkd::token::key_proof::TEST_KEY_LABEL;
use hallmarkd::token::{KeyDescription, KeySpecification, TokenError};
use hallmarkd::x509::key::KeyType;
use pkcs11_fault::plan::{Action, Fault};

fn specification(id: u8) -> KeySpecification {
    KeySpecification {
        key_type: KeyType::P256,
        label: TEST_KEY_LABEL.into(),
        id: vec![id; 16],
    }
}

fn make(fixture: &Fixture) -> KeyDescription {
    let (client, _supervisor) = fixture.start();
    let key = client
        .generate(&specification(1), GENERATE_DEADLINE)
        .unwrap();
    client.prove(&key, LOOKUP_DEADLINE).unwrap();
    key
}

/// Checks that the key signs, that none is made or deleted, and that the reason is named.
fn only_signs(client: &TokenClient, key: &KeyDescription) {
    client.prove(key, LOOKUP_DEADLINE).unwrap();
    let found = client.find_by_id(&key.id, LOOKUP_DEADLINE).unwrap();
    assert_eq!(found.as_ref(), Some(key));
    let refusals = [
        client
            .generate(&specification(2), GENERATE_DEADLINE)
            .map(drop),
        client.destroy(&key.reference(), LOOKUP_DEADLINE),
    ];
    for refusal in refusals {
        let error = refusal.unwrap_err();
        assert!(matches!(error, TokenError::Refused { .. }), "{error}");
        assert!(error.to_string().contains("is write-protected"), "{error}");
    }
    client.prove(key, LOOKUP_DEADLINE).unwrap();
    let recoveries = client.health().recoveries;
    assert_eq!((recoveries.sessions, recoveries.logins), (0, 1));
}

#[test]
fn keys_of_a_read_only_database_sign() {
    let mut fixture = nss::prepared();
    let folder = fixture.environment["NSS_CONFIGDIR"].clone();
    let _plan = fixture.wrapped();
    let mut open = |flags: &str| {
        let argument =
            format!("configdir='sql:{folder}' certPrefix='' keyPrefix='' secmod='' flags={flags}");
        fixture.set("PKCS11_FAULT_INITIALIZE_ARGUMENT", argument);
        fixture.start()
    };
    let key = {
        let (client, _supervisor) = open("");
        client
            .generate(&specification(1), GENERATE_DEADLINE)
            .unwrap()
    };
    let (client, _supervisor) = open("readOnly");
    only_signs(&client, &key);
}

#[test]
fn a_write_protected_token_signs_and_is_noticed_to_be_writable_again() {
    for function in ["C_OpenSession", "C_GetTokenInfo"] {
        let mut fixture = Fixture::new("softhsm2", "factory");
        softhsm::make(&mut fixture);
        let plan = fixture.wrapped();
        let key = make(&fixture);
        plan.set(&[Fault::from(function, 1, Action::WriteProtect)])
            .unwrap();
        let (client, _supervisor) = fixture.start();
        only_signs(&client, &key);
        plan.set(&[]).unwrap();
        client
            .generate(&specification(2), GENERATE_DEADLINE)
            .unwrap();
        client.destroy(&key.reference(), LOOKUP_DEADLINE).unwrap();
    }
}

//! Kills a worker while its module makes a key, at every point where the module's objects differ:
//! no half is stored, one half, both halves without an answer. The next attempt has one key that
//! signs, and no other object.
//!
//! Modules store one half after the other, and a signal hits the moment between them only by
//! chance. So the module with faults makes the pair, deletes one half and ends the process
//! (`pkcs11_fault::plan`), which leaves the same objects. A trace of SoftHSM's writes shows that
//! there are no other states: SoftHSM does not show an object whose file is incomplete. One test
//! kills the worker with SIGKILL at many moments, and deletes nothing.

use crate::fixture::{Fixture, until};
use crate::{nss, opencryptoki, p11_kit, softhsm, tpm2_pkcs11};
use hallmarkd::token::client::{GENERATE_DEADLINE, LOOKUP_DEADLINE, TokenClient};
use hallmarkd::token::key_proof::TEST_KEY_LABEL;
use hallmarkd::token::{KeyDescription, KeySpecification, TokenError};
use hallmarkd::x509::key::KeyType;
use pkcs11_fault::plan::{Action, Fault, Half};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// Number of moments of a generation at which the worker is killed.
const MOMENTS: u32 = 20;

const DEATHS: [Action; 4] = [
    Action::Crash,
    Action::Keep(Half::Public),
    Action::Keep(Half::Private),
    Action::CrashAfter,
];

#[test]
fn softhsm_s_half_made_keys_are_replaced() {
    let mut fixture = Fixture::new("softhsm2", "factory");
    softhsm::make(&mut fixture);
    half_made_keys_are_replaced(
        fixture,
        &[KeyType::P256, KeyType::Rsa2048, KeyType::Ed25519],
    );
}

#[test]
fn nss_s_half_made_keys_are_replaced() {
    let mut fixture = nss::prepared();
    let folder = fixture.environment["NSS_CONFIGDIR"].clone();
    let argument = format!("configdir='sql:{folder}' certPrefix='' keyPrefix='' secmod='' flags=");
    fixture.set("PKCS11_FAULT_INITIALIZE_ARGUMENT", argument);
    half_made_keys_are_replaced(fixture, &[KeyType::P256, KeyType::Rsa2048]);
}

#[test]
fn tpm2_pkcs11_s_half_made_keys_are_replaced() {
    let (fixture, _processes) = tpm2_pkcs11::prepared();
    half_made_keys_are_replaced(fixture, &[KeyType::P256]);
}

#[test]
fn opencryptoki_s_half_made_keys_are_replaced() {
    let (fixture, _machine) = opencryptoki::prepared();
    half_made_keys_are_replaced(fixture, &[KeyType::Rsa2048]);
}

#[test]
fn p11_kit_s_half_made_keys_are_replaced() {
    let remote = p11_kit::Remote::make();
    let _server = remote.server();
    half_made_keys_are_replaced(remote.fixture, &[KeyType::P256, KeyType::Rsa2048]);
}

fn half_made_keys_are_replaced(mut fixture: Fixture, key_types: &[KeyType]) {
    let plan = fixture.wrapped();
    let cases = key_types
        .iter()
        .flat_map(|key_type| DEATHS.map(|death| (*key_type, death)));
    for (number, (key_type, death)) in (1..).zip(cases) {
        let case = format!("{key_type:?}, {death:?}");
        let specification = specification(key_type, number);
        let fault = Fault::at("C_GenerateKeyPair", 1, death);
        plan.set(&[fault]).unwrap();
        let (client, supervisor) = fixture.start();
        let made = client.generate(&specification, GENERATE_DEADLINE);
        assert!(
            matches!(made, Err(TokenError::Unavailable { .. })),
            "{case}: {made:?}"
        );
        assert_eq!(plan.came().len(), 1, "{case}");
        drop((client, supervisor));
        plan.set(&[]).unwrap();
        let (client, _supervisor) = fixture.start();
        let found = client.find_by_id(&specification.id, LOOKUP_DEADLINE);
        let is_finished = found.expect(&case).is_some();
        assert_eq!(is_finished, death == Action::CrashAfter, "{case}");
        there_is_one_key(&client, &specification, &case);
    }
}

fn specification(key_type: KeyType, number: u8) -> KeySpecification {
    KeySpecification {
        key_type,
        // A worker deletes no other key that it finds.
        label: TEST_KEY_LABEL.into(),
        id: vec![number; 16],
    }
}

/// Checks that the next steps of a ceremony give a key that signs, that no other object has its id,
/// and that no object is left after its deletion.
fn there_is_one_key(client: &TokenClient, specification: &KeySpecification, case: &str) {
    let key = found_or_made(client, specification);
    client.prove(&key, LOOKUP_DEADLINE).expect(case);
    let again = client.find(&key.reference(), LOOKUP_DEADLINE);
    assert_eq!(again.as_ref(), Ok(&key), "{case}");
    // A second public key with its id would cause a remark.
    assert_eq!(client.health().reason, "", "{case}");
    let second = client.generate(specification, GENERATE_DEADLINE);
    assert!(matches!(second, Err(TokenError::Refused { .. })), "{case}");
    client
        .destroy(&key.reference(), LOOKUP_DEADLINE)
        .expect(case);
    let left = client.find_by_id(&specification.id, LOOKUP_DEADLINE);
    assert_eq!(left, Ok(None), "{case}");
}

fn found_or_made(client: &TokenClient, specification: &KeySpecification) -> KeyDescription {
    let found = client.find_by_id(&specification.id, LOOKUP_DEADLINE);
    found.unwrap().unwrap_or_else(|| {
        let made = client.generate(specification, GENERATE_DEADLINE);
        made.unwrap()
    })
}

/// Verifies, with SIGKILL at moments from before the generation to after it: there is one key in
/// the end.
#[test]
fn a_worker_of_softhsm_is_killed_at_many_moments_of_a_generation() {
    let mut fixture = Fixture::new("softhsm2", "factory");
    softhsm::make(&mut fixture);
    let whole = generation_takes(&fixture);
    for moment in 0..MOMENTS {
        let specification = specification(KeyType::P256, u8::try_from(moment + 1).unwrap());
        let (client, supervisor) = fixture.start();
        thread::scope(|scope| {
            scope.spawn(|| client.generate(&specification, GENERATE_DEADLINE));
            thread::sleep(whole * moment / (MOMENTS - 4));
            kill_worker(&fixture);
        });
        drop((client, supervisor));
        let (client, _supervisor) = fixture.start();
        there_is_one_key(&client, &specification, &format!("moment {moment}"));
    }
}

fn generation_takes(fixture: &Fixture) -> Duration {
    let (client, _supervisor) = fixture.start();
    let begun = Instant::now();
    let first = specification(KeyType::P256, u8::MAX);
    client.generate(&first, GENERATE_DEADLINE).unwrap();
    begun.elapsed()
}

fn kill_worker(fixture: &Fixture) {
    let socket = fixture.text("tried.sock");
    let worker = until("a worker runs", || {
        fs::read_dir("/proc").unwrap().find_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            let ours = arguments.split('\0').any(|argument| argument == socket);
            ours.then(|| Pid::from_raw(pid))?
        })
    });
    kill_process(worker, Signal::KILL).unwrap();
}

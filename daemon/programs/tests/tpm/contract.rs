//! Tests the contract of every token with a TPM, and many signatures with keys of every type.

use crate::fixture::{DEADLINE, Fixture};
use crate::table;
use hallmarkd::token::bench;
use hallmarkd::token::contract::{self, Scope, Verdict};
use hallmarkd::token::health::TokenState;
use hallmarkd::x509::key::KeyType;
use std::io::Write;
use std::time::{Duration, Instant};

const KEY_TYPES: [KeyType; 4] = [
    KeyType::P256,
    KeyType::P384,
    KeyType::Rsa2048,
    KeyType::Rsa3072,
];

#[test]
fn a_tpm_keeps_the_contract_through_its_worker() {
    let fixture = Fixture::new();
    let running = fixture.start();
    running.wait_for(TokenState::Ready);
    let scope = Scope {
        key_types: &KeyType::ALL,
        tells_local: true,
    };
    let report = contract::check_client(&running.client, scope, &mut |_| {});
    assert!(report.is_good(), "{report:?}");
    for check in &report.checks {
        // Its keys are stored outside; it has no secrets and no credentials' keys.
        let lacks = ["an id that is taken", "a secret is", "a credential key"];
        let lacks = lacks.iter().any(|it| check.operation.starts_with(it))
            || check.key_type.is_some_and(|it| !KEY_TYPES.contains(&it));
        assert_eq!(check.verdict == Verdict::Passed, !lacks, "{check:?}");
    }
    table::holds("TPM 2.0, swtpm 0.7.1", &report);
    let recoveries = running.client.health().recoveries;
    let done = (
        recoveries.sessions,
        recoveries.logins,
        recoveries.initializations,
    );
    assert_eq!(done, (0, 1, 1), "never recovered");
    assert!(fixture.tpm.transient_objects() <= 2);
}

#[test]
fn keys_of_every_type_sign_from_many_threads_with_three_slots() {
    let fixture = Fixture::new();
    let running = fixture.start();
    let keys = KEY_TYPES.map(|key_type| running.key_of(key_type));
    std::thread::scope(|scope| {
        for key in keys.iter().chain(&keys) {
            let client = &running.client;
            scope.spawn(move || {
                for _ in 0..8 {
                    client.prove(key, DEADLINE).unwrap();
                }
            });
        }
    });
    assert!(fixture.tpm.transient_objects() <= 2, "primary and one key");
    drop(running);
    assert_eq!(fixture.tpm.transient_objects(), 0, "nothing is left");
}

/// A TPM limits how often a session's context can be saved (`TPM_RC_CONTEXT_GAP`, at 65,535 on
/// many); passwords need no session. Prints the number of signatures and their rate.
#[test]
#[ignore = "takes minutes: tests/run --long"]
fn more_signatures_than_the_context_gap_in_one_run() {
    const SIGNATURES: usize = 70_001;
    let fixture = Fixture::new();
    let running = fixture.start();
    let (first, second) = (running.key(), running.key_of(KeyType::P384));
    let begun = Instant::now();
    let (client, keys) = (&running.client, [&first, &second]);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for number in (thread..SIGNATURES).step_by(4) {
                    // Sometimes the other key, so that keys are loaded and flushed as well.
                    client
                        .prove(keys[usize::from(number % 100 == 99)], DEADLINE)
                        .unwrap();
                }
            });
        }
    });
    let rate = SIGNATURES as f64 / begun.elapsed().as_secs_f64();
    writeln!(
        std::io::stderr(),
        "{SIGNATURES} signatures, {rate:.0} a second"
    )
    .unwrap();
    let recoveries = client.health().recoveries;
    let done = (
        recoveries.sessions,
        recoveries.logins,
        recoveries.initializations,
    );
    assert_eq!(done, (0, 1, 1), "never recovered");
}

#[test]
#[ignore = "measures: run it alone, in release"]
fn how_fast_a_software_tpm_signs_through_its_worker() {
    let fixture = Fixture::new();
    let running = fixture.start();
    for key_type in KEY_TYPES {
        let key = running.key_of(key_type);
        let measured = bench::run(&running.client, &key, 4, Duration::from_secs(4)).unwrap();
        let (rate, median) = (measured.rate(), measured.median);
        writeln!(
            std::io::stderr(),
            "{key_type:?}: {rate:.0}/s, p50 {median:?}"
        )
        .unwrap();
    }
}

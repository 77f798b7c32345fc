//! Tests a TPM that is stopped and started, a killed worker, and other programs on the TPM.

use crate::fixture::{DEADLINE, Fixture};
use hallmarkd::token::client::GENERATE_DEADLINE;
use hallmarkd::token::health::TokenState;
use hallmarkd::token::{KeySpecification, TokenError};
use hallmarkd::x509::key::KeyType;
use std::time::Duration;

#[test]
fn objects_of_a_killed_worker_are_flushed_and_no_others() {
    let fixture = Fixture::new();
    let running = fixture.start();
    let key = running.key();
    running.client.prove(&key, DEADLINE).unwrap();
    assert_eq!(fixture.tpm.transient_objects(), 2, "primary and key");
    // tpm2-tools leave the primary loaded when there is no resource manager.
    let others = ["-C", "o", "-G", "ecc", "-c", "others.ctx"];
    fixture.tpm.tool("tpm2_createprimary", &others);
    assert_eq!(fixture.tpm.transient_objects(), 3, "the slots are full");
    fixture.kill_worker();
    running.signs_again(&key);
    assert_eq!(running.client.health().restarts, 1);
    assert_eq!(
        fixture.tpm.transient_objects(),
        3,
        "ours, and another program's"
    );
    drop(running);
    assert_eq!(fixture.tpm.transient_objects(), 1, "another program's");
}

/// A program that flushes everything flushes our objects, too; its next object gets our handle.
#[test]
fn a_program_that_flushes_everything_costs_a_recovery_and_keeps_its_objects() {
    let fixture = Fixture::new();
    let running = fixture.start();
    let key = running.key();
    running.client.prove(&key, DEADLINE).unwrap();
    for round in 1..=3 {
        fixture.tpm.tool("tpm2_flushcontext", &["-t"]);
        let others = ["-C", "o", "-G", "ecc", "-c", "others.ctx"];
        fixture.tpm.tool("tpm2_createprimary", &others);
        running.signs_again(&key);
        assert_eq!(fixture.tpm.transient_objects(), 3, "round {round}");
    }
    let properties = fixture.tpm.tool("tpm2_getcap", &["properties-variable"]);
    assert!(
        properties.contains("TPM2_PT_LOCKOUT_COUNTER: 0x0"),
        "{properties}"
    );
}

#[test]
fn a_tpm_that_returns_recovers_without_a_restart() {
    let mut fixture = Fixture::new();
    let running = fixture.start();
    let key = running.key();
    running.client.prove(&key, DEADLINE).unwrap();

    fixture.tpm.kill();
    // The state is reported without a request.
    let health = running.wait_for(TokenState::Unavailable);
    assert!(health.reason.contains("cannot be reached"), "{health:?}");
    let error = running
        .client
        .prove(&key, DEADLINE)
        .expect_err("it is gone");
    assert!(matches!(error, TokenError::Unavailable { .. }), "{error:?}");

    fixture.tpm.start_again();
    let health = running.wait_for(TokenState::Ready);
    running.client.prove(&key, DEADLINE).unwrap();
    assert_eq!((health.restarts, &*health.reason), (0, ""));
}

#[test]
fn a_tpm_restarted_under_load_costs_answers_and_no_key() {
    let mut fixture = Fixture::new();
    let running = fixture.start();
    let key = running.key();
    let (client, key) = (&running.client, &key);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    // Each answer verifies, or says that the TPM is unavailable.
                    match client.prove(key, DEADLINE) {
                        Ok(()) => {}
                        Err(TokenError::Unavailable { .. }) => {
                            std::thread::sleep(Duration::from_millis(20));
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        for _ in 0..3 {
            fixture.tpm.kill();
            running.wait_for(TokenState::Unavailable);
            fixture.tpm.start_again();
            running.signs_again(key);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(running.client.health().restarts, 0);
}

#[test]
fn a_tpm_absent_at_the_start_is_waited_for() {
    let mut fixture = Fixture::new();
    fixture.tpm.kill();
    let running = fixture.start();
    running.wait_for(TokenState::Unavailable);
    fixture.tpm.start_again();
    running.wait_for(TokenState::Ready);
    let description = running.client.describe(DEADLINE).unwrap();
    assert_eq!(
        (description.label.as_str(), description.serial.len()),
        ("gate", 32)
    );
    assert!(description.interface.contains("TPM 2.0"), "{description:?}");
}

#[test]
fn a_second_worker_of_one_tpm_without_resource_manager_is_refused() {
    let fixture = Fixture::new();
    let running = fixture.start();
    let key = running.key();
    let second = fixture.start_on("second.sock");
    let health = second.wait_until(|health| health.reason.contains("another worker"));
    assert_eq!(health.state, TokenState::Unavailable);
    running.client.prove(&key, DEADLINE).unwrap();
    drop(running);
    second.wait_for(TokenState::Ready);
    second.client.prove(&key, DEADLINE).unwrap();
}

/// A TPM stores no keys, so a key that is not recorded is gone, and the next one is made.
#[test]
fn a_worker_killed_while_it_makes_a_key_does_not_block_the_next_one() {
    let fixture = Fixture::new();
    let running = fixture.start();
    running.wait_for(TokenState::Ready);
    for (number, key_type) in [KeyType::P256, KeyType::Rsa2048].into_iter().enumerate() {
        for delay in [0, 5, 20, 80] {
            let specification = KeySpecification {
                key_type,
                label: format!("hallmark plant {number}"),
                id: vec![delay; 16],
            };
            let restarts = running.client.health().restarts;
            std::thread::scope(|scope| {
                scope.spawn(|| running.client.generate(&specification, GENERATE_DEADLINE));
                std::thread::sleep(Duration::from_millis(delay.into()));
                fixture.kill_worker();
            });
            running.wait_until(|health| {
                health.restarts > restarts && health.state == TokenState::Ready
            });
            let found = running.client.find_by_id(&specification.id, DEADLINE);
            assert_eq!(found, Ok(None));
            let key = running.client.generate(&specification, GENERATE_DEADLINE);
            running.client.prove(&key.unwrap(), DEADLINE).unwrap();
            assert!(fixture.tpm.transient_objects() <= 2, "primary and key");
        }
    }
}

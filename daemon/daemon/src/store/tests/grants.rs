//! Tests that a grant gives one certificate, also when requests by it arrive together or fail.

use super::*;
use crate::store::Grant;
use crate::store::intent::Requester;

/// A request of `id` by its ended leaf `leaf`.
fn late(fixture: &Fixture, id: &str, serial: u8, leaf: [u8; 32]) -> Intent {
    let requester = Requester {
        sha256: leaf,
        revocations: fixture.store.revocations(),
    };
    Intent {
        requester: Some(requester),
        grant: Some(Grant::LateRenewal(requester)),
        ..fixture.intent(id, serial)
    }
}

fn refusal(fixture: &Fixture, intent: Intent) -> String {
    let refused = block_on(fixture.store.record_intent(intent));
    format!("{:?}", refused.expect_err("it is refused"))
}

#[test]
fn an_ended_leaf_gives_one_certificate_and_a_failed_signature_uses_nothing_up() {
    let fixture = Fixture::new();
    let leaf = fixture.issue("pump-7", 10);
    let record = |serial| {
        block_on(
            fixture
                .store
                .record_intent(late(&fixture, "pump-7", serial, leaf)),
        )
    };
    for serial in [11, 12] {
        let recorded = record(serial).unwrap();
        let end = fixture
            .store
            .abandon_intent(recorded.id(), "test".into(), unix(1_001));
        block_on(end).unwrap();
    }
    let withdrawn = record(13).unwrap();
    block_on(
        fixture
            .store
            .withdraw_intent(withdrawn.id(), "test".into(), unix(1_001)),
    )
    .unwrap();
    let recorded = record(14).unwrap();
    // It is under way, and may fail: a second request by the same leaf waits for it.
    assert!(refusal(&fixture, late(&fixture, "pump-7", 15, leaf)).contains("UnderWay"));
    let on_issued = OnIssued::Device {
        registration_id: "pump-7".into(),
        profile: "device".into(),
    };
    fixture.settle(&recorded, on_issued).unwrap();
    assert!(refusal(&fixture, late(&fixture, "pump-7", 16, leaf)).contains("LateRenewalUsed"));
    let raw = fixture.raw();
    let twice = "INSERT INTO grant_use SELECT kind, name, 1 FROM grant_use LIMIT 1";
    let twice = raw.execute(twice, []);
    assert!(
        twice
            .unwrap_err()
            .to_string()
            .contains("grant_is_used_once")
    );
}

#[test]
fn an_ended_leaf_that_is_not_the_newest_gives_none() {
    let fixture = Fixture::new();
    let old = fixture.issue("pump-7", 10);
    fixture.issue("pump-7", 11);
    let refused = refusal(&fixture, late(&fixture, "pump-7", 12, old));
    assert!(refused.contains("LateRenewalSuperseded"), "{refused}");
}

#[test]
fn an_ended_leaf_with_a_compromised_key_gives_none() {
    let fixture = Fixture::new();
    let leaf = fixture.issue("pump-7", 10);
    // Another certificate with the same key was reported.
    let raw = fixture.raw();
    let reported = "INSERT INTO compromised_key SELECT key_sha256, id, 0 FROM intent
                    WHERE subject = 'pump-7'";
    raw.execute(reported, []).unwrap();
    let refused = refusal(&fixture, late(&fixture, "pump-7", 11, leaf));
    assert!(refused.contains("Compromised"), "{refused}");
}

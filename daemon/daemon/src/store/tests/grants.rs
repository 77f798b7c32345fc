//! Tests that a grant gives one certificate, also when requests by it arrive together or fail.

use super::*;
use crate::store::intent::Requester;
use crate::store::{CredentialState, DeviceCredentialRow, Grant, NewDeviceCredential};

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

/// A one-time credential of `id` that lasts until second 5,000.
fn credential(fixture: &Fixture, id: &str) -> DeviceCredentialRow {
    let new = NewDeviceCredential {
        registration_id: id.into(),
        profile: "device".into(),
        salt: [1; 16],
        secret_sha256: [2; 32],
        expires_at: unix(5_000),
    };
    let made = fixture
        .store
        .make_device_credential(new, entry("credential.made"));
    made.unwrap()
}

/// A request of `id` by a credential.
fn by(fixture: &Fixture, id: &str, serial: u8, credential: &DeviceCredentialRow) -> Intent {
    Intent {
        grant: Some(Grant::Credential(credential.id)),
        ..fixture.intent(id, serial)
    }
}

fn first_leaf(id: &str) -> OnIssued {
    OnIssued::Device {
        registration_id: id.into(),
        profile: "device".into(),
    }
}

fn state(fixture: &Fixture, id: &str) -> CredentialState {
    let row = fixture.store.device_credential(id).unwrap().unwrap();
    row.state(unix(2_000))
}

/// Verifies: a credential that is revoked while its certificate is signed gives none, and neither
/// that failed use nor another one gives it back.
#[test]
fn a_credential_that_is_revoked_while_it_is_used_gives_no_certificate() {
    let fixture = Fixture::new();
    let made = credential(&fixture, "pump-7");
    let request = |serial| by(&fixture, "pump-7", serial, &made);
    let recorded = block_on(fixture.store.record_intent(request(10))).unwrap();
    assert_eq!(state(&fixture, "pump-7"), CredentialState::Open);
    let revoked = fixture
        .store
        .revoke_device_credentials("PUMP-7".into(), entry("credential.revoked"));
    assert_eq!(revoked.unwrap(), 1);
    let refused = fixture.settle(&recorded, first_leaf("pump-7"));
    let refused = format!("{:?}", refused.expect_err("it is refused"));
    assert_eq!(refused, "GrantEnded(CredentialRevoked)");
    let end = fixture
        .store
        .abandon_intent(recorded.id(), "test".into(), unix(1_001));
    block_on(end).unwrap();
    assert_eq!(state(&fixture, "pump-7"), CredentialState::Revoked);
    assert_eq!(refusal(&fixture, request(11)), "CredentialRevoked");
    assert!(fixture.store.device("pump-7").unwrap().is_none());
}

/// Verifies: a used credential is not revoked any more, and one that failed is open again.
#[test]
fn the_use_of_a_credential_counts_when_its_certificate_is_on_record() {
    let fixture = Fixture::new();
    let made = credential(&fixture, "pump-7");
    let request = |serial| by(&fixture, "pump-7", serial, &made);
    let recorded = block_on(fixture.store.record_intent(request(10))).unwrap();
    let end = fixture
        .store
        .abandon_intent(recorded.id(), "test".into(), unix(1_001));
    block_on(end).unwrap();
    assert_eq!(state(&fixture, "pump-7"), CredentialState::Open);
    let recorded = block_on(fixture.store.record_intent(request(11))).unwrap();
    fixture.settle(&recorded, first_leaf("pump-7")).unwrap();
    assert_eq!(state(&fixture, "pump-7"), CredentialState::Used);
    let revoked = fixture
        .store
        .revoke_device_credentials("pump-7".into(), entry("credential.revoked"));
    assert_eq!(revoked.unwrap(), 0);
    assert_eq!(refusal(&fixture, request(12)), "CredentialUsed");
}

/// Verifies: what ends the grant of an ended leaf while the token signs is found at the end.
#[test]
fn a_key_that_is_reported_while_a_late_renewal_is_signed_gets_no_certificate() {
    let fixture = Fixture::new();
    let leaf = fixture.issue("pump-7", 10);
    let recorded = block_on(
        fixture
            .store
            .record_intent(late(&fixture, "pump-7", 11, leaf)),
    );
    let recorded = recorded.unwrap();
    let raw = fixture.raw();
    let reported = "INSERT INTO compromised_key SELECT key_sha256, id, 0 FROM intent
                    WHERE subject = 'pump-7' ORDER BY id LIMIT 1";
    raw.execute(reported, []).unwrap();
    let refused = fixture.settle(&recorded, first_leaf("pump-7"));
    let refused = format!("{:?}", refused.expect_err("it is refused"));
    assert_eq!(refused, "GrantEnded(Key(Compromised))");
}

/// Verifies: credentials that ended before a date go, in parts, and the newest stays whatever it
/// is, so that its number is not given twice.
#[test]
fn credentials_that_ended_long_ago_are_forgotten() {
    let fixture = Fixture::new();
    let ids = ["pump-1", "pump-2", "pump-3"];
    let made = ids.map(|id| credential(&fixture, id));
    let used = block_on(
        fixture
            .store
            .record_intent(by(&fixture, "pump-1", 10, &made[0])),
    );
    fixture
        .settle(&used.unwrap(), first_leaf("pump-1"))
        .unwrap();
    let forget = |before, limit| {
        let entry = entry("credentials.forgotten");
        let forgotten = fixture
            .store
            .forget_device_credentials(unix(before), limit, entry);
        forgotten.unwrap()
    };
    assert_eq!(forget(5_000, 10), 0);
    assert_eq!((forget(5_001, 1), forget(5_001, 10)), (1, 1));
    assert_eq!(forget(5_001, 10), 0);
    assert_eq!(
        fixture.rows("audit WHERE action = 'credentials.forgotten'"),
        2
    );
    assert!(fixture.store.device_credential("pump-2").unwrap().is_none());
    let newest = fixture.store.device_credential("pump-3").unwrap().unwrap();
    let next = credential(&fixture, "pump-1");
    assert!(next.id > newest.id);
    let raw = fixture.raw();
    let refused = raw.execute("DELETE FROM device_credential", []);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("device_credential_is_kept"), "{refused}");
}

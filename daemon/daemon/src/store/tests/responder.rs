//! Tests which status an OCSP answer has, and that a responder's key is found again.

use super::*;
use crate::ids::GenerationId;
use crate::x509::ocsp::CertificateStatus::{self, Good, Revoked, Unknown};
use crate::x509::revocation::RevocationReason::{
    self, CertificateHold, KeyCompromise, Superseded, Unspecified,
};

impl Fixture {
    fn status(&self, serial: u8) -> CertificateStatus {
        let found = self.store.certificate_status(self.root, &[serial; 16]);
        found.unwrap()
    }

    fn revokes_at(&self, serial: u8, at: i64, reason: RevocationReason) {
        let revocation = revocation(serial, at);
        self.store.revoke(revocation, reason).unwrap();
    }
}

fn revocation(serial: u8, at: i64) -> Revocation {
    Revocation {
        target: RevocationTarget::Serial(vec![serial; 16]),
        at: unix(at),
        actor: "test".into(),
        cause: "a test".into(),
    }
}

fn revoked(since: i64, reason: RevocationReason) -> CertificateStatus {
    let since = unix(since);
    Revoked { since, reason }
}

/// Verifies: only what was issued is good; what a list has is revoked; each change is counted, so
/// that kept answers are read again.
#[test]
fn the_status_is_what_is_on_record() {
    let fixture = Fixture::new();
    assert_eq!(fixture.status(0x42), Unknown);
    fixture.issue("pump-1", 0x42);
    assert_eq!(fixture.status(0x42), Good);
    let other = GenerationId::new(999);
    let of_other = fixture.store.certificate_status(other, &[0x42; 16]);
    assert_eq!(of_other.unwrap(), Unknown);

    let counted = || fixture.store.revocations();
    let before = counted();
    fixture.revokes_at(0x42, 1_200, CertificateHold);
    assert_eq!(fixture.status(0x42), revoked(1_200, CertificateHold));
    assert!(counted() > before);
    fixture.store.unrevoke(revocation(0x42, 1_300)).unwrap();
    assert_eq!(fixture.status(0x42), Good);
    fixture.revokes_at(0x42, 1_400, KeyCompromise);
    assert_eq!(fixture.status(0x42), revoked(1_400, KeyCompromise));

    let record = |subject: &str, serial| {
        block_on(fixture.store.record_intent(fixture.intent(subject, serial)))
    };
    let open = record("pump-2", 0x43).unwrap();
    assert_eq!(fixture.status(0x43), Unknown, "it is not given out yet");
    block_on(
        fixture
            .store
            .abandon_intent(open.id(), "a test".into(), unix(1_250)),
    )
    .unwrap();
    assert_eq!(fixture.status(0x43), revoked(1_250, Unspecified));
    let withdrawn = record("pump-3", 0x44).unwrap();
    block_on(
        fixture
            .store
            .withdraw_intent(withdrawn.id(), "a test".into(), unix(1_260)),
    )
    .unwrap();
    assert_eq!(fixture.status(0x44), Unknown);
}

#[test]
fn a_serial_number_from_before_the_adoption_has_its_status() {
    let fixture = Fixture::new();
    let raw = fixture.raw();
    raw.execute(
        "INSERT INTO former_certificate (generation, serial) VALUES (?1, ?2)",
        rusqlite::params![fixture.root.get(), [0x51_u8; 16]],
    )
    .unwrap();
    assert_eq!(fixture.status(0x51), Good);
    let before = fixture.store.revocations();
    let revocation = FormerRevocation {
        generation: fixture.root,
        serial: vec![0x51; 16],
        reason: Superseded,
        at: unix(1_500),
        actor: "test".into(),
        cause: "a test".into(),
    };
    fixture.store.revoke_former(revocation).unwrap();
    assert_eq!(fixture.status(0x51), revoked(1_500, Superseded));
    assert!(
        fixture.store.revocations() > before,
        "no kept answer is read again"
    );
}

#[test]
fn a_responder_has_one_key_until_that_is_replaced() {
    let fixture = Fixture::new();
    let plan = |key_type, id: u8| PlannedResponder {
        generation: fixture.root,
        token: "factory".into(),
        key_type,
        key_label: "hallmark-ocsp root-1".into(),
        key_id: vec![id],
    };
    let planned = |key_type, id| fixture.store.plan_responder(plan(key_type, id)).unwrap();
    assert_eq!(planned(KeyType::P256, 1).key_id, [1]);
    assert_eq!(planned(KeyType::P256, 2).key_id, [1], "the key may exist");
    assert_eq!(planned(KeyType::P384, 3).key_id, [3]);
    let record = |spki: &[u8]| {
        fixture
            .store
            .record_responder_key(fixture.root, spki.into(), None)
    };
    assert!(record(b"a key").is_ok() && record(b"a key").is_ok());
    assert!(record(b"another key").is_err());
    assert_eq!(planned(KeyType::P256, 4).key_id, [3]);
    let replaced = fixture
        .store
        .replace_responder_key(fixture.root, vec![5])
        .unwrap();
    assert_eq!((replaced.key_id, replaced.spki), (vec![5], None));
    let spki: Vec<u8> = fixture
        .raw()
        .query_row("SELECT spki FROM generation LIMIT 1", [], |row| row.get(0))
        .unwrap();
    assert!(record(&spki).is_err(), "it is the key of an authority");
}

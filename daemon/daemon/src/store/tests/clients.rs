//! Tests client certificates: roles are on record and in the journal, and a revocation stops
//! requests that are in progress.

use super::*;
use crate::enrollment::role::Role;
use crate::ids::{GenerationId, GenerationNumber};
use crate::x509::revocation::RevocationReason::{CertificateHold, KeyCompromise};

impl Fixture {
    /// Issues a station's certificate with its audit entry. Returns its SHA-256.
    fn station(&self, serial: u8) -> [u8; 32] {
        let intent = Intent {
            profile: "station".into(),
            role: Some(Role::Station),
            is_device: false,
            public_key: vec![serial].into(),
            ..self.intent("station-1", serial)
        };
        let recorded = block_on(self.store.record_intent(intent)).unwrap();
        let der = join(recorded.tbs(), b"signature");
        let sha256 = *Thumbprint::of(&der).as_bytes();
        let entry = AuditEntry {
            detail: json!({
                "sha256": hex::encode(sha256), "role": Role::Station, "profile": "station",
            }),
            ..entry("certificate.issued")
        };
        let settled = self
            .store
            .record_certificate(&recorded, der, OnIssued::Alone, entry);
        block_on(settled).unwrap();
        sha256
    }

    fn revoke_client(&self, target: RevocationTarget) {
        let revocation = Revocation {
            target,
            at: unix(1_100),
            actor: "test".into(),
            cause: "a test".into(),
        };
        self.store.revoke(revocation, KeyCompromise).unwrap();
    }
}

#[test]
fn the_role_on_record_is_the_one_in_the_journal() {
    let fixture = Fixture::new();
    let sha256 = fixture.station(2);
    let found = || fixture.store.client(&sha256).unwrap().unwrap();
    assert_eq!(found().certificate.role, Some(Role::Station));
    assert!(found().is_in_journal);
    let raw = fixture.raw();
    let promote = "UPDATE intent SET role = 'operator' WHERE subject = 'station-1'";
    assert!(raw.execute(promote, []).is_err(), "an intent never changes");
    raw.execute_batch("DROP TRIGGER intent_is_immutable")
        .unwrap();
    raw.execute(promote, []).unwrap();
    assert!(!found().is_in_journal);
    let other_profile = "UPDATE intent SET role = 'station', profile = 'operator'
                         WHERE subject = 'station-1'";
    raw.execute(other_profile, []).unwrap();
    assert!(!found().is_in_journal);
    let device = fixture.issue("pump-7", 3);
    let device = fixture.store.client(&device).unwrap().unwrap();
    assert!(device.is_in_journal, "the least role needs no journal");
}

/// The journal is long, and is read at each connection.
#[test]
fn the_journal_is_read_by_its_index() {
    let fixture = Fixture::new();
    let sql = format!("EXPLAIN QUERY PLAN {}", client::IN_JOURNAL);
    let raw = fixture.raw();
    let mut statement = raw.prepare(&sql).unwrap();
    let steps = statement.query_map(["a", "b", "c"], |row| row.get::<_, String>(3));
    let steps: Vec<String> = steps.unwrap().map(Result::unwrap).collect();
    assert!(
        steps.iter().any(|it| it.contains("INDEX audit_role")),
        "{steps:?}"
    );
}

#[test]
fn a_role_belongs_to_a_leaf_and_is_one_of_five() {
    let fixture = Fixture::new();
    let authority = Intent {
        purpose: Purpose::Authority,
        ..fixture.intent("root", 2)
    };
    assert!(block_on(fixture.store.record_intent(authority)).is_err());
    let raw = fixture.raw();
    raw.execute_batch("DROP TRIGGER intent_is_immutable")
        .unwrap();
    fixture.issue("pump-7", 3);
    let unknown = "UPDATE intent SET role = 'admin' WHERE subject = 'pump-7'";
    assert!(raw.execute(unknown, []).is_err());
}

/// The caller was authorized before the revocation. Verifies: the request is not recorded, and what
/// the token has signed for it gets no certificate.
#[test]
fn nothing_is_recorded_for_a_client_revoked_since_authorization() {
    let fixture = Fixture::new();
    let sha256 = fixture.station(2);
    let requester = Some(Requester {
        sha256,
        revocations: fixture.store.revocations(),
    });
    let asked = |id: &str, serial| Intent {
        requester,
        ..fixture.intent(id, serial)
    };
    let signed = block_on(fixture.store.record_intent(asked("pump-7", 3))).unwrap();
    let other = fixture.station(4);
    fixture.revoke_client(RevocationTarget::Sha256(other));
    let device = |id: &str| OnIssued::Device {
        registration_id: id.into(),
        profile: "device".into(),
    };
    let unhurt = block_on(fixture.store.record_intent(asked("pump-6", 5))).unwrap();
    fixture.settle(&unhurt, device("pump-6")).unwrap();

    fixture.revoke_client(RevocationTarget::Sha256(sha256));
    let late = block_on(fixture.store.record_intent(asked("pump-8", 6)));
    assert!(
        matches!(late, Err(IntentError::RequesterRevoked)),
        "{late:?}"
    );
    let refused = fixture.settle(&signed, device("pump-7"));
    assert!(
        matches!(refused, Err(StoreError::RequesterRevoked)),
        "{refused:?}"
    );
    assert!(fixture.store.device("pump-7").unwrap().is_none());
}

/// A station below a revoked generation is excluded, in work or not; a device may come for a new
/// certificate until a block says that it may not.
#[test]
fn a_revoked_generation_excludes_all_but_devices() {
    let fixture = Fixture::new();
    let station = fixture.station(2);
    let device = fixture.issue("pump-7", 3);
    let revocations = fixture.store.revocations();
    let is_excluded = |sha256| {
        let requester = Requester {
            sha256,
            revocations,
        };
        client::is_excluded(
            &Tx::new(&fixture.raw()),
            &requester,
            fixture.store.revocations(),
        )
        .unwrap()
    };
    assert!(!is_excluded(station) && !is_excluded(device));
    fixture.compromise_root().unwrap();
    assert!(is_excluded(station) && !is_excluded(device));
    for sha256 in [station, device] {
        let found = fixture.store.client(&sha256).unwrap().unwrap();
        assert_eq!(
            found.revoked_above,
            Some(("root".into(), GenerationNumber::FIRST))
        );
    }
    assert_eq!(fixture.store.blocked_above(fixture.root).unwrap(), None);
}

/// A device below a compromised generation was authorized; then that generation is blocked.
/// Verifies: its request in work is not recorded, although no certificate was revoked in between.
#[test]
fn a_block_excludes_a_device_whose_request_is_in_work() {
    let fixture = Fixture::new();
    let sha256 = fixture.issue("pump-7", 3);
    fixture.compromise_root().unwrap();
    let requester = Requester {
        sha256,
        revocations: fixture.store.revocations(),
    };
    let is_excluded = || {
        let raw = fixture.raw();
        client::is_excluded(&Tx::new(&raw), &requester, fixture.store.revocations()).unwrap()
    };
    assert!(!is_excluded());
    fixture.block(root_generation()).unwrap();
    assert!(is_excluded());
}

/// The generation below is compromised, the one above is blocked.
#[test]
fn a_block_above_a_compromised_generation_is_found() {
    let fixture = Fixture::new();
    let raw = fixture.raw();
    raw.execute(
        "INSERT INTO generation (authority, number, parent, token, key_type, key_label, key_id,
             state)
         VALUES ('line', 1, ?1, 'factory', 'p256', '', x'01', 'planned')",
        [fixture.root.get()],
    )
    .unwrap();
    let line = GenerationId::new(raw.last_insert_rowid());
    assert_eq!(fixture.store.blocked_above(line).unwrap(), None);
    fixture.block(root_generation()).unwrap();
    let blocked = fixture.store.blocked_above(line).unwrap();
    assert_eq!(blocked, Some(("root".into(), GenerationNumber::FIRST)));
    let root = &fixture.store.generations().unwrap()[0];
    assert_eq!(root.revoked_at, Some(unix(1_000)));
    let hold = Some(CertificateHold);
    let held = fixture.store.certificates_of("root", 1).unwrap();
    assert_eq!(held[0].revocation_reason, hold);
}

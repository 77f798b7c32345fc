//! Tests that revocations keep their first date, that only a hold is lifted, and that a revoked
//! generation signs nothing.

use super::*;
use crate::enrollment::role::Role;
use crate::ids::{GenerationId, IntentId};
use crate::x509::revocation::RevocationReason::{self, CertificateHold, KeyCompromise, Superseded};
use pollster::block_on;

fn revocation(target: RevocationTarget, at: UnixSeconds) -> Revocation {
    Revocation {
        target,
        at,
        actor: "test".into(),
        cause: "a test".into(),
    }
}

fn leaves(subject: &str) -> RevocationTarget {
    RevocationTarget::Leaves {
        subject: subject.into(),
    }
}

impl Fixture {
    fn revoked(&self, subject: &str) -> Vec<Option<(UnixSeconds, RevocationReason)>> {
        let rows = self.store.certificates_of(subject, 10).unwrap();
        let state = |row: &CertificateRow| row.revoked_at.zip(row.revocation_reason);
        rows.iter().map(state).collect()
    }

    fn issue_alone(&self, intent: Intent) {
        let recorded = block_on(self.store.record_intent(intent)).unwrap();
        self.settle(&recorded, OnIssued::Alone).unwrap();
    }
}

#[test]
fn a_block_revokes_every_live_leaf_of_the_device_and_nothing_of_its_namesakes() {
    let fixture = Fixture::new();
    fixture.issue("pump-7", 2);
    fixture.issue("pump-7", 3);
    fixture.issue("pump-8", 4);
    fixture.issue_alone(Intent {
        profile: "station".into(),
        role: Some(Role::Station),
        is_device: false,
        moves: Moves::Never,
        ..fixture.intent("pump-7", 5)
    });
    fixture.issue_alone(Intent {
        not_after: unix(1_400),
        is_device: false,
        moves: Moves::Never,
        ..fixture.intent("pump-7", 6)
    });
    let blocked = fixture
        .store
        .revoke(revocation(leaves("PUMP-7"), unix(1_500)), CertificateHold)
        .unwrap();
    assert_eq!(blocked.changed.len(), 2);
    let hold = Some((unix(1_500), CertificateHold));
    assert_eq!(fixture.revoked("pump-7"), [None, None, hold, hold]);
    assert_eq!(fixture.revoked("pump-8"), [None]);

    let again = fixture
        .store
        .revoke(revocation(leaves("pump-7"), unix(1_600)), CertificateHold)
        .unwrap();
    assert_eq!((again.changed.len(), again.unchanged.len()), (0, 2));
    assert_eq!(fixture.revoked("pump-7"), [None, None, hold, hold]);

    let lifted = fixture
        .store
        .unrevoke(revocation(leaves("pump-7"), unix(1_700)))
        .unwrap();
    assert_eq!(lifted.changed.len(), 2);
    assert_eq!(fixture.revoked("pump-7"), [None; 4]);
    let none = fixture
        .store
        .revoke(revocation(leaves("pump-9"), unix(1_500)), CertificateHold);
    assert_eq!(none.unwrap(), Revoked::default());
}

#[test]
fn a_hold_may_become_final_and_what_is_final_stays() {
    let fixture = Fixture::new();
    let sha256 = fixture.issue("pump-7", 2);
    let serial = || RevocationTarget::Serial(vec![2; 16]);
    let revoke = |at, reason| {
        let revoked = fixture.store.revoke(revocation(serial(), at), reason);
        revoked.unwrap().changed.len()
    };
    assert_eq!(revoke(unix(1_100), CertificateHold), 1);
    assert_eq!(revoke(unix(1_200), KeyCompromise), 1);
    assert_eq!(revoke(unix(1_300), CertificateHold), 0);
    assert_eq!(revoke(unix(1_400), Superseded), 0);
    let by_sha256 = revocation(RevocationTarget::Sha256(sha256), unix(1_500));
    let lifted = fixture.store.unrevoke(by_sha256).unwrap();
    assert_eq!(lifted.changed, []);
    assert_eq!(
        fixture.revoked("pump-7"),
        [Some((unix(1_100), KeyCompromise))]
    );

    let raw = fixture.raw();
    for sql in [
        "UPDATE certificate SET revoked_at = NULL, revocation_reason = NULL WHERE revoked_at > 0",
        "UPDATE certificate SET revoked_at = 1 WHERE revoked_at > 0",
        "UPDATE certificate SET revocation_reason = 4 WHERE revoked_at > 0",
        "UPDATE certificate SET revoked_at = 1, revocation_reason = 8 WHERE revoked_at IS NULL",
    ] {
        assert!(raw.execute(sql, []).is_err(), "{sql}");
    }
    let verdict = fixture.store.verify_audit().unwrap();
    assert_eq!(verdict.broken_at, None);
    let entries = fixture
        .store
        .audit_after(0, 1_000, &Default::default())
        .unwrap();
    let changes = entries
        .iter()
        .filter(|entry| entry.action == "certificate.revoked");
    assert_eq!(changes.count(), 2);
}

#[test]
fn what_was_named_and_does_not_exist_is_missing() {
    let fixture = Fixture::new();
    for target in [
        RevocationTarget::Certificate {
            intent: IntentId::new(99),
        },
        RevocationTarget::Serial(vec![9; 16]),
        RevocationTarget::Sha256([9; 32]),
        RevocationTarget::Generation {
            generation: GenerationId::new(99),
        },
    ] {
        let revoked = fixture
            .store
            .revoke(revocation(target, unix(1_100)), KeyCompromise);
        assert!(matches!(revoked, Err(StoreError::Missing(_))));
    }
}

#[test]
fn a_revoked_generation_signs_nothing_until_its_hold_is_lifted() {
    let fixture = Fixture::new();
    let own = || RevocationTarget::Generation {
        generation: fixture.root,
    };
    fixture
        .store
        .revoke(revocation(own(), unix(1_100)), CertificateHold)
        .unwrap();
    assert_eq!(
        fixture.store.generations().unwrap()[0].revoked_at,
        Some(unix(1_100))
    );
    let refused = block_on(fixture.store.record_intent(fixture.intent("pump-7", 2)));
    assert!(matches!(refused, Err(IntentError::IssuerRevoked)));
    fixture
        .store
        .unrevoke(revocation(own(), unix(1_200)))
        .unwrap();
    block_on(fixture.store.record_intent(fixture.intent("pump-7", 2))).unwrap();
}

#[test]
fn a_cached_certificate_is_seen_to_be_revoked() {
    let fixture = Fixture::new();
    fixture.issue("pump-7", 2);
    let before = fixture.store.revocations();
    fixture.issue("pump-8", 3);
    assert_eq!(fixture.store.revocations(), before, "nothing was revoked");
    let target = RevocationTarget::Serial(vec![2; 16]);
    let revoke = |at| {
        fixture
            .store
            .revoke(revocation(target.clone(), at), CertificateHold)
    };
    revoke(unix(1_100)).unwrap();
    let revoked = fixture.store.revocations();
    assert_ne!(revoked, before);
    revoke(unix(1_200)).unwrap();
    assert_eq!(
        fixture.store.revocations(),
        revoked,
        "it was revoked already"
    );
    fixture
        .store
        .unrevoke(revocation(target, unix(1_300)))
        .unwrap();
    assert_ne!(fixture.store.revocations(), revoked);
}

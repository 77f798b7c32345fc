//! Tests that a key has one holder, and a compromised key none.

use super::*;
use crate::error_code::Code;
use crate::x509::revocation::RevocationReason::{self, CaCompromise, KeyCompromise, Superseded};

const KEY: &[u8] = b"a key of its own";

impl Fixture {
    fn intent_for(&self, key: &[u8], subject: &str, serial: u8) -> Intent {
        Intent {
            public_key: key.to_vec().into(),
            ..self.intent(subject, serial)
        }
    }

    fn asks(&self, intent: Intent) -> Result<Recorded, IntentError> {
        block_on(self.store.record_intent(intent))
    }

    fn obtains(&self, intent: Intent) {
        let on_issued = match intent.is_device {
            true => OnIssued::Device {
                registration_id: intent.subject.clone(),
                profile: intent.profile.clone(),
            },
            false => OnIssued::Alone,
        };
        let recorded = self.asks(intent).unwrap();
        self.settle(&recorded, on_issued).unwrap();
    }

    fn revokes(&self, serial: u8, reason: RevocationReason) {
        let revocation = Revocation {
            target: RevocationTarget::Serial(vec![serial; 16]),
            at: unix(1_500),
            actor: "test".into(),
            cause: "a test".into(),
        };
        self.store.revoke(revocation, reason).unwrap();
    }
}

fn reason(refused: Result<Recorded, IntentError>) -> KeyRefusal {
    match refused {
        Err(IntentError::Key(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_is_that_of_one_holder() {
    let fixture = Fixture::new();
    fixture.obtains(fixture.intent_for(KEY, "pump-7", 2));
    fixture.obtains(fixture.intent_for(KEY, "pump-7", 3));
    fixture.obtains(fixture.intent_for(KEY, "PUMP-7", 4).in_no_device());
    let station = fixture.intent_for(KEY, "station-1", 5).in_no_device();
    for other in [fixture.intent_for(KEY, "pump-8", 5), station] {
        let refused = reason(fixture.asks(other.clone()));
        assert_eq!(refused, KeyRefusal::OfAnother("pump-7".into()));
        assert_eq!(refused.code(), Code::KeyInUse);
        let shared = Intent {
            shared_key: true,
            serial: vec![other.subject.len() as u8; 16],
            ..other
        };
        fixture.asks(shared).unwrap();
    }
}

impl Intent {
    fn in_no_device(self) -> Self {
        Self {
            is_device: false,
            ..self
        }
    }
}

/// Of two concurrent requests with one key the first recorded one gets it. An abandoned intent
/// holds no key.
#[test]
fn a_key_is_taken_while_its_leaf_is_being_signed() {
    let fixture = Fixture::new();
    let open = fixture.asks(fixture.intent_for(KEY, "pump-7", 2)).unwrap();
    let other = || fixture.intent_for(KEY, "pump-8", 3);
    assert_eq!(
        reason(fixture.asks(other())),
        KeyRefusal::OfAnother("pump-7".into())
    );
    block_on(
        fixture
            .store
            .abandon_intent(open.id(), "a test".into(), unix(1)),
    )
    .unwrap();
    fixture.asks(other()).unwrap();
}

#[test]
fn a_compromised_key_is_refused_for_every_holder() {
    let fixture = Fixture::new();
    fixture.obtains(fixture.intent_for(KEY, "pump-7", 2));
    fixture.revokes(2, Superseded);
    fixture.obtains(fixture.intent_for(KEY, "pump-7", 3));
    let shared = Intent {
        shared_key: true,
        ..fixture.intent_for(KEY, "pump-9", 4)
    };
    let being_signed = fixture.asks(shared).unwrap();
    fixture.revokes(3, KeyCompromise);

    let on_issued = OnIssued::Alone;
    assert!(fixture.settle(&being_signed, on_issued).is_err());
    for (serial, subject) in [(5, "pump-7"), (6, "pump-8")] {
        let intent = Intent {
            shared_key: true,
            ..fixture.intent_for(KEY, subject, serial)
        };
        let refused = reason(fixture.asks(intent.clone()));
        assert_eq!(refused, KeyRefusal::Compromised);
        let authority = Intent {
            purpose: Purpose::Authority,
            role: None,
            is_device: false,
            ..intent
        };
        assert_eq!(reason(fixture.asks(authority)), KeyRefusal::Compromised);
    }
    let raw = fixture.raw();
    for sql in [
        "DELETE FROM compromised_key",
        "UPDATE compromised_key SET reported_at = 0",
        "UPDATE intent SET key_sha256 = randomblob(32)",
    ] {
        assert!(raw.execute(sql, []).is_err(), "{sql}");
    }
}

/// A certificate that was revoked for another reason keeps that reason, and its key is refused.
#[test]
fn a_key_is_compromised_whatever_its_certificate_was_revoked_for() {
    let fixture = Fixture::new();
    fixture.obtains(fixture.intent_for(KEY, "pump-7", 2));
    fixture.revokes(2, Superseded);
    fixture.revokes(2, KeyCompromise);
    let refused = reason(fixture.asks(fixture.intent_for(KEY, "pump-7", 3)));
    assert_eq!(refused, KeyRefusal::Compromised);
}

#[test]
fn an_authoritys_key_is_on_no_leaf() {
    let fixture = Fixture::new();
    let own = Intent {
        shared_key: true,
        ..fixture.intent_for(&[1, 2, 3], "pump-7", 2)
    };
    assert_eq!(reason(fixture.asks(own)), KeyRefusal::OfAnAuthority);
    fixture.obtains(fixture.intent_for(KEY, "pump-7", 3));
    let authority = Intent {
        purpose: Purpose::Authority,
        role: None,
        ..fixture.intent_for(KEY, "pump-7", 4).in_no_device()
    };
    let refused = reason(fixture.asks(authority));
    assert_eq!(refused, KeyRefusal::OfAnother("pump-7".into()));

    let own = "SELECT serial FROM intent WHERE purpose = 'authority'";
    let serial: Vec<u8> = fixture.raw().query_row(own, [], |row| row.get(0)).unwrap();
    fixture.revokes(serial[0], CaCompromise);
    let found = fixture.store.key_refusal(b"key of root, 1", "pump-9", true);
    assert_eq!(found.unwrap(), Some(KeyRefusal::Compromised));
}

/// The key of an authority elsewhere is reported while a renewal with it is being signed. Verifies:
/// the renewal is not recorded.
#[test]
fn a_reported_key_of_an_authority_elsewhere_gets_no_certificate_in_work() {
    let fixture = Fixture::new();
    let subordinate = |serial| Intent {
        purpose: Purpose::Subordinate,
        role: None,
        ..fixture.intent_for(KEY, "Gateway 7", serial).in_no_device()
    };
    fixture.obtains(subordinate(2));
    let being_signed = fixture.asks(subordinate(3)).unwrap();
    fixture.revokes(2, CaCompromise);
    assert!(fixture.settle(&being_signed, OnIssued::Alone).is_err());
}

//! Tests what the store keeps apart of authorities that come from elsewhere.

use super::*;
use crate::crl_number::CrlNumber;
use crate::x509::revocation::RevocationReason;

#[test]
fn a_serial_number_exists_once_for_each_issuer() {
    let fixture = Fixture::new();
    let adopted = |authority: &str, key: u8, above: Option<&str>| AdoptedGeneration {
        plan: PlannedGeneration {
            authority: authority.into(),
            parent: None,
            token: "factory".into(),
            key_type: KeyType::P256,
            key_id: vec![key],
        },
        key_label: String::new(),
        spki: vec![key].into(),
        certificate: MadeElsewhere {
            der: join(&[key], b"signature"),
            tbs: vec![key].into(),
            serial: vec![1],
            public_key: vec![key].into(),
            subject: authority.into(),
            not_before: unix(1_000),
            not_after: unix(9_000),
        },
        above: above.map(str::to_owned),
        crl_number: CrlNumber::new(0),
    };
    let adopt = |it| {
        fixture
            .store
            .adopt_generation(it, entry("authority.adopted"))
    };
    adopt(adopted("old", 31, None)).unwrap();
    adopt(adopted("older", 32, None)).unwrap();
    adopt(adopted("below", 33, Some("chain"))).unwrap();
    let found = fixture.store.certificates_by_serial(&[1], None).unwrap();
    assert_eq!(found.len(), 3);
    let found = fixture.store.certificates_by_serial(&[1], Some("older"));
    assert_eq!(found.unwrap().len(), 1);

    let revocation = Revocation {
        target: RevocationTarget::Serial(vec![1]),
        at: unix(1_100),
        actor: "test".into(),
        cause: "a test".into(),
    };
    let refused = fixture
        .store
        .revoke(revocation, RevocationReason::Superseded);
    assert!(
        matches!(refused, Err(StoreError::Conflict(_))),
        "{refused:?}"
    );

    // The issuer of `below` is elsewhere, so its own number may be that of what it signs.
    let below = fixture.store.serving_generation("below").unwrap().unwrap();
    let child = AdoptedGeneration {
        plan: PlannedGeneration {
            parent: Some(below),
            ..adopted("cell", 34, None).plan
        },
        ..adopted("cell", 34, None)
    };
    adopt(child.clone()).unwrap();
    let second = AdoptedGeneration {
        spki: vec![35].into(),
        plan: PlannedGeneration {
            authority: "cell-2".into(),
            key_id: vec![35],
            ..child.plan
        },
        certificate: MadeElsewhere {
            der: join(&[35], b"signature"),
            tbs: vec![35].into(),
            public_key: vec![35].into(),
            ..child.certificate
        },
        ..child
    };
    let refused = adopt(second).unwrap_err().to_string();
    assert!(refused.contains("serial number 01"), "{refused}");
    let same_key = adopt(adopted("old-2", 31, None)).unwrap_err().to_string();
    assert!(
        same_key.contains("generation 1 of authority old"),
        "{same_key}"
    );
}

//! Tests what the schema and the operations refuse, and what a crash leaves.

mod adoption;
mod any_order;
mod asked;
mod block;
mod calls;
mod certificates;
mod certified_key;
mod clients;
mod conflicts;
mod crl;
mod dirty_mark;
mod ends_by_day;
mod excluded;
mod exclusion;
mod expiry;
mod fixture;
mod fleet;
mod grants;
mod hold;
mod imports;
mod indexes;
mod intent;
mod issued;
mod journal;
mod key_use;
mod million;
mod responder;
mod revocation;
mod roll;
mod scan;
mod stored_name;

use super::*;
use crate::enrollment::ca_certificate::{self, VerificationCode};
use crate::enrollment::hub_identity::HubPlace;
use crate::enrollment::slots::{SlotName, Slots};
use crate::enrollment::thumbprint::Thumbprint;
use crate::x509::certificate::join;
use crate::x509::key::KeyType;
use fixture::{Fixture, block_of, entry, root_generation, unix};
use pollster::block_on;
use serde_json::{Value, json};

#[test]
fn leaf_slots_roll_and_mark_change_in_one_transaction() {
    let fixture = Fixture::new();
    let enrollment = fixture.enroll("pump-7");
    assert!(
        enrollment.mark.is_none(),
        "nothing to push before there is a leaf"
    );
    let first = Thumbprint::from_bytes(fixture.issue("pump-7", 2));
    let row = fixture.store.enrollment(enrollment.id).unwrap();
    let serving = Slots::Serving {
        slot: SlotName::Primary,
        certificate: first,
    };
    assert_eq!(row.slots, serving);
    assert_eq!(row.mark.as_ref().unwrap().version, 1);

    let second = Thumbprint::from_bytes(fixture.issue("pump-7", 3));
    let row = fixture.store.enrollment(enrollment.id).unwrap();
    assert_eq!(row.slots.wanted(), (Some(first), Some(second)));
    let rolls = fixture.store.rolls(true, None, 10).unwrap();
    assert_eq!((rolls.len(), rolls[0].state), (1, RollState::Staged));
    let third = block_on(fixture.store.record_intent(fixture.intent("pump-7", 4)));
    assert!(
        matches!(third, Err(IntentError::RollUnderWay { .. })),
        "{third:?}"
    );
}

#[test]
fn the_journal_finds_a_changed_entry_and_refuses_ordinary_changes() {
    let fixture = Fixture::new();
    for _ in 0..5 {
        block_on(fixture.store.record_audit(entry("test.happened"))).unwrap();
    }
    let good = fixture.store.verify_audit().unwrap();
    assert_eq!((good.entries, good.broken_at), (6, None));
    let raw = fixture.raw();
    assert!(
        raw.execute("UPDATE audit SET actor = 'nobody' WHERE sequence = 3", [])
            .is_err()
    );
    raw.execute_batch("DROP TRIGGER audit_is_append_only_update")
        .unwrap();
    raw.execute("UPDATE audit SET actor = 'nobody' WHERE sequence = 3", [])
        .unwrap();
    assert_eq!(fixture.store.verify_audit().unwrap().broken_at, Some(3));
}

#[test]
fn many_writers_share_commits_and_a_refused_one_undoes_no_other() {
    let fixture = Fixture::new();
    let taken = fixture.intent("taken", 9).serial;
    let recorded = block_on(fixture.store.record_intent(fixture.intent("taken", 9))).unwrap();
    let fixture = &fixture;
    let refused: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..32u8)
            .map(|writer| {
                let mut intent = fixture.intent(&format!("device-{writer}"), 100 + writer);
                if writer % 4 == 0 {
                    intent.serial.clone_from(&taken);
                }
                scope.spawn(move || {
                    usize::from(block_on(fixture.store.record_intent(intent)).is_err())
                })
            })
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .sum()
    });
    assert_eq!(refused, 8);
    assert_eq!(
        fixture.store.issuance_counts().unwrap().0,
        25,
        "24 and the one before"
    );
    block_on(
        fixture
            .store
            .abandon_intent(recorded.id(), "test".into(), unix(1_000)),
    )
    .unwrap();
}

#[test]
fn a_planned_generation_is_planned_once() {
    let fixture = Fixture::new();
    let row = fixture.store.plan_generation(Fixture::plan(8)).unwrap();
    assert_eq!(
        (row.id, row.key_id),
        (fixture.root, vec![7; 16]),
        "the one that exists"
    );
    assert!(
        fixture
            .store
            .record_key(fixture.root, vec![9].into(), None)
            .is_err(),
        "its key is on record"
    );
}

#[test]
fn a_key_that_is_kept_outside_its_token_is_recorded_once_with_its_public_half() {
    let fixture = Fixture::new();
    let plan = PlannedGeneration {
        authority: "gateway".into(),
        parent: None,
        token: "tpm".into(),
        key_type: KeyType::P256,
        key_id: vec![8; 16],
    };
    let row = fixture.store.plan_generation(plan).unwrap();
    let record = |wrapped: Vec<u8>| {
        fixture
            .store
            .record_key(row.id, vec![9].into(), Some(wrapped))
    };
    let too_long = vec![1; crate::token::WRAPPED_BYTES_MAX + 1];
    assert!(record(too_long).is_err());
    record(vec![1; 700]).unwrap();
    record(vec![1; 700]).unwrap();
    assert!(record(vec![2; 700]).is_err(), "another key is on record");
    let rows = fixture.store.generations().unwrap();
    let row = rows.iter().find(|it| it.id == row.id).unwrap();
    assert_eq!(row.key_wrapped, Some(vec![1; 700]));
}

#[test]
fn everything_survives_reopening() {
    let fixture = Fixture::new();
    fixture.issue("pump-7", 2);
    let path = fixture.store.path().to_owned();
    let Fixture { store, folder, .. } = fixture;
    drop(store);
    let store = Store::open(&path).unwrap();
    assert!(store.device("pump-7").unwrap().is_some());
    assert_eq!(store.verify_audit().unwrap().broken_at, None);
    drop(folder);
}

#[test]
fn the_schema_applies_to_an_empty_database() {
    migrations().validate().unwrap();
}

#[test]
fn each_profile_of_devices_is_listed_once() {
    let fixture = Fixture::new();
    assert!(fixture.store.registered_profiles().unwrap().is_empty());
    for (serial, (id, profile)) in [("a", "x"), ("b", "y"), ("c", "x"), ("d", "z")]
        .into_iter()
        .enumerate()
    {
        let serial = 10 + u8::try_from(serial).unwrap();
        let intent = Intent {
            profile: profile.into(),
            ..fixture.intent(id, serial)
        };
        let recorded = block_on(fixture.store.record_intent(intent)).unwrap();
        let on_issued = OnIssued::Device {
            registration_id: id.into(),
            profile: profile.into(),
        };
        fixture.settle(&recorded, on_issued).unwrap();
    }
    assert_eq!(
        fixture.store.registered_profiles().unwrap(),
        ["x", "y", "z"]
    );
    assert_eq!(fixture.store.registered_count("x").unwrap(), 2);
}

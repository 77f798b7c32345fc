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
mod excluded;
mod exclusion;
mod expiry;
mod fleet;
mod grants;
mod hold;
mod indexes;
mod key_use;
mod million;
mod revocation;
mod roll;
mod scan;
mod stage;
mod stored_name;

use super::*;
use crate::enrollment::ca_certificate::{self, VerificationCode};
use crate::enrollment::hub_identity::HubPlace;
use crate::enrollment::slots::{SlotName, Slots};
use crate::enrollment::thumbprint::Thumbprint;
use crate::x509::certificate::join;
use crate::x509::key::KeyType;
use pollster::block_on;
use serde_json::{Value, json};
use stage::{Stage, block_of, entry, root_generation, unix};

#[test]
fn an_intent_never_changes_and_is_never_deleted() {
    let stage = Stage::new();
    block_on(stage.store.record_intent(stage.intent("pump-7", 2))).unwrap();
    let raw = stage.raw();
    for sql in [
        "UPDATE intent SET tbs = x'00'",
        "UPDATE intent SET serial = x'000000000000000000'",
        "DELETE FROM intent",
        "UPDATE intent SET ended = NULL",
        "UPDATE open_intent SET subject = 'pump-8'",
        "DELETE FROM open_intent",
    ] {
        assert!(raw.execute(sql, []).is_err(), "{sql}");
    }
}

#[test]
fn a_certificate_that_does_not_carry_the_recorded_bytes_is_refused_whole() {
    let stage = Stage::new();
    let recorded = block_on(stage.store.record_intent(stage.intent("pump-7", 2))).unwrap();
    let on_issued = OnIssued::Device {
        registration_id: "pump-7".into(),
        profile: "device".into(),
    };
    let refused = block_on(stage.store.record_certificate(
        &recorded,
        b"other".to_vec().into(),
        on_issued,
        entry("certificate.issued"),
    ));
    let Err(StoreError::Conflict(reason)) = &refused else {
        panic!("{refused:?}");
    };
    assert_eq!(reason, "the certificate does not carry the recorded bytes");
    assert!(
        stage.store.device("pump-7").unwrap().is_none(),
        "no half of it remains"
    );
    assert_eq!(
        stage.store.issuance_counts().unwrap(),
        (1, 1, 0),
        "the intent is still open"
    );
}

/// Verifies what the schema refuses, whatever program writes: a certificate without an open intent,
/// a second one, the end of an intent that has one, and its removal.
#[test]
fn an_intent_has_one_certificate_or_one_end() {
    let stage = Stage::new();
    let certificate = |intent: &str| {
        format!(
            "INSERT INTO certificate (intent, signature, sha256, issued_at)
             VALUES ({intent}, x'30', randomblob(32), 1)"
        )
    };
    let [issued, ended] = [("pump-7", 2), ("pump-8", 3)].map(|(device, serial)| {
        block_on(stage.store.record_intent(stage.intent(device, serial))).unwrap();
        format!("(SELECT id FROM intent WHERE subject = '{device}')")
    });
    let raw = stage.raw();
    raw.execute(&certificate(&issued), []).unwrap();
    let end = |intent: &str| format!("UPDATE intent SET ended = 'withdrawn' WHERE id = {intent}");
    raw.execute(&end(&ended), []).unwrap();
    let left = "SELECT count(*) FROM open_intent";
    let left: i64 = raw.query_row(left, [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
    for (sql, name) in [
        (certificate(&issued), "certificate_has_an_open_intent"),
        (certificate(&ended), "certificate_has_an_open_intent"),
        (certificate("12345"), "certificate_has_an_open_intent"),
        (end(&issued), "intent_settles_once"),
        (end(&ended), "intent_settles_once"),
        ("DELETE FROM certificate".to_owned(), "certificate_is_kept"),
    ] {
        let refused = raw.execute(&sql, []).unwrap_err().to_string();
        assert_eq!(refused, name, "{sql}");
    }
}

#[test]
fn what_a_crash_leaves_open_is_abandoned_once_and_audited() {
    let stage = Stage::new();
    block_on(stage.store.record_intent(stage.intent("pump-7", 2))).unwrap();
    block_on(stage.store.record_intent(stage.intent("pump-8", 3))).unwrap();
    assert_eq!(stage.store.abandon_open_intents(unix(5_000)).unwrap(), 2);
    assert_eq!(stage.store.abandon_open_intents(unix(5_000)).unwrap(), 0);
    let journal = stage
        .store
        .audit_after(0, 100, &Default::default())
        .unwrap();
    assert_eq!(
        journal
            .iter()
            .filter(|it| it.action == "intent.abandoned")
            .count(),
        2
    );
    stage.issue("pump-7", 4);
}

#[test]
fn a_serial_number_exists_once_even_after_it_was_abandoned() {
    let stage = Stage::new();
    let recorded = block_on(stage.store.record_intent(stage.intent("pump-7", 2))).unwrap();
    block_on(
        stage
            .store
            .abandon_intent(recorded.id(), "token gone".into(), unix(1_000)),
    )
    .unwrap();
    let again = block_on(stage.store.record_intent(stage.intent("pump-8", 2)));
    assert!(
        matches!(again, Err(IntentRefusal::SerialExists)),
        "{again:?}"
    );
}

/// An intent that was sent to no worker is on no revocation list, and its request may be repeated.
/// Its serial number is used up.
#[test]
fn a_withdrawn_intent_is_audited_and_listed_nowhere() {
    let stage = Stage::new();
    let idempotency = Some(Idempotency {
        key: "k".into(),
        request_sha256: [1; 32],
    });
    let intent = |serial| Intent {
        idempotency: idempotency.clone(),
        ..stage.intent("pump-7", serial)
    };
    let counts = stage.store.revocation_counts().unwrap();
    let recorded = block_on(stage.store.record_intent(intent(2))).unwrap();
    let withdraw = |reason: &str| {
        let withdrawn = stage
            .store
            .withdraw_intent(recorded.id(), reason.into(), unix(1_000));
        block_on(withdrawn).unwrap();
    };
    withdraw("no worker");
    withdraw("again");
    assert_eq!(stage.store.revocation_counts().unwrap(), counts);
    let draft = stage.store.draft_crl(stage.root, unix(0)).unwrap();
    assert!(draft.entries.is_empty(), "{draft:?}");
    let journal = stage
        .store
        .audit_after(0, 100, &Default::default())
        .unwrap();
    let withdrawn = journal.iter().filter(|it| it.action == "intent.withdrawn");
    assert_eq!(withdrawn.count(), 1);
    assert_eq!(stage.store.abandon_open_intents(unix(5_000)).unwrap(), 0);

    let again = block_on(stage.store.record_intent(intent(2)));
    assert!(
        matches!(again, Err(IntentRefusal::SerialExists)),
        "{again:?}"
    );
    block_on(stage.store.record_intent(intent(3))).unwrap();
}

#[test]
fn one_leaf_at_a_time_for_a_device_and_only_in_its_spelling() {
    let stage = Stage::new();
    stage.issue("Pump-7", 2);
    let other = block_on(stage.store.record_intent(stage.intent("pump-7", 3)));
    assert!(matches!(other, Err(IntentRefusal::Spelling { known }) if known == "Pump-7"));
    block_on(stage.store.record_intent(stage.intent("Pump-7", 4))).unwrap();
    let second = block_on(stage.store.record_intent(stage.intent("Pump-7", 5)));
    assert!(
        matches!(second, Err(IntentRefusal::UnderWay(_))),
        "{second:?}"
    );
}

#[test]
fn an_idempotency_key_names_one_request_until_that_is_abandoned() {
    let stage = Stage::new();
    let idempotency = Some(Idempotency {
        key: "k".into(),
        request_sha256: [1; 32],
    });
    let first = Intent {
        idempotency: idempotency.clone(),
        ..stage.intent("pump-7", 2)
    };
    let recorded = block_on(stage.store.record_intent(first)).unwrap();
    let second = Intent {
        idempotency: idempotency.clone(),
        ..stage.intent("pump-8", 3)
    };
    let refused = block_on(stage.store.record_intent(second.clone()));
    assert!(
        matches!(
            refused,
            Err(IntentRefusal::Repeated(PriorRequest::UnderWay))
        ),
        "{refused:?}"
    );
    let under_way = block_on(stage.store.prior_request("station line-1", "k")).unwrap();
    assert!(matches!(under_way, Some(PriorRequest::UnderWay)));
    block_on(
        stage
            .store
            .abandon_intent(recorded.id(), "deadline".into(), unix(1_000)),
    )
    .unwrap();
    assert!(
        block_on(stage.store.prior_request("station line-1", "k"))
            .unwrap()
            .is_none()
    );
    block_on(stage.store.record_intent(second)).unwrap();
}

#[test]
fn leaf_slots_roll_and_mark_change_in_one_transaction() {
    let stage = Stage::new();
    let enrollment = stage.enroll("pump-7");
    assert!(
        enrollment.mark.is_none(),
        "nothing to push before there is a leaf"
    );
    let first = Thumbprint::from_bytes(stage.issue("pump-7", 2));
    let row = stage.store.enrollment(enrollment.id).unwrap();
    let serving = Slots::Serving {
        slot: SlotName::Primary,
        certificate: first,
    };
    assert_eq!(row.slots, serving);
    assert_eq!(row.mark.as_ref().unwrap().version, 1);

    let second = Thumbprint::from_bytes(stage.issue("pump-7", 3));
    let row = stage.store.enrollment(enrollment.id).unwrap();
    assert_eq!(row.slots.wanted(), (Some(first), Some(second)));
    let rolls = stage.store.rolls(true, None, 10).unwrap();
    assert_eq!((rolls.len(), rolls[0].state), (1, RollState::Staged));
    let third = block_on(stage.store.record_intent(stage.intent("pump-7", 4)));
    assert!(
        matches!(third, Err(IntentRefusal::RollUnderWay { .. })),
        "{third:?}"
    );
}

#[test]
fn a_mark_is_cleared_only_by_work_for_its_last_cause() {
    let stage = Stage::new();
    let enrollment = stage.enroll("pump-7");
    stage.issue("pump-7", 2);
    let seen = stage
        .store
        .due_marks("dps", unix(2_000), 10, true)
        .unwrap()
        .remove(0);
    stage.issue("pump-7", 3);
    assert!(
        !stage
            .store
            .complete_mark(&seen, Observation::Gone, unix(2_000))
            .unwrap()
    );
    let row = stage.store.enrollment(enrollment.id).unwrap();
    assert_eq!(
        row.mark.unwrap().version,
        2,
        "the newer cause is still to be looked at"
    );
}

/// The service assigns a device, and another program deletes the enrollment and so its registration
/// record. Verifies: the place that was observed stays on record.
#[test]
fn the_place_of_a_deleted_enrollment_stays_on_record() {
    let stage = Stage::new();
    let enrollment = stage.enroll("pump-7");
    stage.issue("pump-7", 2);
    let observe = |observation| {
        let marks = stage.store.due_marks("dps", unix(2_000), 10, true);
        let mark = marks.unwrap().remove(0);
        stage
            .store
            .complete_mark(&mark, observation, unix(2_000))
            .unwrap();
        stage.store.hub_place("dps", "PUMP-7").unwrap()
    };
    let assigned = json!({ "assignedHub": "One.azure-devices.net", "deviceId": "Asset-7" });
    let in_place = Observation::InPlace {
        history: Box::default(),
        record: json!({ "registrationState": assigned }),
    };
    assert_eq!(observe(in_place), None);
    let row = stage.store.enrollment(enrollment.id).unwrap();
    let removed = entry("enrollment.removed");
    stage.store.remove_enrollment(&row, removed).unwrap();
    let kept = HubPlace {
        hub: "one.azure-devices.net".into(),
        device_id: "Asset-7".into(),
    };
    assert_eq!(observe(Observation::Gone), Some(kept));
    let found = stage.store.find_enrollment(enrollment.id).unwrap();
    assert!(found.is_none());
}

/// Another program deletes an enrollment, or replaces it, before it was seen to name a hub.
/// Verifies: the place counts as lost, until a hub is named; not for a removal by the daemon.
#[test]
fn the_place_of_an_enrollment_that_went_unseen_is_lost() {
    let record = |created: &str, state: Value| {
        let history = Box::default();
        let record = json!({ "createdDateTimeUtc": created, "registrationState": state });
        Observation::InPlace { history, record }
    };
    let unassigned = || json!({ "status": "unassigned" });
    let (first, second) = ("2026-11-30T10:00:00Z", "2026-11-30T11:00:00Z");
    let drifted = || Observation::Drifted {
        record: None,
        drift: json!({}),
    };
    for (seen, is_lost) in [
        (
            vec![record(first, unassigned()), record(first, unassigned())],
            false,
        ),
        (
            vec![record(first, unassigned()), record(second, unassigned())],
            true,
        ),
        (vec![record(first, unassigned()), drifted()], true),
        (vec![drifted(), record(second, unassigned())], false),
    ] {
        let stage = Stage::new();
        stage.enroll("pump-7");
        for (observation, serial) in seen.into_iter().zip(2..) {
            stage.issue("pump-7", serial);
            let marks = stage.store.due_marks("dps", unix(2_000), 10, true);
            let mark = marks.unwrap().remove(0);
            let store = &stage.store;
            store
                .complete_mark(&mark, observation, unix(2_000))
                .unwrap();
        }
        assert_eq!(stage.store.is_place_lost("dps", "PUMP-7").unwrap(), is_lost);
        let place = HubPlace {
            hub: "one.azure-devices.net".into(),
            device_id: "pump-7".into(),
        };
        stage
            .store
            .record_hub_place("dps", "pump-7", place)
            .unwrap();
        assert!(!stage.store.is_place_lost("dps", "pump-7").unwrap());
    }
}

#[test]
fn a_parked_mark_waits_for_an_operator() {
    let stage = Stage::new();
    stage.enroll("pump-7");
    stage.issue("pump-7", 2);
    let mark = stage
        .store
        .due_marks("dps", unix(2_000), 10, true)
        .unwrap()
        .remove(0);
    stage
        .store
        .park_mark(&mark, "400".into(), entry("push.parked"))
        .unwrap();
    assert!(
        stage
            .store
            .due_marks("dps", UnixSeconds::MAX, 10, true)
            .unwrap()
            .is_empty()
    );
    assert_eq!(stage.store.mark_counts().unwrap().1, 1);
    assert_eq!(
        stage
            .store
            .retry_marks(Some("pump-7".into()), entry("push.retried"))
            .unwrap(),
        1
    );
    assert_eq!(
        stage
            .store
            .due_marks("dps", UnixSeconds::MAX, 10, true)
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn an_operator_restarts_a_parked_proof_of_possession() {
    let stage = Stage::new();
    let wanted = entry("ca_certificate.wanted");
    let added = stage
        .store
        .want_ca_certificate("dps".into(), "root-1".into(), stage.root, wanted);
    assert!(added.unwrap());
    let row = stage.store.ca_certificates().unwrap().remove(0);
    let code = |text: &str| VerificationCode::parse(text).unwrap();
    let mut proof = row.proof.clone().uploaded();
    while let Ok(next) = proof.clone().code_received(code("0123456789ABCDEF")) {
        proof = next;
    }
    stage
        .store
        .advance_proof(row.id, row.proof, proof.clone())
        .unwrap();
    let mark = stage.store.due_marks("dps", unix(2_000), 10, true).unwrap();
    stage
        .store
        .park_mark(&mark[0], "exhausted".into(), entry("push.parked"))
        .unwrap();
    stage
        .store
        .retry_marks(Some("root-1".into()), entry("push.retried"))
        .unwrap();
    let row = stage.store.ca_certificate(row.id).unwrap();
    assert_eq!(row.proof.stage(), &ca_certificate::Stage::Wanted);
    assert!(row.proof.code_received(code("FEDCBA9876543210")).is_ok());
}

#[test]
fn the_journal_finds_a_changed_entry_and_refuses_ordinary_changes() {
    let stage = Stage::new();
    for _ in 0..5 {
        block_on(stage.store.record_audit(entry("test.happened"))).unwrap();
    }
    let good = stage.store.verify_audit().unwrap();
    assert_eq!((good.entries, good.broken_at), (6, None));
    let raw = stage.raw();
    assert!(
        raw.execute("UPDATE audit SET actor = 'nobody' WHERE sequence = 3", [])
            .is_err()
    );
    raw.execute_batch("DROP TRIGGER audit_is_append_only_update")
        .unwrap();
    raw.execute("UPDATE audit SET actor = 'nobody' WHERE sequence = 3", [])
        .unwrap();
    assert_eq!(stage.store.verify_audit().unwrap().broken_at, Some(3));
}

#[test]
fn many_writers_share_commits_and_a_refused_one_undoes_no_other() {
    let stage = Stage::new();
    let taken = stage.intent("taken", 9).serial;
    let recorded = block_on(stage.store.record_intent(stage.intent("taken", 9))).unwrap();
    let stage = &stage;
    let refused: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..32u8)
            .map(|writer| {
                let mut intent = stage.intent(&format!("device-{writer}"), 100 + writer);
                if writer % 4 == 0 {
                    intent.serial.clone_from(&taken);
                }
                scope.spawn(move || {
                    usize::from(block_on(stage.store.record_intent(intent)).is_err())
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
        stage.store.issuance_counts().unwrap().0,
        25,
        "24 and the one before"
    );
    block_on(
        stage
            .store
            .abandon_intent(recorded.id(), "test".into(), unix(1_000)),
    )
    .unwrap();
}

#[test]
fn a_planned_generation_is_planned_once() {
    let stage = Stage::new();
    let plan = PlannedGeneration {
        authority: "root".into(),
        parent: None,
        token: "factory".into(),
        key_type: KeyType::P256,
        key_id: vec![8; 16],
    };
    let row = stage.store.plan_generation(plan).unwrap();
    assert_eq!(
        (row.id, row.key_id),
        (stage.root, vec![7; 16]),
        "the one that exists"
    );
    assert!(
        stage
            .store
            .record_key(stage.root, vec![9].into(), None)
            .is_err(),
        "its key is on record"
    );
}

#[test]
fn a_key_that_is_kept_outside_its_token_is_recorded_once_with_its_public_half() {
    let stage = Stage::new();
    let plan = PlannedGeneration {
        authority: "gateway".into(),
        parent: None,
        token: "tpm".into(),
        key_type: KeyType::P256,
        key_id: vec![8; 16],
    };
    let row = stage.store.plan_generation(plan).unwrap();
    let record = |wrapped: Vec<u8>| {
        stage
            .store
            .record_key(row.id, vec![9].into(), Some(wrapped))
    };
    let too_long = vec![1; crate::token::WRAPPED_BYTES_MAX + 1];
    assert!(record(too_long).is_err());
    record(vec![1; 700]).unwrap();
    record(vec![1; 700]).unwrap();
    assert!(record(vec![2; 700]).is_err(), "another key is on record");
    let rows = stage.store.generations().unwrap();
    let row = rows.iter().find(|it| it.id == row.id).unwrap();
    assert_eq!(row.key_wrapped, Some(vec![1; 700]));
}

#[test]
fn everything_survives_reopening() {
    let stage = Stage::new();
    stage.issue("pump-7", 2);
    let path = stage.store.path().to_owned();
    let Stage { store, folder, .. } = stage;
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

/// The transaction that records the intent decides, whatever was read before.
#[test]
fn a_device_gets_another_profile_only_where_the_intent_may_move_it() {
    let stage = Stage::new();
    stage.issue("pump-7", 2);
    let asked = |serial, profile: &str, moves: Moves| {
        let intent = Intent {
            profile: profile.into(),
            moves,
            ..stage.intent("pump-7", serial)
        };
        block_on(stage.store.record_intent(intent))
    };
    let not_from = |profile: &str| Moves::NotFrom([profile.to_owned()].into());
    let refused = asked(3, "other", Moves::Never).unwrap_err();
    assert!(
        matches!(refused, IntentRefusal::Moves { .. }),
        "{refused:?}"
    );
    let refused = asked(4, "other", not_from("device")).unwrap_err();
    assert!(
        matches!(refused, IntentRefusal::Moves { .. }),
        "{refused:?}"
    );
    let refused = asked(5, "other", Moves::NotByItself).unwrap_err();
    assert!(
        matches!(refused, IntentRefusal::OwnProfile { .. }),
        "{refused:?}"
    );
    let refused = asked(6, "Device", Moves::Never).unwrap_err();
    assert!(
        matches!(refused, IntentRefusal::Moves { .. }),
        "{refused:?}"
    );

    let recorded = asked(7, "other", not_from("third")).unwrap();
    let on_issued = OnIssued::Device {
        registration_id: "pump-7".into(),
        profile: "other".into(),
    };
    stage.settle(&recorded, on_issued).unwrap();
    assert_eq!(
        stage.store.device("pump-7").unwrap().unwrap().profile,
        "other"
    );
    assert_eq!(stage.store.registered_profiles().unwrap(), ["other"]);
    let journal = stage
        .store
        .audit_after(0, 100, &Default::default())
        .unwrap();
    let moves: Vec<_> = journal
        .iter()
        .filter(|it| it.action == "device.moved")
        .collect();
    assert_eq!(moves.len(), 1);
    assert_eq!(moves[0].detail, json!({ "from": "device", "to": "other" }));
    let refused = asked(8, "device", Moves::Never).unwrap_err();
    assert!(
        matches!(refused, IntentRefusal::Moves { .. }),
        "{refused:?}"
    );
    asked(9, "other", Moves::Never).unwrap();
}

#[test]
fn each_profile_of_devices_is_listed_once() {
    let stage = Stage::new();
    assert!(stage.store.registered_profiles().unwrap().is_empty());
    for (serial, (id, profile)) in [("a", "x"), ("b", "y"), ("c", "x"), ("d", "z")]
        .into_iter()
        .enumerate()
    {
        let serial = 10 + u8::try_from(serial).unwrap();
        let intent = Intent {
            profile: profile.into(),
            ..stage.intent(id, serial)
        };
        let recorded = block_on(stage.store.record_intent(intent)).unwrap();
        let on_issued = OnIssued::Device {
            registration_id: id.into(),
            profile: profile.into(),
        };
        stage.settle(&recorded, on_issued).unwrap();
    }
    assert_eq!(stage.store.registered_profiles().unwrap(), ["x", "y", "z"]);
    assert_eq!(stage.store.registered_count("x").unwrap(), 2);
}

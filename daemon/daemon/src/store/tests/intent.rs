//! Tests which intents are recorded, what they become, and that they never change.

use super::*;

#[test]
fn an_intent_never_changes_and_is_never_deleted() {
    let fixture = Fixture::new();
    block_on(fixture.store.record_intent(fixture.intent("pump-7", 2))).unwrap();
    let raw = fixture.raw();
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
    let fixture = Fixture::new();
    let recorded = block_on(fixture.store.record_intent(fixture.intent("pump-7", 2))).unwrap();
    let on_issued = OnIssued::Device {
        registration_id: "pump-7".into(),
        profile: "device".into(),
    };
    let refused = block_on(fixture.store.record_certificate(
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
        fixture.store.device("pump-7").unwrap().is_none(),
        "no half of it remains"
    );
    assert_eq!(
        fixture.store.issuance_counts().unwrap(),
        (1, 1, 0),
        "the intent is still open"
    );
}

/// Verifies what the schema refuses, whatever program writes: a certificate without an open intent,
/// a second one, the end of an intent that has one, and its removal.
#[test]
fn an_intent_has_one_certificate_or_one_end() {
    let fixture = Fixture::new();
    let certificate = |intent: &str| {
        format!(
            "INSERT INTO certificate (intent, signature, sha256, issued_at)
             VALUES ({intent}, x'30', randomblob(32), 1)"
        )
    };
    let [issued, ended] = [("pump-7", 2), ("pump-8", 3)].map(|(device, serial)| {
        block_on(fixture.store.record_intent(fixture.intent(device, serial))).unwrap();
        format!("(SELECT id FROM intent WHERE subject = '{device}')")
    });
    let raw = fixture.raw();
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
    let fixture = Fixture::new();
    block_on(fixture.store.record_intent(fixture.intent("pump-7", 2))).unwrap();
    block_on(fixture.store.record_intent(fixture.intent("pump-8", 3))).unwrap();
    assert_eq!(fixture.store.abandon_open_intents(unix(5_000)).unwrap(), 2);
    assert_eq!(fixture.store.abandon_open_intents(unix(5_000)).unwrap(), 0);
    let journal = fixture
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
    fixture.issue("pump-7", 4);
}

#[test]
fn a_serial_number_exists_once_even_after_it_was_abandoned() {
    let fixture = Fixture::new();
    let recorded = block_on(fixture.store.record_intent(fixture.intent("pump-7", 2))).unwrap();
    block_on(
        fixture
            .store
            .abandon_intent(recorded.id(), "token gone".into(), unix(1_000)),
    )
    .unwrap();
    let again = block_on(fixture.store.record_intent(fixture.intent("pump-8", 2)));
    assert!(matches!(again, Err(IntentError::SerialExists)), "{again:?}");
}

/// An intent that was sent to no worker is on no revocation list, and its request may be repeated.
/// Its serial number is used up.
#[test]
fn a_withdrawn_intent_is_audited_and_listed_nowhere() {
    let fixture = Fixture::new();
    let idempotency = Some(Idempotency {
        key: "k".into(),
        request_sha256: [1; 32],
    });
    let intent = |serial| Intent {
        idempotency: idempotency.clone(),
        ..fixture.intent("pump-7", serial)
    };
    let counts = fixture.store.revocation_counts().unwrap();
    let recorded = block_on(fixture.store.record_intent(intent(2))).unwrap();
    let withdraw = |reason: &str| {
        let withdrawn = fixture
            .store
            .withdraw_intent(recorded.id(), reason.into(), unix(1_000));
        block_on(withdrawn).unwrap();
    };
    withdraw("no worker");
    withdraw("again");
    assert_eq!(fixture.store.revocation_counts().unwrap(), counts);
    let draft = fixture.store.draft_crl(fixture.root, unix(0)).unwrap();
    assert!(draft.entries.is_empty(), "{draft:?}");
    let journal = fixture
        .store
        .audit_after(0, 100, &Default::default())
        .unwrap();
    let withdrawn = journal.iter().filter(|it| it.action == "intent.withdrawn");
    assert_eq!(withdrawn.count(), 1);
    assert_eq!(fixture.store.abandon_open_intents(unix(5_000)).unwrap(), 0);

    let again = block_on(fixture.store.record_intent(intent(2)));
    assert!(matches!(again, Err(IntentError::SerialExists)), "{again:?}");
    block_on(fixture.store.record_intent(intent(3))).unwrap();
}

#[test]
fn one_leaf_at_a_time_for_a_device_and_only_in_its_spelling() {
    let fixture = Fixture::new();
    fixture.issue("Pump-7", 2);
    let other = block_on(fixture.store.record_intent(fixture.intent("pump-7", 3)));
    assert!(matches!(other, Err(IntentError::Spelling { known }) if known == "Pump-7"));
    block_on(fixture.store.record_intent(fixture.intent("Pump-7", 4))).unwrap();
    let second = block_on(fixture.store.record_intent(fixture.intent("Pump-7", 5)));
    assert!(
        matches!(second, Err(IntentError::UnderWay(_))),
        "{second:?}"
    );
}

#[test]
fn an_idempotency_key_names_one_request_until_that_is_abandoned() {
    let fixture = Fixture::new();
    let idempotency = Some(Idempotency {
        key: "k".into(),
        request_sha256: [1; 32],
    });
    let first = Intent {
        idempotency: idempotency.clone(),
        ..fixture.intent("pump-7", 2)
    };
    let recorded = block_on(fixture.store.record_intent(first)).unwrap();
    let second = Intent {
        idempotency: idempotency.clone(),
        ..fixture.intent("pump-8", 3)
    };
    let refused = block_on(fixture.store.record_intent(second.clone()));
    assert!(
        matches!(refused, Err(IntentError::Repeated(PriorRequest::UnderWay))),
        "{refused:?}"
    );
    let under_way = block_on(fixture.store.prior_request("station line-1", "k")).unwrap();
    assert!(matches!(under_way, Some(PriorRequest::UnderWay)));
    block_on(
        fixture
            .store
            .abandon_intent(recorded.id(), "deadline".into(), unix(1_000)),
    )
    .unwrap();
    assert!(
        block_on(fixture.store.prior_request("station line-1", "k"))
            .unwrap()
            .is_none()
    );
    block_on(fixture.store.record_intent(second)).unwrap();
}

/// The transaction that records the intent decides, whatever was read before.
#[test]
fn a_device_gets_another_profile_only_where_the_intent_may_move_it() {
    let fixture = Fixture::new();
    fixture.issue("pump-7", 2);
    let asked = |serial, profile: &str, moves: Moves| {
        let intent = Intent {
            profile: profile.into(),
            moves,
            ..fixture.intent("pump-7", serial)
        };
        block_on(fixture.store.record_intent(intent))
    };
    let not_from = |profile: &str| Moves::NotFrom([profile.to_owned()].into());
    let refused = asked(3, "other", Moves::Never).unwrap_err();
    assert!(matches!(refused, IntentError::Moves { .. }), "{refused:?}");
    let refused = asked(4, "other", not_from("device")).unwrap_err();
    assert!(matches!(refused, IntentError::Moves { .. }), "{refused:?}");
    let refused = asked(5, "other", Moves::NotByItself).unwrap_err();
    assert!(
        matches!(refused, IntentError::OwnProfile { .. }),
        "{refused:?}"
    );
    let refused = asked(6, "Device", Moves::Never).unwrap_err();
    assert!(matches!(refused, IntentError::Moves { .. }), "{refused:?}");

    let recorded = asked(7, "other", not_from("third")).unwrap();
    let on_issued = OnIssued::Device {
        registration_id: "pump-7".into(),
        profile: "other".into(),
    };
    fixture.settle(&recorded, on_issued).unwrap();
    assert_eq!(
        fixture.store.device("pump-7").unwrap().unwrap().profile,
        "other"
    );
    assert_eq!(fixture.store.registered_profiles().unwrap(), ["other"]);
    let journal = fixture
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
    assert!(matches!(refused, IntentError::Moves { .. }), "{refused:?}");
    asked(9, "other", Moves::Never).unwrap();
}

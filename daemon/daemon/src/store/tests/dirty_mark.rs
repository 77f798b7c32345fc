//! Tests what ends a dirty mark, what parks it, and which place of a hub stays on record.

use super::*;

#[test]
fn a_mark_is_cleared_only_by_work_for_its_last_cause() {
    let fixture = Fixture::new();
    let enrollment = fixture.enroll("pump-7");
    fixture.issue("pump-7", 2);
    let seen = fixture
        .store
        .due_marks("dps", unix(2_000), 10, true)
        .unwrap()
        .remove(0);
    fixture.issue("pump-7", 3);
    assert!(
        !fixture
            .store
            .complete_mark(&seen, Observation::Gone, unix(2_000))
            .unwrap()
    );
    let row = fixture.store.enrollment(enrollment.id).unwrap();
    assert_eq!(
        row.mark.unwrap().version,
        2,
        "the newer cause is still to be looked at"
    );
}

/// A scan and a turn complete the same mark, and between them another enrollment is marked.
/// Verifies: that mark stays. If it had the id of the completed one, the turn would clear it, and
/// an exclusion would never reach the service.
#[test]
fn a_mark_that_was_completed_twice_clears_no_other() {
    let fixture = Fixture::new();
    fixture.enroll("pump-7");
    fixture.issue("pump-7", 2);
    let due = || {
        let marks = fixture.store.due_marks("dps", unix(2_000), 10, true);
        marks.unwrap().remove(0)
    };
    let complete = |mark| {
        let observation = Observation::InPlace {
            history: Box::default(),
            record: json!({}),
        };
        let store = &fixture.store;
        store.complete_mark(mark, observation, unix(2_000)).unwrap()
    };
    let seen = due();
    assert!(complete(&seen));
    let other = fixture.enroll("pump-8");
    fixture.issue("pump-8", 3);
    assert!(!complete(&seen));
    assert_eq!(due().subject, MarkSubject::Enrollment(other.id));
}

/// Verifies: no table gives the id of a deleted row to another row, because work that is under way
/// holds ids across transactions.
#[test]
fn no_id_is_given_twice() {
    let fixture = Fixture::new();
    let raw = fixture.raw();
    let sql = "SELECT name FROM sqlite_schema t WHERE type = 'table'
                   AND sql LIKE '% id %INTEGER PRIMARY KEY,%'
                   AND NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE tbl_name = t.name
                       AND type = 'trigger' AND sql LIKE '%BEFORE DELETE ON%')
               ORDER BY name";
    let mut statement = raw.prepare(sql).unwrap();
    let names = statement.query_map([], |row| row.get::<_, String>(0));
    let names: Vec<String> = names.unwrap().collect::<Result<_, _>>().unwrap();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store");
    let files = std::fs::read_dir(folder).unwrap();
    let files = files.filter_map(|it| std::fs::read_to_string(it.unwrap().path()).ok());
    let statements: String = files.collect();
    assert!(statements.contains("DELETE FROM mark "));
    for table in names {
        let deletion = format!("DELETE FROM {table} ");
        assert!(!statements.contains(&deletion), "{table}");
    }
}

/// The service assigns a device, and another program deletes the enrollment and so its registration
/// record. Verifies: the place that was observed stays on record.
#[test]
fn the_place_of_a_deleted_enrollment_stays_on_record() {
    let fixture = Fixture::new();
    let enrollment = fixture.enroll("pump-7");
    fixture.issue("pump-7", 2);
    let observe = |observation| {
        let marks = fixture.store.due_marks("dps", unix(2_000), 10, true);
        let mark = marks.unwrap().remove(0);
        fixture
            .store
            .complete_mark(&mark, observation, unix(2_000))
            .unwrap();
        fixture.store.hub_place("dps", "PUMP-7").unwrap()
    };
    let assigned = json!({ "assignedHub": "One.azure-devices.net", "deviceId": "Asset-7" });
    let in_place = Observation::InPlace {
        history: Box::default(),
        record: json!({ "registrationState": assigned }),
    };
    assert_eq!(observe(in_place), None);
    let row = fixture.store.enrollment(enrollment.id).unwrap();
    let removed = entry("enrollment.removed");
    fixture.store.remove_enrollment(&row, removed).unwrap();
    let kept = HubPlace {
        hub: "one.azure-devices.net".into(),
        device_id: "Asset-7".into(),
    };
    assert_eq!(observe(Observation::Gone), Some(kept));
    let found = fixture.store.find_enrollment(enrollment.id).unwrap();
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
        let fixture = Fixture::new();
        fixture.enroll("pump-7");
        for (observation, serial) in seen.into_iter().zip(2..) {
            fixture.issue("pump-7", serial);
            let marks = fixture.store.due_marks("dps", unix(2_000), 10, true);
            let mark = marks.unwrap().remove(0);
            let store = &fixture.store;
            store
                .complete_mark(&mark, observation, unix(2_000))
                .unwrap();
        }
        assert_eq!(
            fixture.store.is_place_lost("dps", "PUMP-7").unwrap(),
            is_lost
        );
        let place = HubPlace {
            hub: "one.azure-devices.net".into(),
            device_id: "pump-7".into(),
        };
        fixture
            .store
            .record_hub_place("dps", "pump-7", place)
            .unwrap();
        assert!(!fixture.store.is_place_lost("dps", "pump-7").unwrap());
    }
}

#[test]
fn a_parked_mark_waits_for_an_operator() {
    let fixture = Fixture::new();
    fixture.enroll("pump-7");
    fixture.issue("pump-7", 2);
    let mark = fixture
        .store
        .due_marks("dps", unix(2_000), 10, true)
        .unwrap()
        .remove(0);
    fixture
        .store
        .park_mark(&mark, "400".into(), entry("push.parked"))
        .unwrap();
    assert!(
        fixture
            .store
            .due_marks("dps", UnixSeconds::MAX, 10, true)
            .unwrap()
            .is_empty()
    );
    assert_eq!(fixture.store.mark_counts().unwrap().1, 1);
    assert_eq!(
        fixture
            .store
            .retry_marks(Some("pump-7".into()), entry("push.retried"))
            .unwrap(),
        1
    );
    assert_eq!(
        fixture
            .store
            .due_marks("dps", UnixSeconds::MAX, 10, true)
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn an_operator_restarts_a_parked_proof_of_possession() {
    let fixture = Fixture::new();
    let wanted = entry("ca_certificate.wanted");
    let added =
        fixture
            .store
            .want_ca_certificate("dps".into(), "root-1".into(), fixture.root, wanted);
    assert!(added.unwrap());
    let row = fixture.store.ca_certificates().unwrap().remove(0);
    let code = |text: &str| VerificationCode::parse(text).unwrap();
    let mut proof = row.proof.clone().uploaded();
    while let Ok(next) = proof.clone().code_received(code("0123456789ABCDEF")) {
        proof = next;
    }
    fixture
        .store
        .advance_proof(row.id, row.proof, proof.clone())
        .unwrap();
    let mark = fixture
        .store
        .due_marks("dps", unix(2_000), 10, true)
        .unwrap();
    fixture
        .store
        .park_mark(&mark[0], "exhausted".into(), entry("push.parked"))
        .unwrap();
    fixture
        .store
        .retry_marks(Some("root-1".into()), entry("push.retried"))
        .unwrap();
    let row = fixture.store.ca_certificate(row.id).unwrap();
    assert_eq!(row.proof.stage(), &ca_certificate::Stage::Wanted);
    assert!(row.proof.code_received(code("FEDCBA9876543210")).is_ok());
}

//! Tests that the provisioning service holds the desired state in the end, whatever it does before;
//! and that a service that fails costs no second signature.

use crate::device::{is_assigned, register};
use crate::invariants::held;
use crate::process::until;
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use dps_emulator::{Action, Fault, Kind};
use serde_json::{Value, json};

/// A fault of an operation at the service, once.
fn meets(env: &TestEnv, operation: &str, action: Action) {
    env.emulator.inject(Fault::on(operation, action)).unwrap();
}

fn requests(env: &TestEnv, operation: &str) -> usize {
    env.emulator.requests_of(operation).len()
}

fn add_individual(env: &TestEnv, id: &str) {
    env.run(&["enrollment", "add", "--individual", id]);
}

/// Asserts that the individual enrollment holds this leaf as its primary, and nothing else.
fn holds(env: &TestEnv, device: &Holder) {
    let record = env.emulator.individual(&device.id).expect("it is enrolled");
    assert_eq!(held(&record, "primary").as_ref(), Some(&device.thumbprint));
    assert_eq!(held(&record, "secondary"), None);
}

/// Verifies: the root is uploaded and verified by one verification certificate for one code; that
/// signature is on record with its purpose.
#[test]
fn the_root_is_verified_by_one_signature_for_one_code() {
    let env = TestEnv::running();
    let authorities = env.emulator.authorities();
    assert_eq!(authorities.len(), 1);
    assert_eq!(authorities[0]["name"], "root-1");
    assert_eq!(authorities[0]["properties"]["isVerified"], true);
    assert_eq!(requests(&env, "authority.code"), 1);
    assert_eq!(requests(&env, "authority.verify"), 1);
    assert_eq!(
        env.count("intent_state WHERE purpose = 'possession' AND state = 'issued'"),
        1
    );
}

/// A write that is not made, two answers that are lost after all was done, and a plain failure.
/// Verifies: the root is verified in the end; a lost code is requested again, a lost verification
/// is not; only the code that was received has been signed.
#[test]
fn a_service_that_fails_during_the_proof_costs_no_second_signature() {
    let mut env = TestEnv::new();
    meets(&env, "authority.put", Action::ResetBefore);
    meets(&env, "authority.code", Action::ResetAfter);
    meets(&env, "authority.verify", Action::status(500));
    meets(&env, "authority.verify", Action::ResetAfter);
    env.start();
    env.run_ceremony();
    assert!(
        env.emulator.faults().is_empty(),
        "{:?}",
        env.emulator.faults()
    );
    assert_eq!(
        env.emulator.authorities()[0]["properties"]["isVerified"],
        true
    );
    assert_eq!(requests(&env, "authority.code"), 2);
    assert_eq!(requests(&env, "authority.verify"), 2);
    assert_eq!(env.count("intent WHERE purpose = 'possession'"), 1);
}

#[test]
fn a_group_admits_its_devices_until_it_is_removed() {
    let env = TestEnv::running();
    let device = env.station().obtain(&Request::device("press-7"));
    assert!(
        register(&env.emulator, &device).is_err(),
        "it has no enrollment"
    );
    env.add_group("line-1", "line-1");
    env.wait_in_sync();
    is_assigned(&env.emulator, &device);
    env.run(&["enrollment", "remove", "--group", "line-1"]);
    env.wait_in_sync();
    assert!(env.emulator.group("line-1").is_none());
    assert!(register(&env.emulator, &device).is_err());
}

/// An individual enrollment that is added before its device has a leaf waits for it; one added
/// afterwards takes the current leaf at once.
#[test]
fn an_individual_enrollment_holds_its_devices_leaf() {
    let env = TestEnv::running();
    let station = env.station();
    add_individual(&env, "early-1");
    let waiting = env.json(&["enrollment", "show", "early-1"]);
    assert_eq!(waiting[0]["state"], "waits for a certificate");
    let late = station.obtain(&Request::device("late-1"));
    add_individual(&env, "late-1");
    let early = station.obtain(&Request::device("early-1"));
    env.wait_in_sync();
    for device in [&early, &late] {
        holds(&env, device);
        is_assigned(&env.emulator, device);
    }
}

/// The write of one enrollment has each of these faults. Verifies: the record is there in the end,
/// no mark is left, the device has one certificate, and no committed call was repeated.
#[test]
fn a_write_that_fails_is_made_up_for_without_a_new_signature() {
    let env = TestEnv::running();
    let station = env.station();
    let faults = [
        ("throttled-1", Action::throttle(2), 2),
        ("failing-1", Action::status(500), 2),
        ("reset-before-1", Action::ResetBefore, 2),
        ("reset-after-1", Action::ResetAfter, 1),
        ("half-an-answer-1", Action::Truncate, 1),
    ];
    for (id, action, writes) in faults {
        let before = requests(&env, "individual.put");
        meets(&env, "individual.put", action);
        add_individual(&env, id);
        let device = station.obtain(&Request::device(id));
        env.wait_in_sync();
        holds(&env, &device);
        assert_eq!(requests(&env, "individual.put") - before, writes, "{id}");
        assert_eq!(
            env.count(&format!("intent WHERE subject = '{id}'")),
            1,
            "{id}"
        );
    }
}

/// Two answers that never come, one to a write that was made and one to a write that was not.
/// Verifies: the deadline of a call ends the wait, other calls are made in between, and the record
/// is read back and not written again.
#[test]
fn an_answer_that_never_comes_delays_no_other_call() {
    let env = TestEnv::running();
    let station = env.station();
    meets(&env, "individual.put", Action::Hang);
    meets(&env, "individual.put", Action::HangAfter);
    let ids = ["hung-1", "hung-after-1", "served-1"];
    let devices = ids.map(|id| {
        add_individual(&env, id);
        station.obtain(&Request::device(id))
    });
    until("the third is served while two hang", || {
        env.emulator.individual("served-1")
    });
    env.wait_in_sync();
    for device in &devices {
        holds(&env, device);
        let signed = env.count(&format!("intent WHERE subject = '{}'", device.id));
        assert_eq!(signed, 1, "{}", device.id);
    }
    assert_eq!(
        requests(&env, "individual.put"),
        4,
        "only the write that was not made is repeated"
    );
}

/// A call that was answered 429 is repeated after `Retry-After`, and not before.
#[test]
fn the_services_own_pause_is_kept() {
    let env = TestEnv::running();
    let station = env.station();
    meets(&env, "individual.put", Action::throttle(3));
    add_individual(&env, "press-7");
    station.obtain(&Request::device("press-7"));
    env.wait_in_sync();
    let puts = env.emulator.requests_of("individual.put");
    let at: Vec<_> = puts
        .iter()
        .map(|put| {
            time::OffsetDateTime::parse(&put.at, &time::format_description::well_known::Rfc3339)
                .unwrap()
        })
        .collect();
    assert_eq!(puts[0].status, Some(429));
    assert_eq!(puts.len(), 2);
    // Due times are whole seconds.
    assert!(at[1] - at[0] >= time::Duration::seconds(2), "{at:?}");
}

/// Another client edits the record between our read and our write: the ETag no longer fits, so the
/// write is refused (412), and the other client's change stays.
#[test]
fn a_record_edited_between_look_and_write_keeps_both_changes() {
    let env = TestEnv::running();
    let station = env.station();
    add_individual(&env, "press-7");
    station.obtain(&Request::new("device", "press-7"));
    env.wait_in_sync();
    let merge = json!({ "initialTwin": { "tags": { "hall": "3" } } });
    let edit = Action::Edit {
        record: Kind::Individual,
        id: "press-7".into(),
        merge: merge.as_object().unwrap().clone(),
    };
    meets(&env, "individual.put", edit);
    let second = station.obtain(&Request::device("press-7"));
    env.wait_in_sync();
    let statuses: Vec<_> = env
        .emulator
        .requests_of("individual.put")
        .iter()
        .map(|put| put.status)
        .collect();
    assert_eq!(statuses, [Some(200), Some(412), Some(200)]);
    let record = env.emulator.individual("press-7").unwrap();
    assert_eq!(record["initialTwin"]["tags"]["hall"], "3");
    assert_eq!(
        held(&record, "secondary").as_ref(),
        Some(&second.thumbprint)
    );
}

/// Another client disables the record behind our back. By default the daemon reports that, leaves
/// it alone, and makes its own changes all the same.
#[test]
fn drift_is_reported_and_left_alone() {
    let env = TestEnv::running();
    let station = env.station();
    add_individual(&env, "press-7");
    station.obtain(&Request::device("press-7"));
    env.wait_in_sync();
    let disabled = json!({ "provisioningStatus": "disabled" });
    let edit = disabled.as_object().unwrap().clone();
    env.emulator
        .edit_record(Kind::Individual, "press-7", edit)
        .unwrap();
    let renewed = station.obtain(&Request::device("press-7"));
    until("the drift is seen", || {
        let seen = env.json(&["enrollment", "show", "press-7"]);
        (seen[0]["state"] == "drifted").then_some(())
    });
    let record = env.emulator.individual("press-7").unwrap();
    assert_eq!(record["provisioningStatus"], "disabled");
    assert_eq!(held(&record, "secondary"), Some(renewed.thumbprint));
}

/// A credential that the service refuses works again when its file is replaced, without a restart.
#[test]
fn a_refused_credential_heals_when_its_file_is_replaced() {
    let env = TestEnv::running();
    let station = env.station();
    let good = env.emulator.service_connection_string();
    let (head, _) = good.split_once("SharedAccessKey=").unwrap();
    env.write_secret(
        "connection-string",
        &format!("{head}SharedAccessKey=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    );
    add_individual(&env, "press-7");
    let device = station.obtain(&Request::device("press-7"));
    let reason = until("the push queue says why", || {
        let queue = env.json(&["push", "list"]);
        queue[0]["last_error"].as_str().map(str::to_owned)
    });
    assert!(reason.contains("401"), "{reason}");
    assert!(env.emulator.individual("press-7").is_none());
    env.write_secret("connection-string", &good);
    env.wait_in_sync();
    holds(&env, &device);
}

/// A change that the service rejects is parked with its reason; it delays no other change, and the
/// operator decides when to try again.
#[test]
fn a_rejected_change_is_parked_and_blocks_no_other() {
    let env = TestEnv::running();
    let station = env.station();
    let rejection = Action::Status {
        status: 400,
        headers: Vec::new(),
        body: Some(json!({ "errorCode": 400_004, "message": "no such hub", "trackingId": "t" })),
    };
    meets(&env, "individual.put", rejection);
    add_individual(&env, "rejected-1");
    let rejected = station.obtain(&Request::device("rejected-1"));
    let parked = until("it is parked", || {
        let queue = env.json(&["push", "list"]);
        (queue[0]["parked"] == true).then_some(queue)
    });
    assert_eq!(parked[0]["name"], "rejected-1");
    let reason = parked[0]["last_error"].as_str().unwrap();
    assert!(reason.contains("no such hub"), "{reason}");
    assert_eq!(
        env.json(&["enrollment", "show", "rejected-1"])[0]["state"],
        "parked"
    );
    assert_eq!(env.json(&["status"])["push"]["parked"], 1);
    assert_eq!(env.count("audit WHERE action = 'push.parked'"), 1);

    add_individual(&env, "other-1");
    let other = station.obtain(&Request::device("other-1"));
    until("the other one is in step", || {
        (env.json(&["enrollment", "show", "other-1"])[0]["state"] == "in step").then_some(())
    });
    holds(&env, &other);
    assert!(env.emulator.individual("rejected-1").is_none());

    let unknown = env.hallmark(&["push", "retry", "press-99"]);
    assert_eq!(unknown.code, Some(1));
    assert!(
        unknown.error.contains("enrollment_unknown"),
        "{}",
        unknown.error
    );
    assert_eq!(
        env.json(&["push", "retry", "rejected-1"]),
        json!({ "retried": 1 })
    );
    env.wait_in_sync();
    holds(&env, &rejected);
    assert_eq!(env.json(&["push", "list"]), Value::Array(Vec::new()));
}

//! What the provisioning service shall hold, it holds in the end, whatever it does meanwhile; and a
//! service that fails costs no second signature.

use crate::device::{is_assigned, register};
use crate::invariants::held;
use crate::process::until;
use crate::request::{Holder, Request};
use crate::stage::Stage;
use dps_emulator::{Action, Fault, Kind};
use serde_json::{Value, json};

/// What an operation at the service meets, once.
fn meets(stage: &Stage, operation: &str, action: Action) {
    stage.emulator.inject(Fault::on(operation, action)).unwrap();
}

fn requests(stage: &Stage, operation: &str) -> usize {
    stage.emulator.requests_of(operation).len()
}

fn add_individual(stage: &Stage, id: &str) {
    stage.told(&["enrollment", "add", "--individual", id]);
}

/// The individual enrollment holds this leaf as its primary, and nothing else.
fn holds(stage: &Stage, device: &Holder) {
    let record = stage
        .emulator
        .individual(&device.id)
        .expect("it is enrolled");
    assert_eq!(held(&record, "primary").as_ref(), Some(&device.thumbprint));
    assert_eq!(held(&record, "secondary"), None);
}

/// Verifies: the root is uploaded and proven by one verification certificate for one code; that
/// signature is on record as what it is.
#[test]
fn the_root_is_verified_by_one_signature_for_one_code() {
    let stage = Stage::up();
    let authorities = stage.emulator.authorities();
    assert_eq!(authorities.len(), 1);
    assert_eq!(authorities[0]["name"], "root-1");
    assert_eq!(authorities[0]["properties"]["isVerified"], true);
    assert_eq!(requests(&stage, "authority.code"), 1);
    assert_eq!(requests(&stage, "authority.verify"), 1);
    assert_eq!(
        stage.count("intent WHERE purpose = 'possession' AND state = 'issued'"),
        1
    );
}

/// A write that is not made, two answers that are lost after all was done, and a plain failure.
/// Verifies: the root is verified in the end; a lost code is asked for again, a lost verification is
/// not; and only the code that was received has been signed.
#[test]
fn a_service_that_fails_during_the_proof_costs_no_second_signature() {
    let mut stage = Stage::set();
    meets(&stage, "authority.put", Action::ResetBefore);
    meets(&stage, "authority.code", Action::ResetAfter);
    meets(&stage, "authority.verify", Action::status(500));
    meets(&stage, "authority.verify", Action::ResetAfter);
    stage.start();
    stage.run_ceremony();
    assert!(
        stage.emulator.faults().is_empty(),
        "{:?}",
        stage.emulator.faults()
    );
    assert_eq!(
        stage.emulator.authorities()[0]["properties"]["isVerified"],
        true
    );
    assert_eq!(requests(&stage, "authority.code"), 2);
    assert_eq!(requests(&stage, "authority.verify"), 2);
    assert_eq!(stage.count("intent WHERE purpose = 'possession'"), 1);
}

#[test]
fn a_group_lets_its_devices_in_and_when_removed_no_longer() {
    let stage = Stage::up();
    let device = stage.station().obtain(&Request::device("press-7"));
    assert!(
        register(&stage.emulator, &device).is_err(),
        "nobody has enrolled it"
    );
    stage.add_group("line-1", "line-1");
    stage.is_in_step();
    is_assigned(&stage.emulator, &device);
    stage.told(&["enrollment", "remove", "--group", "line-1"]);
    stage.is_in_step();
    assert!(stage.emulator.group("line-1").is_none());
    assert!(register(&stage.emulator, &device).is_err());
}

/// An individual enrollment added before its device has a leaf waits for it; one added afterwards
/// takes the current leaf at once.
#[test]
fn an_individual_enrollment_holds_its_devices_leaf() {
    let stage = Stage::up();
    let station = stage.station();
    add_individual(&stage, "early-1");
    let waiting = stage.json(&["enrollment", "show", "early-1"]);
    assert_eq!(waiting[0]["state"], "waits for a certificate");
    let late = station.obtain(&Request::device("late-1"));
    add_individual(&stage, "late-1");
    let early = station.obtain(&Request::device("early-1"));
    stage.is_in_step();
    for device in [&early, &late] {
        holds(&stage, device);
        is_assigned(&stage.emulator, device);
    }
}

/// Each of these is met by the write of one enrollment. Verifies: the record is there in the end,
/// no mark is left, the device has one certificate, and whatever was committed was not done twice.
#[test]
fn a_write_that_fails_is_made_up_for_without_a_new_signature() {
    let stage = Stage::up();
    let station = stage.station();
    let faults = [
        ("throttled-1", Action::throttle(2), 2),
        ("failing-1", Action::status(500), 2),
        ("reset-before-1", Action::ResetBefore, 2),
        ("reset-after-1", Action::ResetAfter, 1),
        ("half-an-answer-1", Action::Truncate, 1),
    ];
    for (id, action, writes) in faults {
        let before = requests(&stage, "individual.put");
        meets(&stage, "individual.put", action);
        add_individual(&stage, id);
        let device = station.obtain(&Request::device(id));
        stage.is_in_step();
        holds(&stage, &device);
        assert_eq!(requests(&stage, "individual.put") - before, writes, "{id}");
        assert_eq!(
            stage.count(&format!("intent WHERE subject = '{id}'")),
            1,
            "{id}"
        );
    }
}

/// Two answers that never come, one to a write that was made and one to a write that was not.
/// Verifies: the deadline of a call lets go, others are served meanwhile, and what
/// was written is read back and not written again.
#[test]
fn an_answer_that_never_comes_holds_up_nobody_else() {
    let stage = Stage::up();
    let station = stage.station();
    meets(&stage, "individual.put", Action::Hang);
    meets(&stage, "individual.put", Action::HangAfter);
    let ids = ["hung-1", "hung-after-1", "served-1"];
    let devices = ids.map(|id| {
        add_individual(&stage, id);
        station.obtain(&Request::device(id))
    });
    until("the third is served while two hang", || {
        stage.emulator.individual("served-1")
    });
    stage.is_in_step();
    for device in &devices {
        holds(&stage, device);
        let signed = stage.count(&format!("intent WHERE subject = '{}'", device.id));
        assert_eq!(signed, 1, "{}", device.id);
    }
    assert_eq!(
        requests(&stage, "individual.put"),
        4,
        "only the write that was not made is repeated"
    );
}

/// 429 says when to come back, and not before.
#[test]
fn the_services_own_pause_is_kept() {
    let stage = Stage::up();
    let station = stage.station();
    meets(&stage, "individual.put", Action::throttle(3));
    add_individual(&stage, "press-7");
    station.obtain(&Request::device("press-7"));
    stage.is_in_step();
    let puts = stage.emulator.requests_of("individual.put");
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

/// Somebody edits the record between our look and our write: the tag no longer fits, so the write
/// is refused (412), and their change survives ours.
#[test]
fn a_record_edited_between_look_and_write_keeps_both_changes() {
    let stage = Stage::up();
    let station = stage.station();
    add_individual(&stage, "press-7");
    station.obtain(&Request::new("device", "press-7"));
    stage.is_in_step();
    let merge = json!({ "initialTwin": { "tags": { "hall": "3" } } });
    let edit = Action::Edit {
        record: Kind::Individual,
        id: "press-7".into(),
        merge: merge.as_object().unwrap().clone(),
    };
    meets(&stage, "individual.put", edit);
    let second = station.obtain(&Request::device("press-7"));
    stage.is_in_step();
    let statuses: Vec<_> = stage
        .emulator
        .requests_of("individual.put")
        .iter()
        .map(|put| put.status)
        .collect();
    assert_eq!(statuses, [Some(200), Some(412), Some(200)]);
    let record = stage.emulator.individual("press-7").unwrap();
    assert_eq!(record["initialTwin"]["tags"]["hall"], "3");
    assert_eq!(
        held(&record, "secondary").as_ref(),
        Some(&second.thumbprint)
    );
}

/// Somebody disables the record behind our back. By default that is reported and left alone, and
/// holds up no change of our own.
#[test]
fn drift_is_reported_and_left_alone() {
    let stage = Stage::up();
    let station = stage.station();
    add_individual(&stage, "press-7");
    station.obtain(&Request::device("press-7"));
    stage.is_in_step();
    let disabled = json!({ "provisioningStatus": "disabled" });
    let edit = disabled.as_object().unwrap().clone();
    stage
        .emulator
        .edit_record(Kind::Individual, "press-7", edit)
        .unwrap();
    let renewed = station.obtain(&Request::device("press-7"));
    until("the drift is seen", || {
        let seen = stage.json(&["enrollment", "show", "press-7"]);
        (seen[0]["state"] == "drifted").then_some(())
    });
    let record = stage.emulator.individual("press-7").unwrap();
    assert_eq!(record["provisioningStatus"], "disabled");
    assert_eq!(held(&record, "secondary"), Some(renewed.thumbprint));
}

/// A credential that the service refuses heals when its file is replaced; nobody restarts anything.
#[test]
fn a_refused_credential_heals_when_its_file_is_replaced() {
    let stage = Stage::up();
    let station = stage.station();
    let good = stage.emulator.service_connection_string();
    let (head, _) = good.split_once("SharedAccessKey=").unwrap();
    stage.write_secret(
        "connection-string",
        &format!("{head}SharedAccessKey=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    );
    add_individual(&stage, "press-7");
    let device = station.obtain(&Request::device("press-7"));
    let reason = until("the push queue says why", || {
        let queue = stage.json(&["push", "list"]);
        queue[0]["last_error"].as_str().map(str::to_owned)
    });
    assert!(reason.contains("401"), "{reason}");
    assert!(stage.emulator.individual("press-7").is_none());
    stage.write_secret("connection-string", &good);
    stage.is_in_step();
    holds(&stage, &device);
}

/// What the service rejects is parked with its reason; it blocks nobody, and the operator says when
/// to try again.
#[test]
fn a_rejected_change_is_parked_and_blocks_no_other() {
    let stage = Stage::up();
    let station = stage.station();
    let rejection = Action::Status {
        status: 400,
        headers: Vec::new(),
        body: Some(json!({ "errorCode": 400_004, "message": "no such hub", "trackingId": "t" })),
    };
    meets(&stage, "individual.put", rejection);
    add_individual(&stage, "rejected-1");
    let rejected = station.obtain(&Request::device("rejected-1"));
    let parked = until("it is parked", || {
        let queue = stage.json(&["push", "list"]);
        (queue[0]["parked"] == true).then_some(queue)
    });
    assert_eq!(parked[0]["name"], "rejected-1");
    let reason = parked[0]["last_error"].as_str().unwrap();
    assert!(reason.contains("no such hub"), "{reason}");
    assert_eq!(
        stage.json(&["enrollment", "show", "rejected-1"])[0]["state"],
        "parked"
    );
    assert_eq!(stage.json(&["status"])["push"]["parked"], 1);
    assert_eq!(stage.count("audit WHERE action = 'push.parked'"), 1);

    add_individual(&stage, "other-1");
    let other = station.obtain(&Request::device("other-1"));
    until("the other one is in step", || {
        (stage.json(&["enrollment", "show", "other-1"])[0]["state"] == "in step").then_some(())
    });
    holds(&stage, &other);
    assert!(stage.emulator.individual("rejected-1").is_none());

    assert_eq!(
        stage.json(&["push", "retry", "rejected-1"]),
        json!({ "retried": 1 })
    );
    stage.is_in_step();
    holds(&stage, &rejected);
    assert_eq!(stage.json(&["push", "list"]), Value::Array(Vec::new()));
}

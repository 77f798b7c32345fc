//! Tests exclusions at services that may have enrollments which are not on record: those of another
//! program, and those that a restore has lost before a scan has found them.

use crate::backup::{create, restore};
use crate::block::five_devices;
use crate::device::{is_assigned, register};
use crate::process::until;
use crate::receipt_stories::{line, with_second_service};
use crate::request::{Holder, Request};
use crate::restored::{is_out, named_unknown, registered, states, unknown};
use crate::restored_drift::alarm;
use crate::test_env::TestEnv;
use dps_emulator::{Action, Emulator, Fault, Kind, Options};
use serde_json::{Value, json};

const COMPROMISE: [&str; 4] = ["roll", "start", "--reason", "compromise"];

/// Another client adds an enrollment that holds this certificate.
pub(crate) fn add(emulator: &Emulator, kind: Kind, id: &str, pem: &str) {
    let (name, slots) = match kind {
        Kind::Individual => ("registrationId", "clientCertificates"),
        Kind::Group => ("enrollmentGroupId", "signingCertificates"),
    };
    let body = json!({
        name: id,
        "provisioningStatus": "enabled",
        "attestation": {
            "type": "x509", "x509": { slots: { "primary": { "certificate": pem } } },
        },
    });
    let body = body.as_object().unwrap().clone();
    emulator.create_record(kind, id, body).unwrap();
}

/// `press-1` and `press-2` below the group of `line-1`. Another client has added, at a second
/// service, an enrollment for `press-2` and a group of `line-1`. No backup was ever restored.
fn shared_with_another_client() -> (TestEnv, Emulator, Vec<Holder>) {
    let env = TestEnv::new();
    let other = Emulator::start(Options::new(env.path("other-emulator"))).unwrap();
    let scans = "\n[policy]\nscan_interval = \"1s\"\n";
    env.configure(&(with_second_service(&env, &other) + scans));
    let env = env.started();
    let group = [
        "enrollment",
        "add",
        "--group",
        "line-1",
        "--authority",
        "line-1",
    ];
    env.run(&[&group[..], &["--provisioning", "dps"]].concat());
    let devices = ["press-1", "press-2"].map(|id| registered(&env, id));
    let root = env.authority("root");
    other.upload_authority("root-1", &root, true).unwrap();
    add(&other, Kind::Individual, "press-2", &devices[1].certificate);
    add(&other, Kind::Group, "theirs", &env.authority("line-1"));
    for device in &devices {
        is_assigned(&other, device);
    }
    unknown(&env, &["press-2", "theirs"]);
    (env, other, devices.into())
}

fn is_out_at(emulator: &Emulator, device: &Holder) {
    let end = register(emulator, device);
    assert_ne!(end.as_deref(), Ok("assigned"), "{}", device.id);
}

/// Verifies: without any restore, the receipts of a block of a generation and of the compromise of
/// its authority name the enrollments that are not on record as open; a block and a compromise of a
/// device exclude it by its name at that service, too.
#[test]
fn enrollments_of_another_client_are_open_without_a_restore() {
    let (env, other, devices) = shared_with_another_client();
    let found = alarm(&env, "enrollments_unknown");
    let expected = json!({ "provisioning": "old", "enrollments": 2, "first": "press-2" });
    assert_eq!(found["parameters"], expected, "{found}");
    let of = ["line-1", "--generation", "1"];
    let blocked = env.json(&[&["authority", "block"], &of[..]].concat());
    assert_eq!(
        named_unknown(&blocked),
        ["press-2", "theirs"],
        "{blocked:#}"
    );
    assert_eq!(line(&blocked, "dps: old")["state"], "open", "{blocked:#}");
    assert_eq!(blocked["receipt"]["complete"], false, "{blocked:#}");
    env.run(&[&["authority", "unblock"], &of[..]].concat());
    env.wait_in_sync();

    env.json(&["device", "block", "press-2"]);
    is_out_at(&other, &devices[1]);
    env.json(&[&COMPROMISE[..], &["press-1"]].concat());
    is_out_at(&other, &devices[0]);
    unknown(&env, &["theirs"]);
    for device in &devices {
        is_out(&env, device);
    }
    let started = env.json(&[&COMPROMISE[..], &["--authority", "line-1"]].concat());
    assert_eq!(named_unknown(&started), ["theirs"], "{started:#}");
    assert_eq!(started["receipt"]["complete"], false, "{started:#}");
}

/// Verifies: an enrollment of an excluded device that another client adds afterwards, at a service
/// where the device had none, is open in its receipts as soon as a scan has found it; a repeated
/// compromise excludes it there.
#[test]
fn an_enrollment_that_is_found_after_an_exclusion_is_open_in_its_receipt() {
    let (env, other, devices) = shared_with_another_client();
    other.delete_record(Kind::Group, "theirs").unwrap();
    unknown(&env, &["press-2"]);
    let started = env.json(&[&COMPROMISE[..], &["press-1"]].concat());
    let id = started["rolls"][0]["id"].to_string();
    assert!(
        states(&started, "enrollments_unknown").is_empty(),
        "{started:#}"
    );
    add(&other, Kind::Individual, "press-1", &devices[0].certificate);
    let shown = until("its enrollment is open", || {
        let shown = env.json(&["roll", "show", &id]);
        (!states(&shown, "enrollments_unknown").is_empty()).then_some(shown)
    });
    assert_eq!(named_unknown(&shown), ["press-1"], "{shown:#}");
    env.json(&[&COMPROMISE[..], &["press-1"]].concat());
    is_out_at(&other, &devices[0]);
    let shown = env.json(&["roll", "show", &id]);
    assert!(
        states(&shown, "enrollments_unknown").is_empty(),
        "{shown:#}"
    );
}

/// The group and the device came after the backup, and the service answers no query, so nothing was
/// compared since the restore. Verifies: a compromise by name excludes the device at the service
/// and the hub; the journal has it, also where no service admits the device.
#[test]
fn a_device_is_excluded_before_its_service_was_compared() {
    let env = TestEnv::new();
    env.configure(&(env.configuration() + "\n[policy]\nscan_interval = \"1s\"\n"));
    let mut env = env.started();
    let lonely = env.station().obtain(&Request::device("press-1"));
    let file = create(&env);
    env.add_group("late", "line-1");
    let device = registered(&env, "press-7");
    env.stop();
    for query in ["individual.query", "group.query"] {
        let away = Fault::on(query, Action::status(503)).times(1_000);
        env.emulator.inject(away).unwrap();
    }
    assert_eq!(restore(&env, &file).code, Some(0));
    env.start();
    env.wait_ready();
    for (id, holder) in [("press-7", &device), ("press-1", &lonely)] {
        let started = env.json(&[&COMPROMISE[..], &[id]].concat());
        assert_eq!(
            states(&started, "enrollment_disabled"),
            ["done"],
            "{started:#}"
        );
        assert_eq!(started["receipt"]["complete"], false, "{started:#}");
        is_out(&env, holder);
        assert!(env.emulator.hub_identity(id).is_none());
    }
    let blocked = env.json(&["device", "block", "press-8"]);
    assert_eq!(
        states(&blocked, "enrollment_disabled"),
        ["done"],
        "{blocked:#}"
    );
    env.emulator.clear_faults();
    unknown(&env, &["late"]);
}

/// Verifies: the journal has the compromise of a device that no service admits.
#[test]
fn the_compromise_of_a_device_without_an_enrollment_is_in_the_journal() {
    let env = TestEnv::running();
    env.station().obtain(&Request::device("press-1"));
    let started = env.json(&[&COMPROMISE[..], &["press-1"]].concat());
    assert_eq!(started["rolls"], json!([]), "{started:#}");
    let entries = "audit WHERE action = 'roll.started' AND subject = 'press-1'";
    assert_eq!(env.count(entries), 1);
}

/// A device below A was moved to B after the backup, and registered by the group of B. Verifies: a
/// block of that group after the restore deletes its identity, although the device is on record
/// with a leaf of A.
#[test]
fn a_device_that_moved_to_the_blocked_group_after_the_backup_loses_its_identity() {
    let (mut env, devices) = five_devices();
    let file = create(&env);
    let moved = Request::device("device-1");
    let csr = env.write("moved.csr", &moved.csr);
    let ask = [
        "issue",
        "--profile",
        "device",
        "--id",
        "device-1",
        "--move",
        "--csr",
    ];
    let answer: Value = env.json(&[&ask[..], &[csr.to_str().unwrap()]].concat());
    let moved = moved.holder(&answer);
    is_assigned(&env.emulator, &moved);
    env.stop();
    assert_eq!(restore(&env, &file).code, Some(0));
    env.start();
    env.wait_ready();
    let blocked = env.json(&["enrollment", "block", "--group", "group-b"]);
    assert_eq!(
        states(&blocked, "identities_deleted"),
        ["done"],
        "{blocked:#}"
    );
    assert!(env.emulator.hub_identity("device-1").is_none());
    is_out(&env, &moved);
    assert!(env.emulator.hub_identity("device-2").is_some());
    is_assigned(&env.emulator, &devices[0]);
}

/// Verifies: a receipt says until when leaves from the lost period may be valid, and no more that
/// they are unknown once the last of them has expired.
#[test]
fn leaves_from_the_lost_period_are_open_until_they_have_expired() {
    let mut env = TestEnv::new().with_a_movable_clock().started();
    env.add_group("line-1", "line-1");
    let file = create(&env);
    let device = registered(&env, "press-7");
    env.stop();
    assert_eq!(restore(&env, &file).code, Some(0));
    env.start();
    env.wait_ready();
    let blocked = env.json(&["device", "block", "press-7"]);
    let crl = line(&blocked, "crl");
    assert_eq!(crl["code"], "leaves_unknown", "{blocked:#}");
    assert_eq!(blocked["receipt"]["complete"], false, "{blocked:#}");
    let shown = || env.json(&["block", "show", "device", "press-7"]);
    // A device's leaf is valid for 90 days.
    env.passes(time::Duration::days(89));
    assert_eq!(states(&shown(), "leaves_unknown"), ["open"]);
    env.passes(time::Duration::days(2));
    assert!(states(&shown(), "leaves_unknown").is_empty());
    is_out(&env, &device);
}

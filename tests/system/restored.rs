//! Tests exclusions after a restore: of devices, enrollments and groups that came after the backup
//! and are not on record. No receipt says more than was observed.

use crate::authority_roll::second_signs;
use crate::backup::{create, restore};
use crate::device::{is_assigned, register};
use crate::process::until;
use crate::provisioned::below_line_1;
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use dps_emulator::{Action, Fault};
use serde_json::Value;

const COMPROMISE: [&str; 4] = ["roll", "start", "--reason", "compromise"];

/// A device of the group of `line-1` from before the backup, and whatever `later` does after it.
/// The backup is restored then.
pub(crate) fn restored_after<T>(
    later: impl FnOnce(&TestEnv, &Holder) -> T,
) -> (TestEnv, Holder, T) {
    let (mut env, mut devices) = below_line_1(&["press-1"]);
    let before = devices.remove(0);
    let file = create(&env);
    let made = later(&env, &before);
    env.wait_in_sync();
    env.stop();
    let output = restore(&env, &file);
    assert_eq!(output.code, Some(0), "{output:?}");
    env.start();
    env.wait_ready();
    (env, before, made)
}

/// Gets a leaf and registers.
pub(crate) fn registered(env: &TestEnv, id: &str) -> Holder {
    let device = env.station().obtain(&Request::device(id));
    env.wait_in_sync();
    is_assigned(&env.emulator, &device);
    device
}

pub(crate) fn is_out(env: &TestEnv, device: &Holder) {
    let end = register(&env.emulator, device);
    assert_ne!(end.as_deref(), Ok("assigned"), "{}", device.id);
}

/// The states of the places with this code.
pub(crate) fn states(answer: &Value, code: &str) -> Vec<String> {
    let places = answer["receipt"]["places"].as_array().unwrap().iter();
    let coded = places.filter(|it| it["code"] == code);
    coded
        .map(|it| it["state"].as_str().unwrap().to_owned())
        .collect()
}

/// The names in the place that says which enrollments are not on record.
pub(crate) fn named_unknown(answer: &Value) -> Vec<String> {
    let places = answer["receipt"]["places"].as_array().unwrap().iter();
    let mut unknown = places.filter(|it| it["code"] == "enrollments_unknown");
    let place = unknown.next().unwrap_or_else(|| panic!("{answer:#}"));
    let names = place["parameters"]["names"].as_array().unwrap();
    names
        .iter()
        .map(|it| it.as_str().unwrap().to_owned())
        .collect()
}

/// Names of the enrollments that are at the service and not on record, once the scan has ended.
pub(crate) fn unknown(env: &TestEnv, expected: &[&str]) {
    until("the scan has found them", || {
        let listed = env.json(&["enrollment", "list", "--unknown"]);
        let mut names: Vec<_> = listed
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["name"].clone())
            .collect();
        names.sort_by_key(ToString::to_string);
        (names == expected).then_some(())
    });
}

/// A device got its leaf after the backup and registered. Verifies: its compromise by name excludes
/// it at DPS and at the hub, also over a kill; the receipt is not complete and says that its leaves
/// are unknown; a new leaf readmits it, and the old one stays excluded.
#[test]
fn a_device_without_a_leaf_on_record_is_compromised_by_its_name() {
    let (mut env, _, device) = restored_after(|env, _| registered(env, "press-7"));
    env.restart_to_stay_at("roll-compromise-recorded");
    let client = env.client();
    let report = std::thread::spawn(move || {
        client.hallmark(&["roll", "start", "press-7", "--reason", "compromise"])
    });
    env.is_killed_at("roll-compromise-recorded");
    assert_ne!(report.join().unwrap().code, Some(0));

    let started = env.json(&[&COMPROMISE[..], &["press-7"]].concat());
    is_out(&env, &device);
    assert!(env.emulator.hub_identity("press-7").is_none());
    assert_eq!(
        states(&started, "enrollment_disabled"),
        ["done"],
        "{started:#}"
    );
    assert_eq!(
        states(&started, "identities_deleted"),
        ["done"],
        "{started:#}"
    );
    assert_eq!(states(&started, "leaves_unknown"), ["open"], "{started:#}");
    assert!(states(&started, "crl_signed").is_empty(), "{started:#}");
    assert_eq!(started["receipt"]["complete"], false);

    let renewed = env.enlist("device", "press-7");
    env.wait_in_sync();
    is_assigned(&env.emulator, &renewed);
    is_out(&env, &device);
    let remove = ["enrollment", "remove", "--individual", "press-7"];
    let refused = env.hallmark(&remove);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.error.contains("enrollment_excludes"), "{refused:?}");
    env.run(&[&remove[..], &["--override", "the key was destroyed"]].concat());
    env.wait_in_sync();
    assert!(env.emulator.individual("press-7").is_none());
}

/// Verifies: a device without a leaf on record is blocked by its name, and readmitted by its group
/// when the block is lifted; without a restore such a name is refused.
#[test]
fn a_device_without_a_leaf_on_record_is_blocked_by_its_name() {
    let (env, _, device) = restored_after(|env, _| {
        let refused = env.hallmark(&["device", "block", "press-7"]);
        assert!(refused.error.contains("device_unknown"), "{refused:?}");
        registered(env, "press-7")
    });
    let blocked = env.json(&["device", "block", "press-7", "--reason", "stolen"]);
    is_out(&env, &device);
    assert!(env.emulator.hub_identity("press-7").is_none());
    assert_eq!(
        states(&blocked, "enrollment_disabled"),
        ["done"],
        "{blocked:#}"
    );
    assert_eq!(states(&blocked, "leaves_unknown"), ["open"], "{blocked:#}");
    let invalid = env.hallmark(&["device", "block", "press 7"]);
    assert_eq!(invalid.code, Some(1), "{invalid:?}");
    env.run(&["device", "unblock", "press-7"]);
    env.wait_in_sync();
    is_assigned(&env.emulator, &device);
    assert!(env.emulator.individual("press-7").is_none());
}

/// A device was compromised after the backup and has got a new leaf: its enrollment is enabled.
/// Verifies: the scan after the restore lists it; a block of its group names it as open, and is
/// not complete, and deletes the identity of a device that is not on record; the repeated
/// compromise excludes both leaves and takes the enrollment over.
#[test]
fn the_enrollment_of_a_device_that_was_compromised_after_the_backup_is_found() {
    let (env, old, (new, other)) = restored_after(|env, _| {
        env.run(&[&COMPROMISE[..], &["press-1"]].concat());
        (registered(env, "press-1"), registered(env, "press-8"))
    });
    unknown(&env, &["press-1"]);
    let blocked = env.json(&["enrollment", "block", "--group", "line-1"]);
    assert_eq!(named_unknown(&blocked), ["press-1"], "{blocked:#}");
    assert_eq!(states(&blocked, "leaves_unknown"), ["open"], "{blocked:#}");
    let identities = states(&blocked, "identities_deleted");
    assert_eq!(identities, ["done"], "{blocked:#}");
    assert!(env.emulator.hub_identity("press-8").is_none());
    is_out(&env, &other);
    assert_eq!(blocked["receipt"]["complete"], false, "{blocked:#}");
    is_assigned(&env.emulator, &new);

    env.run(&[&COMPROMISE[..], &["press-1"]].concat());
    is_out(&env, &old);
    is_out(&env, &new);
    unknown(&env, &[]);
    let blocked = env.get("/v1/blocks/group/line-1");
    assert!(!blocked.contains("enrollments_unknown"), "{blocked}");
}

/// A group and an enrollment of a device were added after the backup. Verifies: the compromise of
/// their authority names both as open.
#[test]
fn enrollments_that_came_after_the_backup_are_open_for_their_authority() {
    let (env, before, later) = restored_after(|env, _| {
        registered(env, "press-8");
        env.add_group("late", "plant");
        env.run(&["enrollment", "add", "--individual", "press-9"]);
        registered(env, "press-9")
    });
    let report = [&COMPROMISE[..], &["--authority", "line-1"]].concat();
    let started = env.json(&report);
    is_out(&env, &before);
    assert_eq!(named_unknown(&started), ["late", "press-9"], "{started:#}");
    assert!(states(&started, "identities_unknown").is_empty());
    assert!(env.emulator.hub_identity("press-8").is_none());
    assert_eq!(started["receipt"]["complete"], false, "{started:#}");
    unknown(&env, &["late", "press-9"]);
    env.run(&["device", "block", "press-9"]);
    is_out(&env, &later);
    unknown(&env, &["late"]);
}

/// A group and an enrollment of a device were added after the backup. Verifies: both are adopted
/// over a kill, as they are; the compromise of their authority excludes their devices then, and its
/// receipt names neither.
#[test]
fn unknown_enrollments_are_adopted_and_excluded_with_their_authority() {
    let (mut env, before, later) = restored_after(|env, _| {
        env.add_group("late", "plant");
        env.run(&["enrollment", "add", "--individual", "press-9"]);
        registered(env, "press-9")
    });
    unknown(&env, &["late", "press-9"]);
    env.run(&["enrollment", "adopt", "--group", "late"]);
    env.run(&["enrollment", "adopt", "--individual", "press-9"]);
    env.kill();
    env.start();
    env.wait_ready();
    env.wait_in_sync();
    unknown(&env, &[]);
    is_assigned(&env.emulator, &later);
    let again = env.hallmark(&["enrollment", "adopt", "--group", "late"]);
    assert!(again.error.contains("enrollment_unknown"), "{again:?}");

    let report = [&COMPROMISE[..], &["--authority", "line-1"]].concat();
    let started = env.json(&report);
    is_out(&env, &before);
    is_out(&env, &later);
    assert!(
        env.emulator.hub_identity("press-9").is_none(),
        "{started:#}"
    );
    assert!(
        states(&started, "enrollments_unknown").is_empty(),
        "{started:#}"
    );
    assert_eq!(
        states(&started, "authority_excluded"),
        ["done"],
        "{started:#}"
    );
    until("the successor signs", || {
        second_signs(&env, "line-1").then_some(())
    });
    let renewed = env.enlist_when_possible("device", "press-9");
    env.wait_in_sync();
    is_assigned(&env.emulator, &renewed);
    is_out(&env, &later);
}

/// Verifies: an adopted enrollment whose leaf is not on record is excluded with the group beside it
/// and with a generation; lifting the block keeps it disabled until its device has a leaf on
/// record.
#[test]
fn an_adopted_enrollment_is_blocked_with_its_group_and_its_generation() {
    let (env, _, later) = restored_after(|env, _| {
        env.run(&["enrollment", "add", "--individual", "press-9"]);
        registered(env, "press-9")
    });
    unknown(&env, &["press-9"]);
    env.run(&["enrollment", "adopt", "--individual", "press-9"]);
    env.wait_in_sync();
    for subject in [
        &["enrollment", "block", "--group", "line-1"][..],
        &["authority", "block", "line-1", "--generation", "1"],
    ] {
        let blocked = env.json(subject);
        is_out(&env, &later);
        assert!(
            env.emulator.hub_identity("press-9").is_none(),
            "{blocked:#}"
        );
        assert!(
            states(&blocked, "enrollments_unknown").is_empty(),
            "{blocked:#}"
        );
    }
    env.run(&["authority", "unblock", "line-1", "--generation", "1"]);
    env.run(&["enrollment", "unblock", "--group", "line-1"]);
    env.wait_in_sync();
    is_out(&env, &later);
    let renewed = env.enlist("device", "press-9");
    env.wait_in_sync();
    is_assigned(&env.emulator, &renewed);
    is_out(&env, &later);
}

/// Verifies: enrollments that are not on record are removed; one beside a group, or a disabled one,
/// only with a reason; a disabled one is not adopted, nor is any while its exclusion is in force.
#[test]
fn unknown_enrollments_are_removed() {
    let (env, _, _) = restored_after(|env, _| {
        env.add_group("late", "plant");
        env.run(&["enrollment", "add", "--individual", "press-9"]);
        registered(env, "press-9");
        registered(env, "press-8");
        env.run(&[&COMPROMISE[..], &["press-8"]].concat());
    });
    unknown(&env, &["late", "press-8", "press-9"]);
    let is_refused = |command: &[&str], code: &str| {
        let refused = env.hallmark(command);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.error.contains(code), "{refused:?}");
    };
    let adopt = |id| ["enrollment", "adopt", "--individual", id];
    let remove = |id| ["enrollment", "remove", "--individual", id];
    is_refused(&adopt("press-8"), "enrollment_excludes");
    is_refused(&adopt("press-7"), "enrollment_unknown");
    is_refused(&remove("press-8"), "enrollment_excludes");
    is_refused(&remove("press-9"), "enrollment_excludes");
    env.run(&["enrollment", "block", "--group", "line-1"]);
    is_refused(&adopt("press-9"), "group_blocked");
    env.run(&["enrollment", "unblock", "--group", "line-1"]);
    env.run(&["enrollment", "remove", "--group", "late"]);
    for id in ["press-8", "press-9"] {
        env.run(&[&remove(id)[..], &["--override", "scrapped"]].concat());
    }
    env.wait_in_sync();
    unknown(&env, &[]);
    assert!(env.emulator.group("late").is_none());
    assert!(env.emulator.individual("press-8").is_none());
    assert!(env.emulator.individual("press-9").is_none());
}

/// An unknown enrollment and an unknown group are being removed, and the service refuses that.
/// Verifies: the compromise of an authority names both until the service was observed without them,
/// and deletes the identity of the device then; the device is blocked by its name.
#[test]
fn unknown_enrollments_that_are_being_removed_are_open() {
    let (env, before, (later, named)) = restored_after(|env, _| {
        env.add_group("late", "plant");
        for id in ["press-8", "press-9"] {
            env.run(&["enrollment", "add", "--individual", id]);
        }
        (registered(env, "press-9"), registered(env, "press-8"))
    });
    unknown(&env, &["late", "press-8", "press-9"]);
    for operation in ["individual.delete", "group.delete"] {
        let refused = Fault::on(operation, Action::status(400)).times(1_000);
        env.emulator.inject(refused).unwrap();
    }
    let why = ["--override", "scrapped"];
    env.run(&["enrollment", "remove", "--group", "late"]);
    for id in ["press-8", "press-9"] {
        env.run(&[&["enrollment", "remove", "--individual", id][..], &why].concat());
    }
    until("the removals are parked", || {
        let queue = env.json(&["push", "list"]);
        let mut queue = queue.as_array().unwrap().iter();
        queue.all(|it| it["parked"] == true).then_some(())
    });
    let report = [&COMPROMISE[..], &["--authority", "line-1"]].concat();
    let started = env.json(&report);
    is_out(&env, &before);
    is_assigned(&env.emulator, &later);
    let parked = states(&started, "enrollment_parked");
    assert_eq!(parked, ["open", "open", "open"], "{started:#}");
    assert!(
        states(&started, "authority_excluded").is_empty(),
        "{started:#}"
    );

    let blocked = env.json(&["device", "block", "press-8"]);
    is_out(&env, &named);
    assert_eq!(
        states(&blocked, "enrollment_disabled"),
        ["done"],
        "{blocked:#}"
    );
    assert!(env.emulator.hub_identity("press-8").is_none());

    env.emulator.clear_faults();
    env.run(&["push", "retry"]);
    env.wait_in_sync();
    assert!(env.emulator.individual("press-9").is_none());
    is_out(&env, &later);
    until("the identity is deleted", || {
        env.emulator.hub_identity("press-9").is_none().then_some(())
    });
    env.run(&["device", "unblock", "press-8"]);
    env.wait_in_sync();
    assert!(env.emulator.individual("press-8").is_none());
}

/// Verifies: a block of a generation deletes the identity of a device whose adopted enrollment
/// holds a leaf that is not on record.
#[test]
fn the_identity_of_an_adopted_device_is_deleted_with_its_generation() {
    let (env, _, later) = restored_after(|env, _| {
        env.run(&["enrollment", "add", "--individual", "press-9"]);
        registered(env, "press-9")
    });
    unknown(&env, &["press-9"]);
    env.run(&["enrollment", "adopt", "--individual", "press-9"]);
    env.wait_in_sync();
    let blocked = env.json(&["authority", "block", "line-1", "--generation", "1"]);
    is_out(&env, &later);
    assert!(
        env.emulator.hub_identity("press-9").is_none(),
        "{blocked:#}"
    );
    let hub = states(&blocked, "identities_deleted");
    assert_eq!(hub, ["done"], "{blocked:#}");
}

/// The enrollment of a device was added after the backup, and no group admits the device. Verifies:
/// it is adopted; a block excludes the device, and the end of the block leaves the enrollment.
#[test]
fn an_adopted_enrollment_that_no_group_replaces_outlives_a_block() {
    let mut env = TestEnv::new();
    env.configure(&(env.configuration() + "\n[policy]\nscan_interval = \"1s\"\n"));
    env = env.started();
    env.add_group("stations", "operations");
    let device = env.station().obtain(&Request::device("press-1"));
    let file = create(&env);
    env.run(&["enrollment", "add", "--individual", "press-1"]);
    env.wait_in_sync();
    is_assigned(&env.emulator, &device);
    env.stop();
    assert_eq!(restore(&env, &file).code, Some(0));
    env.start();
    env.wait_ready();
    unknown(&env, &["press-1"]);
    env.run(&["enrollment", "adopt", "--individual", "press-1"]);
    env.wait_in_sync();
    env.run(&["device", "block", "press-1"]);
    is_out(&env, &device);
    env.run(&["device", "unblock", "press-1"]);
    env.wait_in_sync();
    is_assigned(&env.emulator, &device);
}

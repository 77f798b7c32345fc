//! Tests exclusions of what is being removed: until a provisioning service was observed without an
//! enrollment, the enrollment admits its devices, and every exclusion counts it.

use crate::authority_roll::second_signs;
use crate::device::{is_assigned, register};
use crate::process::until;
use crate::provisioned::{below_line_1, individually};
use crate::request::Holder;
use crate::test_env::TestEnv;
use dps_emulator::{Action, Fault};
use serde_json::Value;

const REMOVE_LINE: [&str; 4] = ["enrollment", "remove", "--group", "line-1"];
const BLOCK_GENERATION: [&str; 5] = ["authority", "block", "line-1", "--generation", "1"];

/// Runs the removal, and waits until the service has refused it.
fn removal_is_parked(env: &TestEnv, operation: &str, removal: &[&str]) {
    let refused = Fault::on(operation, Action::status(400)).times(1_000);
    env.emulator.inject(refused).unwrap();
    env.run(removal);
    until("the removal is parked", || {
        let queue = env.json(&["push", "list"]);
        (queue[0]["parked"] == true).then_some(())
    });
}

/// The service answers again, and the operator has the removal tried again.
fn removal_goes_on(env: &TestEnv, name: &str) {
    env.emulator.clear_faults();
    env.run(&["push", "retry", name]);
    env.wait_in_sync();
}

fn is_out(env: &TestEnv, device: &Holder) {
    let end = register(&env.emulator, device);
    assert_ne!(end.as_deref(), Ok("assigned"), "{}", device.id);
}

/// The states of the places with this code.
fn states(answer: &Value, code: &str) -> Vec<String> {
    let places = answer["receipt"]["places"].as_array().unwrap().iter();
    let coded = places.filter(|it| it["code"] == code);
    coded
        .map(|it| it["state"].as_str().unwrap().to_owned())
        .collect()
}

/// The group of a device is being removed, and the service refuses that. Verifies: the compromise
/// of the device excludes it there and at the hub, and its receipt says so.
#[test]
fn a_device_of_a_group_that_is_being_removed_is_compromised() {
    let (env, devices) = below_line_1(&["press-7", "press-8"]);
    removal_is_parked(&env, "group.delete", &REMOVE_LINE);
    is_assigned(&env.emulator, &devices[0]);
    let started = env.json(&["roll", "start", "press-7", "--reason", "compromise"]);
    is_out(&env, &devices[0]);
    assert!(env.emulator.hub_identity("press-7").is_none());
    assert_eq!(
        states(&started, "enrollment_disabled"),
        ["done"],
        "{started:#}"
    );
    assert_eq!(started["receipt"]["complete"], true, "{started:#}");
    is_assigned(&env.emulator, &devices[1]);
    removal_goes_on(&env, "line-1");
    assert!(env.emulator.group("line-1").is_none());
}

/// Verifies: a group whose removal is refused is blocked; when the block is lifted, its removal
/// goes on.
#[test]
fn a_group_that_is_being_removed_is_blocked() {
    let (env, devices) = below_line_1(&["press-7"]);
    removal_is_parked(&env, "group.delete", &REMOVE_LINE);
    let blocked = env.json(&["enrollment", "block", "--group", "line-1"]);
    is_out(&env, &devices[0]);
    assert!(env.emulator.hub_identity("press-7").is_none());
    assert_eq!(blocked["receipt"]["complete"], true, "{blocked:#}");
    let refused = env.hallmark(&REMOVE_LINE);
    assert!(refused.error.contains("group_blocked"), "{refused:?}");
    env.emulator.clear_faults();
    env.run(&["enrollment", "unblock", "--group", "line-1"]);
    env.wait_in_sync();
    assert!(env.emulator.group("line-1").is_none());
    is_out(&env, &devices[0]);
}

/// The group of a compromised authority is being removed below a group of the authority above, and
/// the service refuses that. Verifies: no receipt calls the service done while the group admits
/// devices; when the group is gone, a blocking group has the certificate, and the hub no identity.
#[test]
fn the_authority_of_a_group_that_is_being_removed_is_compromised() {
    let (env, devices) = below_line_1(&["press-7"]);
    env.add_group("plant", "plant");
    env.wait_in_sync();
    removal_is_parked(&env, "group.delete", &REMOVE_LINE);
    let started = env.json(&[
        "roll",
        "start",
        "--authority",
        "line-1",
        "--reason",
        "compromise",
    ]);
    assert_eq!(
        states(&started, "enrollment_parked"),
        ["open"],
        "{started:#}"
    );
    assert!(
        states(&started, "authority_excluded").is_empty(),
        "{started:#}"
    );
    assert!(
        states(&started, "identities_deleted").is_empty(),
        "{started:#}"
    );
    removal_goes_on(&env, "line-1");
    is_out(&env, &devices[0]);
    assert!(env.emulator.group("line-1-blocked-1").is_some());
    until("the identity is deleted", || {
        env.emulator.hub_identity("press-7").is_none().then_some(())
    });
    until("the successor signs", || {
        second_signs(&env, "line-1").then_some(())
    });
    let renewed = env.enlist_when_possible("device", "press-7");
    env.wait_in_sync();
    is_assigned(&env.emulator, &renewed);
    assert!(env.emulator.group("line-1").is_none());
}

/// The enrollment of a device is being removed, and the service refuses that. Verifies: the block
/// of its generation waits for it, and so does the deletion of the identity.
#[test]
fn an_enrollment_that_is_being_removed_is_blocked_with_its_generation() {
    let (env, devices) = individually(&["press-7"]);
    let removal = ["enrollment", "remove", "--individual", "press-7"];
    removal_is_parked(&env, "individual.delete", &removal);
    is_assigned(&env.emulator, &devices[0]);
    let blocked = env.json(&BLOCK_GENERATION);
    assert_eq!(blocked["receipt"]["complete"], false, "{blocked:#}");
    assert!(env.emulator.hub_identity("press-7").is_some());
    removal_goes_on(&env, "press-7");
    is_out(&env, &devices[0]);
    until("the identity is deleted", || {
        env.emulator.hub_identity("press-7").is_none().then_some(())
    });
    until("the block is complete", || {
        let shown = env.get("/v1/blocks/generation/line-1?generation=1");
        let shown: Value = serde_json::from_str(&shown).unwrap();
        (shown["receipt"]["complete"] == true).then_some(())
    });
}

/// The service was observed without the group of some devices, and their identities are at the hub.
/// Verifies: a block of a device, a compromise of a device and a block of their generation delete
/// them, and each receipt has the hub.
#[test]
fn the_identities_of_devices_without_an_access_path_are_deleted() {
    let (env, _) = below_line_1(&["press-7", "press-8", "press-9"]);
    env.run(&REMOVE_LINE);
    env.wait_in_sync();
    assert!(env.emulator.group("line-1").is_none());
    for (device, command) in [
        ("press-7", &["device", "block", "press-7"][..]),
        (
            "press-8",
            &["roll", "start", "press-8", "--reason", "compromise"],
        ),
        ("press-9", &BLOCK_GENERATION),
    ] {
        assert!(env.emulator.hub_identity(device).is_some());
        let answer = env.json(command);
        assert!(env.emulator.hub_identity(device).is_none(), "{answer:#}");
        assert_eq!(
            states(&answer, "identities_deleted"),
            ["done"],
            "{answer:#}"
        );
        assert_eq!(answer["receipt"]["complete"], true, "{answer:#}");
    }
}

/// Verifies: the identity of a device stays until the service follows in every group that a block
/// changes there; in one of them it would register again.
#[test]
fn the_hub_waits_for_every_group_that_a_block_changes() {
    let (env, devices) = below_line_1(&["press-7"]);
    env.add_group("plant", "plant");
    env.wait_in_sync();
    let mut away = Fault::on("group.put", Action::status(503)).times(1_000);
    away.aim.path_contains = Some("line-1".into());
    env.emulator.inject(away).unwrap();
    let blocked = env.json(&["authority", "block", "plant", "--generation", "1"]);
    until("the other group is disabled", || {
        let plant = env.emulator.group("plant")?;
        (plant["provisioningStatus"] == "disabled").then_some(())
    });
    assert_eq!(
        states(&blocked, "identities_pending"),
        ["pending"],
        "{blocked:#}"
    );
    is_assigned(&env.emulator, &devices[0]);
    env.emulator.clear_faults();
    until("the identity is deleted", || {
        env.emulator.hub_identity("press-7").is_none().then_some(())
    });
    is_out(&env, &devices[0]);
}

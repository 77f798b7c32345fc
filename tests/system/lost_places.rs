//! Tests identities whose hub and id nothing names any more: another program has deleted the
//! registration record, alone or with its individual enrollment, before the daemon saw it name a
//! hub.

use crate::device::is_assigned;
use crate::hubs::{TWO, a_device_in_each};
use crate::provisioned::individually;
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use dps_emulator::Kind;
use serde_json::Value;
use time::Duration;

/// Longer than the service takes from an enrollment to its registration record.
const LATER: Duration = Duration::seconds(5);

/// Asserts that the receipt calls the hub open, with the device by its name.
fn is_unknown(answer: &Value, device: &Holder) {
    let mut places = answer["receipt"]["places"].as_array().unwrap().iter();
    let hub = places.find(|it| it["code"] == "identities_unknown");
    let hub = hub.unwrap_or_else(|| panic!("{answer:#}"));
    assert_eq!(hub["place"], "hub: dps", "{answer:#}");
    assert_eq!(hub["state"], "open", "{answer:#}");
    assert_eq!(hub["parameters"]["devices"][0], *device.id, "{answer:#}");
    assert_eq!(answer["receipt"]["complete"], false, "{answer:#}");
}

fn compromise(env: &TestEnv, device: &Holder) -> Value {
    env.json(&["roll", "start", &device.id, "--reason", "compromise"])
}

/// The registration record of a device in a hub that is not configured is deleted. Verifies: the
/// compromise names the device as open, and so does the compromise of its authority; for a device
/// at a configured hub the identity is found and deleted, also again.
#[test]
fn a_deleted_registration_record_leaves_the_hub_open() {
    let (env, in_one, in_two) = a_device_in_each(true);
    env.emulator.clock().advance(LATER);
    for device in [&in_one, &in_two] {
        assert!(env.emulator.delete_registration(&device.id));
    }
    let started = compromise(&env, &in_two);
    is_unknown(&started, &in_two);
    assert_eq!(env.emulator.hubs_with(&in_two.id), [TWO]);
    for _ in 0..2 {
        let started = compromise(&env, &in_one);
        assert_eq!(started["receipt"]["complete"], true, "{started:#}");
        assert!(env.emulator.hubs_with(&in_one.id).is_empty());
    }
    let authority = ["--authority", "line-1", "--reason", "compromise"];
    let started = env.json(&[&["roll", "start"], &authority[..]].concat());
    is_unknown(&started, &in_two);
}

/// Another program deletes the enrollment of a device in a hub that is not configured. Verifies:
/// once the daemon has observed that, a block of the device names it as open.
#[test]
fn an_enrollment_that_another_program_deletes_leaves_the_hub_open() {
    let (env, _, in_two) = a_device_in_each(true);
    env.emulator
        .delete_record(Kind::Individual, &in_two.id)
        .unwrap();
    env.run(&["enrollment", "remove", "--individual", &in_two.id]);
    env.wait_in_sync();
    let blocked = env.json(&["device", "block", &in_two.id]);
    is_unknown(&blocked, &in_two);
    assert_eq!(env.emulator.hubs_with(&in_two.id), [TWO]);
}

/// A device never registered, by an enrollment of its own or below a group. Verifies: its exclusion
/// is complete, before and after its enrollment is removed.
#[test]
fn a_device_that_never_registered_has_no_lost_place() {
    let (env, _) = individually(&["press-1"]);
    env.run(&["enrollment", "add", "--individual", "press-2"]);
    env.enlist("device", "press-2");
    env.wait_in_sync();
    let block = ["device", "block", "press-2"];
    let blocked = env.json(&block);
    assert_eq!(blocked["receipt"]["complete"], true, "{blocked:#}");
    env.run(&["device", "unblock", "press-2"]);
    env.wait_in_sync();
    env.run(&["enrollment", "remove", "--individual", "press-2"]);
    env.wait_in_sync();
    let blocked = env.json(&block);
    assert_eq!(blocked["receipt"]["complete"], true, "{blocked:#}");

    env.add_group("line-1", "line-1");
    let below = env.station().obtain(&Request::device("press-3"));
    env.wait_in_sync();
    for _ in 0..2 {
        let blocked = env.json(&["device", "block", "press-3"]);
        assert_eq!(blocked["receipt"]["complete"], true, "{blocked:#}");
        env.run(&["device", "unblock", "press-3"]);
        env.wait_in_sync();
    }
    is_assigned(&env.emulator, &below);
}

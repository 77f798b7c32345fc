//! Tests several hubs behind one provisioning service: the registration record says in which hub,
//! and by which id, a device is. A receipt claims nothing about a hub that is not configured.

use crate::device::is_assigned;
use crate::process::until;
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use dps_emulator::{Kind, MethodAnswer};
use serde_json::{Map, Value, json};

const ONE: &str = "one.azure-devices.net";
pub(crate) const TWO: &str = "two.azure-devices.net";

/// Two linked hubs, of which the daemon knows `ONE`, and a device of a group in each; `individual`
/// gives each device an enrollment of its own instead.
pub(crate) fn a_device_in_each(individual: bool) -> (TestEnv, Holder, Holder) {
    let env = TestEnv::with_hubs(&[ONE, TWO]).started();
    env.add_group("line-1", "line-1");
    let station = env.station();
    let mut found: [Option<Holder>; 2] = [None, None];
    for number in 1..=20 {
        let device = station.obtain(&Request::device(&format!("press-{number}")));
        if individual {
            env.run(&["enrollment", "add", "--individual", &device.id]);
        }
        env.wait_in_sync();
        is_assigned(&env.emulator, &device);
        let place = usize::from(env.emulator.hubs_with(&device.id) == [TWO]);
        found[place] = Some(device);
        if let [Some(in_one), Some(in_two)] = &found {
            return (env, in_one.clone(), in_two.clone());
        }
    }
    panic!("20 devices are in one hub");
}

/// Writes a configuration with both hubs.
fn configure_both(env: &TestEnv) {
    for hub in [ONE, TWO] {
        env.write_secret(hub, &env.emulator.connection_string_of(hub));
    }
    let one = env.configuration();
    let place = one.find("[provisioning.hub]").unwrap();
    let (before, table) = one.split_at(place);
    let table = table.replacen("[provisioning.hub]", "[[provisioning.hub]]", 1);
    let mut both = before.to_owned();
    for hub in [ONE, TWO] {
        let own = table.replace(ONE, hub);
        both += &own.replace("/hub-connection-string", &format!("/{hub}"));
        both += "\n";
    }
    env.configure(&both);
}

fn place<'a>(output: &'a Value, name: &str) -> Option<&'a Value> {
    let mut places = output["receipt"]["places"].as_array().unwrap().iter();
    places.find(|it| it["place"] == name)
}

/// Asserts that the receipt calls `TWO` open by its name, names the device, and calls no hub of the
/// service done for it.
fn names_the_other_hub(output: &Value, device: &str) {
    let two = place(output, &format!("hub: {TWO}")).unwrap_or_else(|| panic!("{output}"));
    assert_eq!(two["state"], "open", "{output}");
    let answer = two["answer"].as_str().unwrap();
    assert!(
        answer.contains(device) && answer.contains("[[provisioning.hub]]"),
        "{output}"
    );
}

/// B1. The device is in a hub that is not configured. Verifies: roll and block name that hub as
/// open; and once it is configured, the identity is deleted there.
#[test]
fn a_hub_that_is_not_configured_is_open_by_its_name() {
    for individual in [false, true] {
        let (env, in_one, in_two) = a_device_in_each(individual);
        let compromise =
            |device: &Holder| env.json(&["roll", "start", &device.id, "--reason", "compromise"]);
        let output = compromise(&in_one);
        assert_eq!(
            place(&output, "hub: dps").unwrap()["state"],
            "done",
            "{output}"
        );
        assert!(env.emulator.hubs_with(&in_one.id).is_empty());

        let output = compromise(&in_two);
        names_the_other_hub(&output, &in_two.id);
        assert_eq!(place(&output, "hub: dps"), None, "{output}");
        assert_eq!(env.emulator.hubs_with(&in_two.id), [TWO]);

        configure_both(&env);
        env.json(&["reload"]);
        until("the other hub is cleared", || {
            env.emulator.hubs_with(&in_two.id).is_empty().then_some(())
        });
    }
}

/// B1. Blocks of a device, of a group and of a generation. Verifies: the receipt counts the device
/// of the configured hub, and names the other one.
#[test]
fn blocks_name_a_hub_that_is_not_configured() {
    let (env, _, in_two) = a_device_in_each(false);
    let output = env.json(&["device", "block", &in_two.id]);
    names_the_other_hub(&output, &in_two.id);
    env.run(&["device", "unblock", &in_two.id]);
    env.wait_in_sync();

    for (block, unblock) in [
        (
            &["enrollment", "block", "--group", "line-1"][..],
            &["enrollment", "unblock", "--group", "line-1"][..],
        ),
        (
            &["authority", "block", "line-1", "--generation", "1"],
            &["authority", "unblock", "line-1", "--generation", "1"],
        ),
    ] {
        let output = env.json(block);
        names_the_other_hub(&output, &in_two.id);
        let configured = place(&output, "hub: dps").unwrap();
        assert_eq!(configured["state"], "done", "{output}");
        env.run(unblock);
        env.wait_in_sync();
    }
    assert_eq!(env.emulator.hubs_with(&in_two.id), [TWO]);
}

/// B1. The authority of all devices is compromised. Verifies: the receipt counts every device once,
/// though several authorities roll, and names the other hub.
#[test]
fn a_compromised_authority_names_a_hub_that_is_not_configured() {
    let (env, in_one, in_two) = a_device_in_each(false);
    let report = [
        "roll",
        "start",
        "--authority",
        "plant",
        "--reason",
        "compromise",
    ];
    let output = env.json(&report);
    names_the_other_hub(&output, &in_two.id);
    assert!(env.emulator.hubs_with(&in_one.id).is_empty());
    assert_eq!(env.emulator.hubs_with(&in_two.id), [TWO]);
}

/// Verifies: three devices below a compromised root are counted as three.
#[test]
fn a_receipt_of_a_root_counts_every_identity_once() {
    let env = TestEnv::running();
    env.add_group("line-1", "line-1");
    let station = env.station();
    let devices = ["press-1", "press-2", "press-3"].map(|id| station.obtain(&Request::device(id)));
    env.wait_in_sync();
    devices.iter().for_each(|it| is_assigned(&env.emulator, it));
    let report = [
        "roll",
        "start",
        "--authority",
        "root",
        "--reason",
        "compromise",
    ];
    let output = env.json(&report);
    let answer = place(&output, "hub: dps").unwrap()["answer"]
        .as_str()
        .unwrap();
    assert!(answer.starts_with("3 of 3 done"), "{output}");
    for device in &devices {
        assert!(env.emulator.hub_identity(&device.id).is_none());
    }
}

/// Verifies: with both hubs configured, an exclusion clears the one that the record names.
#[test]
fn with_both_hubs_configured_each_device_is_cleared_at_its_own() {
    let (mut env, in_one, in_two) = a_device_in_each(false);
    configure_both(&env);
    assert_eq!(env.check().code, Some(0), "{:?}", env.check());
    env.restart();
    for device in [&in_one, &in_two] {
        let output = env.json(&["device", "block", &device.id]);
        assert_eq!(output["receipt"]["complete"], true, "{output}");
        assert_eq!(
            place(&output, "hub: dps").unwrap()["state"],
            "done",
            "{output}"
        );
        assert!(env.emulator.hubs_with(&device.id).is_empty());
        env.run(&["device", "unblock", &device.id]);
        env.wait_in_sync();
        is_assigned(&env.emulator, device);
    }
}

fn merged(members: Value) -> Map<String, Value> {
    members.as_object().unwrap().clone()
}

/// B2. The enrollment names another device id. Verifies: the identity that the record names is
/// deleted, and one from before under the registration id, too; another device's stays.
#[test]
fn the_identity_that_the_record_names_is_deleted() {
    let env = TestEnv::running();
    let station = env.station();
    for id in ["press-7", "press-8"] {
        env.run(&["enrollment", "add", "--individual", id]);
    }
    let devices = ["press-7", "press-8"].map(|id| station.obtain(&Request::device(id)));
    env.wait_in_sync();
    devices.iter().for_each(|it| is_assigned(&env.emulator, it));
    let asset = merged(json!({ "deviceId": "Asset-0815" }));
    env.emulator
        .edit_record(Kind::Individual, "press-7", asset)
        .unwrap();
    is_assigned(&env.emulator, &devices[0]);
    assert!(env.emulator.hub_identity("Asset-0815").is_some());
    assert!(
        env.emulator.hub_identity("press-7").is_some(),
        "the one from before"
    );

    let output = env.json(&["device", "block", "press-7"]);
    assert_eq!(output["receipt"]["complete"], true, "{output}");
    for id in ["Asset-0815", "press-7"] {
        assert!(env.emulator.hub_identity(id).is_none(), "{id}: {output}");
    }
    assert!(env.emulator.hub_identity("press-8").is_some());
}

/// The enrollments of two devices are removed, and the service deletes their registration records
/// with them. Verifies: an exclusion afterwards still names the hub that is not configured, and
/// deletes the identity under the device id that the record named.
#[test]
fn the_identities_of_removed_enrollments_are_found() {
    let (env, in_one, in_two) = a_device_in_each(true);
    let asset = merged(json!({ "deviceId": "Asset-0815" }));
    env.emulator
        .edit_record(Kind::Individual, &in_one.id, asset)
        .unwrap();
    is_assigned(&env.emulator, &in_one);
    assert_eq!(env.emulator.hubs_with("Asset-0815"), [ONE]);
    for device in [&in_one, &in_two] {
        env.run(&["enrollment", "remove", "--individual", &device.id]);
    }
    env.wait_in_sync();

    let output = env.json(&["device", "block", &in_one.id]);
    assert_eq!(output["receipt"]["complete"], true, "{output}");
    assert!(env.emulator.hubs_with("Asset-0815").is_empty(), "{output}");
    let output = env.json(&["device", "block", &in_two.id]);
    names_the_other_hub(&output, &in_two.id);
    assert_eq!(output["receipt"]["complete"], false, "{output}");
    assert_eq!(env.emulator.hubs_with(&in_two.id), [TWO]);
}

/// Verifies: an identity with this registration id that belongs to another device stays.
#[test]
fn the_identity_of_another_device_stays() {
    let env = TestEnv::running();
    let station = env.station();
    for id in ["press-7", "press-8"] {
        env.run(&["enrollment", "add", "--individual", id]);
    }
    let devices = ["press-7", "press-8"].map(|id| station.obtain(&Request::device(id)));
    env.wait_in_sync();
    // The device press-8 is called press-7 in the hub, and press-7 has another name there.
    for (id, device_id) in [("press-7", "asset-7"), ("press-8", "press-7")] {
        let named = merged(json!({ "deviceId": device_id }));
        env.emulator
            .edit_record(Kind::Individual, id, named)
            .unwrap();
    }
    devices.iter().for_each(|it| is_assigned(&env.emulator, it));
    env.json(&["device", "block", "press-7"]);
    assert!(env.emulator.hub_identity("asset-7").is_none());
    assert!(
        env.emulator.hub_identity("press-7").is_some(),
        "it is that of press-8"
    );
}

/// A compromise of one slot, after the device has registered with the good leaf in the other slot.
/// Verifies: the identity stays, and the receipt says why.
#[test]
fn an_identity_with_the_good_leaf_stays() {
    let env = TestEnv::running();
    env.run(&["enrollment", "add", "--individual", "press-7"]);
    let old = env.station().obtain(&Request::device("press-7"));
    env.wait_in_sync();
    is_assigned(&env.emulator, &old);
    let new = env.station().obtain(&Request::device("press-7"));
    until("DPS accepts both leaves", || {
        let shown = env.json(&["enrollment", "show", "press-7"]);
        (shown[0]["slots"]["state"] == "draining").then_some(())
    });
    is_assigned(&env.emulator, &new);
    let report = [
        "roll",
        "start",
        "press-7",
        "--reason",
        "compromise",
        "--slot",
        "primary",
    ];
    let output = env.json(&report);
    let hub = place(&output, "hub: dps").unwrap();
    assert_eq!(hub["state"], "done", "{output}");
    let answer = hub["answer"].as_str().unwrap();
    assert!(
        answer.contains("1 kept") && answer.contains("good leaf"),
        "{output}"
    );
    let identity = env.emulator.hub_identity("press-7").expect("it stays");
    let shown = &identity["authentication"]["x509Thumbprint"]["primaryThumbprint"];
    assert_eq!(shown.as_str(), Some(&*new.thumbprint));
    assert!(env.emulator.requests_of("identity.delete").is_empty());
}

/// Verifies: a device is notified at the hub, and by the id, that its record names.
#[test]
fn a_device_is_notified_at_its_own_hub() {
    let (mut env, in_one, in_two) = a_device_in_each(true);
    for (hub, device) in [(ONE, &in_one), (TWO, &in_two)] {
        let (status, payload) = (200, json!({}));
        let answer = MethodAnswer { status, payload };
        env.emulator.simulate_device_at(hub, &device.id, answer);
    }
    configure_both(&env);
    let configuration = std::fs::read_to_string(env.path("hallmark.toml")).unwrap();
    env.configure(&format!(
        "{configuration}\n[policy]\ntell_devices = \"method\"\n"
    ));
    env.restart();
    for device in [&in_one, &in_two] {
        env.station().obtain(&Request::device(&device.id));
    }
    until("both have answered", || {
        let rolls = env.json(&["roll", "list", "--open"]);
        let rolls = rolls.as_array().unwrap();
        let notified = |it: &Value| it["hub_progress"] == "1 of 1 done, 1 notified";
        (rolls.len() == 2 && rolls.iter().all(notified)).then_some(())
    });
}

//! Tests blocks of a device, a group and a generation, and their end. One command changes
//! revocation list, provisioning service and hub, and reports what each place answered.

use crate::configured::{device_profile, station_table};
use crate::device::{is_assigned, register};
use crate::process::until;
use crate::provisioned::{below_line_1, below_plant_and_line};
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use serde_json::{Value, json};

/// Two lines, as the article on X.509 attestation has two intermediates.
const LINES: &str = r#"
name = "two lines"

[[authority]]
name = "root"
key_type = "p384"
subject = { common_name = "Example Root" }
validity = "20y"
path_length = 2

[[authority]]
name = "plant"
issuer = "root"
subject = { common_name = "Example Intermediate A" }
validity = "10y"
path_length = 0

[[authority]]
name = "line-1"
issuer = "root"
subject = { common_name = "Example Intermediate B" }
validity = "10y"
path_length = 0

[[authority]]
name = "operations"
issuer = "root"
subject = { common_name = "Example Operations" }
validity = "10y"
path_length = 0
"#;

/// A profile that issues below `plant`, which is intermediate A here.
fn profile_a() -> String {
    device_profile("device-a", "plant", "90d")
        + &station_table("station-*", &["device-a"], &["device-?"])
}

/// Devices 1 to 3 below A, 4 and 5 below B, each line with a group; all provisioned.
pub(crate) fn five_devices() -> (TestEnv, Vec<Holder>) {
    let mut env = TestEnv::new();
    env.write("ceremony.toml", LINES);
    let configuration = env.configuration();
    let configuration = configuration.replacen("[[profile]]", &(profile_a() + "\n[[profile]]"), 1);
    env.configure(&configuration);
    env.start();
    env.run_ceremony();
    env.add_group("group-a", "plant");
    env.add_group("group-b", "line-1");
    let station = env.station();
    let devices: Vec<Holder> = (1..=5)
        .map(|number| {
            let profile = if number <= 3 { "device-a" } else { "device" };
            station.obtain(&Request::new(profile, &format!("device-{number}")))
        })
        .collect();
    env.wait_in_sync();
    for device in &devices {
        is_assigned(&env.emulator, device);
    }
    (env, devices)
}

fn is_out(env: &TestEnv, device: &Holder) {
    assert_ne!(
        register(&env.emulator, device).as_deref(),
        Ok("assigned"),
        "{}",
        device.id
    );
    let identity = env.emulator.hub_identity(&device.id);
    assert_eq!(identity, None, "{} is still in the hub", device.id);
}

fn is_complete(output: &Value, places: usize) {
    assert_eq!(output["receipt"]["complete"], true, "{output}");
    let answered = output["receipt"]["places"].as_array().unwrap();
    assert_eq!(answered.len(), places, "{output}");
    assert!(answered.iter().all(|it| it["state"] == "done"), "{output}");
}

/// The example of the article: five devices, intermediates A and B with a group each. Then a
/// disabled enrollment of its own excludes device 3, and all other devices register as before.
#[test]
fn the_example_of_the_article_device_3_is_excluded_from_its_group() {
    let (env, devices) = five_devices();
    let output = env.json(&["device", "block", "device-3", "--reason", "stolen"]);
    is_complete(&output, 3);
    is_out(&env, &devices[2]);
    for other in [0, 1, 3, 4] {
        is_assigned(&env.emulator, &devices[other]);
    }
    let record = env.emulator.individual("device-3").unwrap();
    assert_eq!(record["provisioningStatus"], "disabled");

    let shown = env.json(&["device", "show", "device-3"]);
    assert_eq!(shown["blocked"]["reason"], "stolen", "{shown}");
    let again = env.hallmark(&["device", "block", "device-3"]);
    assert!(
        again.code == Some(1) && again.error.contains("blocked already"),
        "{again:?}"
    );
    let refused = env.station().ask(&Request::new("device-a", "device-3"));
    assert_eq!((refused.status, refused.code()), (403, "device_blocked"));
    let itself = env
        .caller(&devices[2])
        .ask(&Request::new("device-a", "device-3"));
    assert_eq!(
        (itself.status, itself.code()),
        (401, "client_certificate_revoked")
    );
    let removal = env.hallmark(&["enrollment", "remove", "--individual", "device-3"]);
    assert!(removal.error.contains("device_blocked"), "{removal:?}");

    let output = env.json(&["device", "unblock", "device-3", "--reason", "found again"]);
    assert_eq!(output["receipt"]["complete"], true, "{output}");
    assert!(
        env.emulator.individual("device-3").is_none(),
        "it is back in its group"
    );
    is_assigned(&env.emulator, &devices[2]);
    let shown = env.json(&["device", "show", "device-3"]);
    assert_eq!(
        shown["certificates"][0]["revoked_at"],
        Value::Null,
        "{shown}"
    );
    let audit = env.run(&["audit", "export"]);
    assert!(audit.contains("stolen") && audit.contains("found again"));
}

/// An individually enrolled device is disabled, and enabled again with the leaf that it has.
#[test]
fn a_device_with_an_enrollment_of_its_own_is_blocked_and_unblocked() {
    let env = TestEnv::running();
    env.run(&["enrollment", "add", "--individual", "press-7"]);
    let request = Request::device("press-7");
    let device = env.station().obtain(&request);
    env.wait_in_sync();
    is_assigned(&env.emulator, &device);
    is_complete(&env.json(&["device", "block", "press-7"]), 3);
    is_out(&env, &device);
    let show = ["block", "show", "device", "press-7"];
    is_complete(&env.json(&show), 3);
    let text = env.run(&show);
    assert!(text.contains("enrollment_disabled"), "{text}");
    let listed = env.json(&["block", "list"]);
    assert_eq!(listed[0]["name"], "press-7", "{listed}");
    let repeated = env.station().ask(&request);
    assert_eq!(
        (repeated.status, repeated.code()),
        (409, "certificate_revoked")
    );
    env.run(&["device", "unblock", "press-7"]);
    is_assigned(&env.emulator, &device);
    let gone = env.hallmark(&show);
    assert!(gone.error.contains("block_unknown"), "{gone:?}");
    assert_eq!(env.json(&["block", "list"]), json!([]));
    assert_eq!(env.json(&["block", "list", "--all"])[0]["name"], "press-7");
}

/// Lifting the block of a device does not enable it if it was compromised too.
#[test]
fn lifting_a_block_does_not_enable_a_compromised_leaf() {
    let (env, devices) = below_line_1(&["press-7"]);
    let device = &devices[0];
    env.run(&["device", "block", "press-7"]);
    env.run(&["roll", "start", "press-7", "--reason", "compromise"]);
    env.run(&["device", "unblock", "press-7"]);
    env.wait_in_sync();
    is_out(&env, device);
    let renewed = env.station().obtain(&Request::device("press-7"));
    env.wait_in_sync();
    is_assigned(&env.emulator, &renewed);
    assert_ne!(register(&env.emulator, device).as_deref(), Ok("assigned"));
}

/// DPS refuses all devices of a blocked group and none of the other group; after the block it
/// accepts all.
#[test]
fn a_group_is_blocked_and_unblocked() {
    let (env, devices) = five_devices();
    is_complete(&env.json(&["enrollment", "block", "--group", "group-a"]), 3);
    for device in &devices[..3] {
        is_out(&env, device);
    }
    for device in &devices[3..] {
        is_assigned(&env.emulator, device);
    }
    let blocks = env.json(&["enrollment", "show", "group-a"]);
    assert_eq!(blocks[0]["status"], "disabled");
    let removal = env.hallmark(&["enrollment", "remove", "--group", "group-a"]);
    assert!(removal.error.contains("group_blocked"), "{removal:?}");
    assert_eq!(blocks[0]["blocks"][0]["kind"], "group", "{blocks}");
    let status = env.json(&["status"]);
    assert_eq!(status["blocked"], 1);
    assert_eq!(status["blocks"][0]["name"], "group-a", "{status}");
    assert!(env.run(&["status", "--verbose"]).contains("name: group-a"));
    env.run(&["enrollment", "unblock", "--group", "group-a"]);
    let blocks = env.json(&["enrollment", "show", "group-a"]);
    assert_eq!(blocks[0]["blocks"], json!([]));
    assert_eq!(env.json(&["status"])["blocks"], json!([]));
    for device in &devices {
        is_assigned(&env.emulator, device);
    }
}

fn is_revoked(env: &TestEnv, device: &str) -> bool {
    let shown = env.json(&["device", "show", device]);
    !shown["certificates"][0]["revoked_at"].is_null()
}

/// A device that two blocks exclude is enabled again when the last of them has ended, on the
/// revocation list as at the service.
#[test]
fn a_device_that_two_blocks_exclude_is_enabled_when_the_last_one_ends() {
    let (env, devices) = five_devices();
    let group = |verb| env.json(&["enrollment", verb, "--group", "group-a"]);
    is_complete(&group("block"), 3);
    is_complete(&env.json(&["device", "block", "device-3"]), 3);
    assert_eq!(group("unblock")["receipt"]["complete"], true);
    for device in &devices[..2] {
        is_assigned(&env.emulator, device);
        assert!(!is_revoked(&env, &device.id));
    }
    is_out(&env, &devices[2]);
    assert!(is_revoked(&env, "device-3"));

    is_complete(&group("block"), 3);
    let output = env.json(&["device", "unblock", "device-3"]);
    assert_eq!(output["receipt"]["complete"], true, "{output}");
    is_out(&env, &devices[2]);
    assert!(is_revoked(&env, "device-3"));
    let refused = env.station().ask(&Request::new("device-a", "device-3"));
    assert_eq!((refused.status, refused.code()), (403, "group_blocked"));
    assert_eq!(group("unblock")["receipt"]["complete"], true);
    is_assigned(&env.emulator, &devices[2]);
    assert!(!is_revoked(&env, "device-3"));
}

/// The daemon is killed between the block of a group and the first of its devices. Verifies: from
/// the block on DPS refuses all of them, and no leaf is issued below the group; the next start
/// completes the block.
#[test]
fn a_block_of_a_group_goes_on_after_a_crash() {
    let (mut env, devices) = five_devices();
    let station = env.enlist("station", "station-2");
    env.restart_to_stay_at("block-chunk");
    let client = env.client();
    let block = ["enrollment", "block", "--group", "group-a"];
    std::thread::scope(|scope| {
        let output = scope.spawn(|| client.hallmark(&block));
        env.stays_at("block-chunk");
        until("the service has followed", || {
            let group = env.emulator.group("group-a").unwrap();
            (group["provisioningStatus"] == "disabled").then_some(())
        });
        let request = Request::new("device-a", "device-1");
        let refused = env.caller(&station).ask(&request);
        assert_eq!((refused.status, refused.code()), (403, "group_blocked"));
        assert!(!is_revoked(&env, "device-1"));
        env.kill();
        let output = output.join().unwrap();
        assert_ne!(output.code, Some(0), "{output:?}");
    });
    env.start();
    env.wait_ready();
    for device in &devices[..3] {
        until("the device is gone through", || {
            let there = env.emulator.hub_identity(&device.id).is_some();
            (is_revoked(&env, &device.id) && !there).then_some(())
        });
        is_out(&env, device);
    }
    assert_eq!(env.count("block WHERE reached IS NOT NULL"), 0);
    is_assigned(&env.emulator, &devices[4]);
}

/// A generation whose certificate is the only one of its group: the group is disabled, and the
/// generation signs nothing until the block is lifted.
#[test]
fn a_generation_is_blocked_and_unblocked() {
    let (env, devices) = five_devices();
    let block = ["authority", "block", "plant", "--generation", "1"];
    is_complete(&env.json(&block), 3);
    let shown = ["block", "show", "generation", "plant", "--generation", "1"];
    is_complete(&env.json(&shown), 3);
    for device in &devices[..3] {
        is_out(&env, device);
    }
    is_assigned(&env.emulator, &devices[4]);
    let refused = env.station().ask(&Request::new("device-a", "device-9"));
    assert_eq!((refused.status, refused.code()), (503, "issuer_revoked"));
    let shown = env.json(&["authority", "show", "plant"]);
    assert_eq!(shown[0]["blocked"]["kind"], "generation", "{shown}");
    let disabled = env.json(&["enrollment", "show", "group-a"]);
    assert_eq!(disabled[0]["blocks"][0]["name"], "plant", "{disabled}");
    env.run(&["authority", "unblock", "plant", "--generation", "1"]);
    let shown = env.json(&["authority", "show", "plant"]);
    assert_eq!(shown[0]["blocked"], Value::Null);
    for device in &devices {
        is_assigned(&env.emulator, device);
    }
    env.station().obtain(&Request::new("device-a", "device-9"));
}

/// A group of the root accepts every chain below it: a blocked generation gets a disabled group of
/// its own, which DPS finds first.
#[test]
fn under_a_group_of_the_root_a_blocked_generation_gets_a_group_of_its_own() {
    let mut env = TestEnv::new();
    env.write("ceremony.toml", LINES);
    env.start();
    env.run_ceremony();
    env.add_group("everybody", "root");
    let device = env.station().obtain(&Request::device("press-7"));
    env.wait_in_sync();
    is_assigned(&env.emulator, &device);
    is_complete(
        &env.json(&["authority", "block", "line-1", "--generation", "1"]),
        3,
    );
    is_out(&env, &device);
    let own = env.emulator.group("line-1-blocked-1").unwrap();
    assert_eq!(own["provisioningStatus"], "disabled");
    let removal = env.hallmark(&["enrollment", "remove", "--group", "line-1-blocked-1"]);
    assert!(removal.error.contains("enrollment_excludes"), "{removal:?}");
    let added = [
        "enrollment",
        "add",
        "--group",
        "late",
        "--authority",
        "line-1",
    ];
    let added = env.hallmark(&added);
    assert!(added.error.contains("issuer_revoked"), "{added:?}");
    env.run(&["authority", "unblock", "line-1", "--generation", "1"]);
    until("its own group is gone", || {
        env.emulator
            .group("line-1-blocked-1")
            .is_none()
            .then_some(())
    });
    is_assigned(&env.emulator, &device);
}

/// The group of the blocked authority takes precedence over the group of the authority below it:
/// both are disabled.
#[test]
fn a_blocked_generation_is_excluded_in_the_groups_below_it_too() {
    let (env, device) = below_plant_and_line();
    env.run(&["authority", "block", "plant", "--generation", "1"]);
    for group in ["plant", "line-1"] {
        let record = env.emulator.group(group).unwrap();
        assert_eq!(record["provisioningStatus"], "disabled", "{group}");
    }
    is_out(&env, &device);
}

/// The answers of the services do not change the end.
#[test]
fn a_receipt_says_what_is_pending_and_why() {
    use dps_emulator::{Action, Fault};
    let (env, devices) = five_devices();
    let refused = Action::Status {
        status: 400,
        headers: Vec::new(),
        body: Some(json!({ "errorCode": 400_000, "message": "not today" })),
    };
    env.emulator
        .inject(Fault::on("individual.put", refused))
        .unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let output = env.json(&["device", "block", "device-3"]);
            sender.send(output).unwrap();
        });
        until("the change is parked", || {
            let queue = env.json(&["push", "list"]);
            (queue[0]["parked"] == true).then_some(())
        });
        env.run(&["push", "retry", "device-3"]);
    });
    is_complete(&receiver.recv().unwrap(), 3);
    is_out(&env, &devices[2]);
}

//! Tests that an exclusion in force deletes again at hubs: where the hub was configured later,
//! where another program has undone the exclusion, and where an enrollment came later. Until then
//! no receipt calls the hub done.

use crate::device::{is_assigned, register};
use crate::process::until;
use crate::provisioned::below_line_1;
use crate::receipt_stories::{line, with_second_service};
use crate::request::{Holder, Request};
use crate::restored::{states, unknown};
use crate::test_env::TestEnv;
use dps_emulator::{Action, Emulator, Fault, Kind, Options};
use serde_json::{Value, json};

const LINE: [&str; 3] = ["line-1", "--generation", "1"];
const COMPROMISE: [&str; 4] = ["roll", "start", "--reason", "compromise"];
const SCANS: &str = "\n[policy]\nscan_interval = \"1s\"\n";

fn reload(env: &TestEnv, configuration: &str) {
    env.configure(configuration);
    env.run(&["reload"]);
}

fn without_hub(env: &TestEnv) -> String {
    let configuration = env.configuration();
    let (before, _) = configuration.split_once("[provisioning.hub]").unwrap();
    before.to_owned()
}

fn completes(env: &TestEnv, show: &[&str]) -> Value {
    until("the receipt is complete", || {
        let shown = env.json(show);
        (shown["receipt"]["complete"] == true).then_some(shown)
    })
}

fn is_out_at(emulator: &Emulator, device: &Holder) {
    let end = register(emulator, device);
    assert_ne!(end.as_deref(), Ok("assigned"), "{}", device.id);
}

/// A device, a group and a generation are blocked, and a device and an authority compromised, while
/// no hub is configured. Verifies: the hub is open; once it is configured, all identities are
/// deleted, and no receipt is complete before.
#[test]
fn a_hub_that_is_configured_after_an_exclusion_is_cleared() {
    let (env, devices) = below_line_1(&["press-1", "press-2", "press-3"]);
    let clears = |shows: &[&[&str]]| {
        reload(&env, &env.configuration());
        for show in shows {
            completes(&env, show);
        }
        until("the hub has no identity", || {
            let mut ids = devices.iter().map(|it| &it.id);
            ids.all(|id| env.emulator.hub_identity(id).is_none())
                .then_some(())
        });
    };
    reload(&env, &without_hub(&env));
    let blocked = env.json(&["device", "block", "press-1"]);
    assert_eq!(line(&blocked, "hub: dps")["code"], "hub_not_configured");
    let started = env.json(&[&COMPROMISE[..], &["press-2"]].concat());
    let roll = started["rolls"][0]["id"].to_string();
    env.run(&["enrollment", "block", "--group", "line-1"]);
    clears(&[
        &["block", "show", "group", "line-1"],
        &["block", "show", "device", "press-1"],
        &["roll", "show", &roll],
    ]);
    env.run(&["enrollment", "unblock", "--group", "line-1"]);
    env.wait_in_sync();

    is_assigned(&env.emulator, &devices[2]);
    reload(&env, &without_hub(&env));
    env.run(&[&["authority", "block"], &LINE[..]].concat());
    clears(&[&[&["block", "show", "generation"], &LINE[..]].concat()]);
    env.run(&[&["authority", "unblock"], &LINE[..]].concat());
    env.wait_in_sync();

    is_assigned(&env.emulator, &devices[2]);
    reload(&env, &without_hub(&env));
    let started = env.json(&[&COMPROMISE[..], &["--authority", "line-1"]].concat());
    let roll = started["rolls"][0]["id"].to_string();
    until("it is past its exclusion", || {
        let shown = env.json(&["roll", "show", &roll]);
        (shown["state"] != "excluding" && shown["state"] != "clearing").then_some(())
    });
    clears(&[&["roll", "show", &roll]]);
}

/// Two services with a hub each. The device is registered at both.
struct Two {
    env: TestEnv,
    other: Emulator,
    device: Holder,
}

impl Two {
    /// `press-1` below a group of `line-1` at both services.
    fn below_groups() -> Self {
        Self::with_groups(&["dps", "old"])
    }

    fn with_groups(services: &[&str]) -> Self {
        let env = TestEnv::new();
        let other = Emulator::start(Options::new(env.path("other-emulator"))).unwrap();
        env.write_secret("other-hub", &other.hub_connection_string());
        env.configure(&both(&env, &other));
        let env = env.started();
        for service in services {
            let add = ["enrollment", "add", "--group", "line-1"];
            let at = ["--authority", "line-1", "--provisioning", service];
            env.run(&[&add[..], &at].concat());
        }
        let root = env.authority("root");
        other.upload_authority("root-1", &root, true).unwrap();
        let device = env.station().obtain(&Request::device("press-1"));
        env.wait_in_sync();
        is_assigned(&env.emulator, &device);
        Self { env, other, device }
    }

    /// Configures the second service again.
    fn configure_both(&self) {
        reload(&self.env, &both(&self.env, &self.other));
    }
}

/// The configuration with both services.
fn both(env: &TestEnv, other: &Emulator) -> String {
    format!(
        "{}[provisioning.hub]\nendpoint = \"https://{}\"\naddress = \"{}\"\nca_bundle = \"{}\"\n\
         credential = \"{}\"\n{SCANS}",
        with_second_service(env, other),
        other.hub_host(),
        other.addr(),
        other.ca_file().display(),
        env.path("other-hub").display(),
    )
}

/// The deletion at a hub is under way when its service leaves the configuration. Verifies: the hub
/// stays in the receipts as open, and is cleared when it is configured again.
#[test]
fn a_hub_that_leaves_the_configuration_stays_in_the_receipt() {
    let two = Two::below_groups();
    let env = &two.env;
    is_assigned(&two.other, &two.device);
    let away = Fault::on("identity.delete", Action::status(503)).times(1_000);
    two.other.inject(away).unwrap();
    let block = json!({ "kind": "generation", "name": "line-1", "generation": 1 });
    let show = [&["block", "show", "generation"], &LINE[..]].concat();
    env.run(&[
        "enrollment",
        "remove",
        "--group",
        "line-1",
        "--provisioning",
        "old",
    ]);
    env.wait_in_sync();
    env.post("/v1/blocks", &block);
    until("the deletion is tried", || {
        (!two.other.requests_of("identity.delete").is_empty()).then_some(())
    });
    reload(env, &env.configuration());
    let shown = env.json(&show);
    assert_eq!(line(&shown, "hub: old")["code"], "hub_not_configured");
    assert_eq!(shown["receipt"]["complete"], false, "{shown:#}");
    two.other.clear_faults();
    two.configure_both();
    completes(env, &show);
    assert!(two.other.hub_identity("press-1").is_none());
}

/// A device is compromised while one of its two services is not configured. Verifies: service and
/// hub are open in the receipt; configured again, both answer, and only then it is complete.
#[test]
fn a_service_that_is_configured_after_a_compromise_is_in_its_receipt() {
    let two = Two::below_groups();
    let env = &two.env;
    is_assigned(&two.other, &two.device);
    reload(env, &env.configuration());
    let started = env.json(&[&COMPROMISE[..], &["press-1"]].concat());
    assert_eq!(line(&started, "dps: old")["code"], "service_not_configured");
    let roll = started["rolls"][0]["id"].to_string();

    let away = Fault::on("identity.delete", Action::status(503)).times(1_000);
    two.other.inject(away).unwrap();
    two.configure_both();
    let shown = until("the service follows", || {
        let shown = env.json(&["roll", "show", &roll]);
        let is_out = line(&shown, "dps: old")["code"] == "enrollment_disabled";
        is_out.then_some(shown)
    });
    assert_eq!(line(&shown, "hub: old")["state"], "pending", "{shown:#}");
    two.other.clear_faults();
    completes(env, &["roll", "show", &roll]);
    is_out_at(&two.other, &two.device);
    assert!(two.other.hub_identity("press-1").is_none());
}

/// Another client adds a group at a service where a compromised device has no enrollment; the group
/// is adopted, and the service rejects the enrollment beside it that excludes the device. Verifies:
/// the receipt is not complete until the service excludes the device and the hub has no identity.
#[test]
fn a_group_that_is_adopted_after_a_compromise_waits_for_the_device() {
    let two = Two::with_groups(&["dps"]);
    let env = &two.env;
    let started = env.json(&[&COMPROMISE[..], &["press-1"]].concat());
    let roll = started["rolls"][0]["id"].to_string();
    let show = ["roll", "show", &roll];
    completes(env, &show);

    add_group(&two.other, "theirs", &env.authority("line-1"));
    is_assigned(&two.other, &two.device);
    unknown(env, &["theirs"]);
    let rejected = Fault::on("individual.put", Action::status(400)).times(1_000);
    two.other.inject(rejected).unwrap();
    env.run(&[
        "enrollment",
        "adopt",
        "--group",
        "theirs",
        "--provisioning",
        "old",
    ]);
    let shown = until("the service rejects it", || {
        let shown = env.json(&show);
        (!states(&shown, "enrollment_parked").is_empty()).then_some(shown)
    });
    assert_eq!(shown["receipt"]["complete"], false, "{shown:#}");
    two.other.clear_faults();
    env.run(&["push", "retry", "press-1"]);
    completes(env, &show);
    is_out_at(&two.other, &two.device);
    assert!(two.other.hub_identity("press-1").is_none());
    // The comparison at the end of the test knows the first service alone.
    let remove = ["enrollment", "remove", "--group", "theirs"];
    env.run(&[&remove[..], &["--provisioning", "old"]].concat());
    env.wait_in_sync();
}

fn add_group(emulator: &Emulator, name: &str, certificate: &str) {
    let body = json!({
        "enrollmentGroupId": name,
        "provisioningStatus": "enabled",
        "attestation": { "type": "x509", "x509": {
            "signingCertificates": { "primary": { "certificate": certificate } },
        } },
    });
    let body = body.as_object().unwrap().clone();
    emulator.create_record(Kind::Group, name, body).unwrap();
}

/// A group that is not on record admits a blocked device, and is removed; the service puts that
/// off. Verifies: the receipt of the block stays open until the group is gone, and is complete only
/// when the hub has no identity of the device.
#[test]
fn a_removed_unknown_group_stays_in_the_receipt_of_a_device() {
    let two = Two::with_groups(&["dps"]);
    let env = &two.env;
    env.json(&["device", "block", "press-1"]);
    let show = ["block", "show", "device", "press-1"];
    completes(env, &show);

    add_group(&two.other, "theirs", &env.authority("line-1"));
    is_assigned(&two.other, &two.device);
    unknown(env, &["theirs"]);
    let away = Fault::on("group.delete", Action::status(503)).times(1_000);
    two.other.inject(away).unwrap();
    env.run(&[
        "enrollment",
        "remove",
        "--group",
        "theirs",
        "--provisioning",
        "old",
    ]);
    let shown = env.json(&show);
    assert_eq!(shown["receipt"]["complete"], false, "{shown:#}");
    two.other.clear_faults();
    completes(env, &show);
    assert!(two.other.group("theirs").is_none());
    assert!(two.other.hub_identity("press-1").is_none());
}

/// Another client enables what excludes a blocked device and a blocked generation, and the devices
/// register. Verifies: the daemon disables both again, and their identities are deleted again.
#[test]
fn an_exclusion_that_was_undone_deletes_again() {
    let (env, devices) = below_line_1(&["press-1", "press-2"]);
    let block_device = ["device", "block", "press-1"];
    let block_line = [&["authority", "block"], &LINE[..]].concat();
    let show_line = [&["block", "show", "generation"], &LINE[..]].concat();
    for (block, show, kind, name, device) in [
        (
            &block_device[..],
            &["block", "show", "device", "press-1"][..],
            Kind::Individual,
            "press-1",
            &devices[0],
        ),
        (&block_line, &show_line, Kind::Group, "line-1", &devices[1]),
    ] {
        reload(&env, &env.configuration());
        let blocked = env.json(block);
        assert_eq!(blocked["receipt"]["complete"], true, "{blocked:#}");
        let merge = json!({ "provisioningStatus": "enabled" });
        let merge = merge.as_object().unwrap().clone();
        env.emulator.edit_record(kind, name, merge).unwrap();
        is_assigned(&env.emulator, device);
        assert!(env.emulator.hub_identity(&device.id).is_some());
        reload(&env, &(env.configuration() + SCANS));
        until("it is excluded again", || {
            let record = match kind {
                Kind::Individual => env.emulator.individual(name),
                Kind::Group => env.emulator.group(name),
            };
            (record?["provisioningStatus"] == "disabled").then_some(())
        });
        completes(&env, show);
        assert!(env.emulator.hub_identity(&device.id).is_none(), "{name}");
    }
}

/// A device is compromised that has no enrollment at one of its services, and the hub there does
/// not answer. Verifies: that is an alarm, with the service and the device, until the hub has no
/// identity.
#[test]
fn a_hub_that_does_not_answer_at_a_service_without_a_roll_is_an_alarm() {
    let two = Two::with_groups(&["dps"]);
    let env = &two.env;
    let away = Fault::on("identity.get", Action::status(503)).times(1_000);
    two.other.inject(away).unwrap();
    let body = json!({ "registration_id": "press-1", "reason": "compromise" });
    env.post("/v1/rolls", &body);
    let pending = || {
        let status = env.json(&["status"]);
        let alarms = status["alarm_details"].as_array().unwrap().iter();
        let pending = alarms.filter(|it| it["code"] == "exclusion_pending");
        let parameters = pending.map(|it| it["parameters"].clone());
        parameters.collect::<Vec<_>>()
    };
    let alarm = until("it is an alarm with the reason", || {
        let pending = pending();
        let [alarm] = &pending[..] else { return None };
        (!alarm["reason"].is_null()).then(|| alarm.clone())
    });
    assert_eq!(alarm["subject"], "press-1", "{alarm}");
    assert_eq!(alarm["provisioning"], "old", "{alarm}");
    two.other.clear_faults();
    until("it is no alarm any more", || {
        pending().is_empty().then_some(())
    });
}

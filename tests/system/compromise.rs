//! Tests the compromise of a leaf: from the first answer on DPS and hub refuse it, and its device
//! comes back with a new key only.

use crate::device::{is_assigned, register};
use crate::invariants::held;
use crate::process::until;
use crate::provisioned::{below_line_1, individually};
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use dps_emulator::MethodAnswer;
use serde_json::{Value, json};
use std::path::Path;

/// Returns true if the hub has an identity for the device, with this leaf.
fn hub_knows(env: &TestEnv, device: &Holder) -> bool {
    let identity = env.emulator.hub_identity(&device.id);
    let shown =
        identity.map(|it| it["authentication"]["x509Thumbprint"]["primaryThumbprint"].clone());
    shown.is_some_and(|it| it == Value::String(device.thumbprint.clone()))
}

/// Asserts that both DPS and hub refuse the device.
fn is_out(env: &TestEnv, compromised: &Holder) {
    let registered = register(&env.emulator, compromised);
    assert_ne!(registered.as_deref(), Ok("assigned"), "{compromised:?}");
    assert!(!hub_knows(env, compromised), "the hub lets it in");
}

fn roll_state(env: &TestEnv, id: &Value) -> String {
    let shown = env.json(&["roll", "show", &id.to_string()]);
    shown["state"].as_str().unwrap().to_owned()
}

fn is_done(env: &TestEnv, id: &Value) {
    until("the roll is done", || {
        (roll_state(env, id) == "done").then_some(())
    });
}

/// An individually enrolled device that is provisioned.
fn individual() -> (TestEnv, Holder) {
    let (env, mut devices) = individually(&["press-7"]);
    (env, devices.remove(0))
}

/// A device of a group that is provisioned.
fn grouped() -> (TestEnv, Holder) {
    let (env, mut devices) = below_line_1(&["press-7"]);
    (env, devices.remove(0))
}

fn compromise(env: &TestEnv, more: &[&str]) -> Value {
    let report = ["roll", "start", "press-7", "--reason", "compromise"];
    env.json(&[&report, more].concat())
}

fn csr(env: &TestEnv, request: &Request) -> String {
    let path = env.write("new.csr", &request.csr);
    path.to_str().unwrap().to_owned()
}

fn slots(env: &TestEnv) -> [Option<String>; 2] {
    let record = env.emulator.individual("press-7").unwrap();
    ["primary", "secondary"].map(|slot| held(&record, slot))
}

/// Verifies: with no new request at hand the enrollment is disabled and the identity deleted when
/// the command answers; the compromised leaf cannot renew itself here either; a request with the
/// old key is refused; one with a new key restores the enrollment, which holds nothing else.
#[test]
fn a_compromised_leaf_is_excluded_when_the_command_answers() {
    let (env, compromised) = individual();
    let output = compromise(&env, &[]);
    is_out(&env, &compromised);
    assert_eq!(output["receipt"]["complete"], true, "{output}");
    let places: Vec<_> = output["receipt"]["places"]
        .as_array()
        .unwrap()
        .iter()
        .collect();
    let names: Vec<_> = places
        .iter()
        .map(|it| it["place"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["crl", "dps: dps", "hub: dps"], "{output}");

    let itself = env.caller(&compromised).ask(&Request::device("press-7"));
    assert_eq!(
        (itself.status, itself.code()),
        (401, "client_certificate_revoked")
    );
    let mut old_key = Request::device("press-7");
    old_key.csr = rcgen_request(&compromised);
    let refused = env.station().ask(&old_key);
    assert_eq!((refused.status, refused.code()), (400, "key_compromised"));

    let id = &output["rolls"][0]["id"];
    until("it waits for a request", || {
        (roll_state(&env, id) == "reissuing").then_some(())
    });
    let renewed = env.station().obtain(&Request::device("press-7"));
    is_done(&env, id);
    env.wait_in_sync();
    assert_eq!(slots(&env), [Some(renewed.thumbprint.clone()), None]);
    is_assigned(&env.emulator, &renewed);
    assert!(hub_knows(&env, &renewed));
    is_refused_by_service_and_hub(&env, &compromised);
}

/// By then the hub has an identity with the new leaf.
fn is_refused_by_service_and_hub(env: &TestEnv, compromised: &Holder) {
    assert_ne!(
        register(&env.emulator, compromised).as_deref(),
        Ok("assigned")
    );
}

/// A request with the key of a leaf.
pub(crate) fn rcgen_request(holder: &Holder) -> String {
    let key = rcgen::KeyPair::from_pem(&holder.key).unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.serialize_request(&key).unwrap().pem().unwrap()
}

/// Verifies: the new leaf replaces the compromised one at once, in the same slot, and its chain is
/// written to the named file.
#[test]
fn with_a_request_at_hand_the_compromised_slot_is_replaced_at_once() {
    let (env, compromised) = individual();
    let request = Request::device("press-7");
    let (csr, out) = (csr(&env, &request), env.path("new.pem"));
    let out = out.to_str().unwrap();
    let output = compromise(&env, &["--csr", &csr, "--profile", "device", "--out", out]);
    is_out(&env, &compromised);
    let renewed = request.holder(&output["certificate"]);
    assert_eq!(slots(&env), [Some(renewed.thumbprint.clone()), None]);
    let written = std::fs::read_to_string(Path::new(out)).unwrap();
    assert!(written.starts_with(&renewed.certificate), "{written}");
    is_assigned(&env.emulator, &renewed);
    is_done(&env, &output["rolls"][0]["id"]);
}

/// Verifies: a compromise overtakes an expiry rollover and takes over its slots; with one slot
/// compromised the other goes on, and DPS accepts its device without a break.
#[test]
fn a_compromise_overtakes_an_expiry_roll_and_spares_the_good_slot() {
    let (env, old) = individual();
    let new = env.station().obtain(&Request::device("press-7"));
    until("DPS accepts both leaves", || {
        let shown = env.json(&["enrollment", "show", "press-7"]);
        (shown[0]["slots"]["state"] == "draining").then_some(())
    });
    let output = compromise(&env, &["--slot", "primary"]);
    assert_eq!(output["receipt"]["complete"], true, "{output}");
    is_out(&env, &old);
    assert_eq!(slots(&env), [None, Some(new.thumbprint.clone())]);
    is_assigned(&env.emulator, &new);
    is_done(&env, &output["rolls"][0]["id"]);
    let rolls = env.json(&["roll", "list"]);
    let states: Vec<_> = rolls
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["state"].clone())
        .collect();
    assert_eq!(states, ["done", "aborted"]);
}

/// Verifies: with `--hub reprovision` the identity stays until the device registers again.
#[test]
fn the_hub_identity_stays_where_that_was_asked_for() {
    let (env, compromised) = individual();
    let request = Request::device("press-7");
    let csr = csr(&env, &request);
    let output = compromise(
        &env,
        &["--hub", "reprovision", "--csr", &csr, "--profile", "device"],
    );
    assert!(hub_knows(&env, &compromised));
    assert!(
        output["receipt"]["places"][2]["answer"]
            .to_string()
            .contains("as asked"),
        "{output}"
    );
    let renewed = request.holder(&output["certificate"]);
    is_assigned(&env.emulator, &renewed);
    assert!(hub_knows(&env, &renewed) && !hub_knows(&env, &compromised));
}

/// Verifies: the expiry of a leaf under a group changes nothing at the service, and the daemon says
/// why; DPS accepts the new leaf.
#[test]
fn under_a_group_an_expiry_changes_nothing_and_says_why() {
    let (env, _) = grouped();
    let writes = env.emulator.requests_of("group.put").len();
    let output = env.json(&["roll", "start", "press-7", "--reason", "expiry"]);
    assert_eq!(output["rolls"], json!([]));
    let proof = &output["under_groups"][0];
    assert_eq!(
        (&proof["proven"], &proof["group"], &proof["chain"]),
        (
            &json!(true),
            &json!("line-1"),
            &json!(["line-1", "plant", "root"])
        )
    );
    let renewed = env.station().obtain(&Request::device("press-7"));
    is_assigned(&env.emulator, &renewed);
    assert!(env.emulator.individual("press-7").is_none());
    assert_eq!(env.emulator.requests_of("group.put").len(), writes);
}

/// Verifies: by precedence DPS refuses the compromised leaf although its chain is good; it accepts
/// the new leaf by the device's own enrollment; a return to the group is refused while the
/// compromised leaf is valid, unless an operator gives a reason.
#[test]
fn under_a_group_a_compromised_leaf_is_excluded_by_precedence() {
    let (env, compromised) = grouped();
    let neighbour = env.station().obtain(&Request::device("press-8"));
    let output = compromise(&env, &[]);
    is_out(&env, &compromised);
    is_assigned(&env.emulator, &neighbour);
    let shown = env.json(&["enrollment", "show", "press-7"]);
    assert_eq!(shown[0]["overlay_of"], "line-1");

    let renewed = env.station().obtain(&Request::device("press-7"));
    is_done(&env, &output["rolls"][0]["id"]);
    env.wait_in_sync();
    is_assigned(&env.emulator, &renewed);
    is_refused_by_service_and_hub(&env, &compromised);

    let back = ["enrollment", "remove", "--individual", "press-7"];
    let refused = env.hallmark(&back);
    assert!(
        refused.code == Some(1) && refused.error.contains("enrollment_excludes"),
        "{refused:?}"
    );
    env.run(&[&back[..], &["--override", "the key was destroyed"]].concat());
    env.wait_in_sync();
    assert!(env.emulator.individual("press-7").is_none());
    is_assigned(&env.emulator, &renewed);
    let audit = env.run(&["audit", "export"]);
    assert!(audit.contains("the key was destroyed"), "{audit}");
}

/// Policy starts the rollover before the leaf's end, and notifies the renewed device; one that does
/// not hear it is counted, and is called again.
#[test]
fn policy_starts_rolls_and_notifies_devices() {
    let (mut env, _) = individually(&["press-7", "press-8"]);
    let (status, payload) = (200, json!({}));
    let answer = MethodAnswer { status, payload };
    env.emulator.simulate_device("press-7", answer);
    let configuration = env.configuration();
    env.configure(&format!(
        "{configuration}\n[policy]\nrenew_before = \"91d\"\nrenew_jitter = \"0s\"\n\
         tell_devices = \"method\"\n"
    ));
    env.restart();
    let station = env.station_called("station-2");
    for id in ["press-7", "press-8"] {
        station.obtain(&Request::device(id));
    }
    until("one has answered, and one is called again later", || {
        let rolls = env.json(&["roll", "list", "--open"]);
        let rolls = rolls.as_array().unwrap();
        let mut output: Vec<_> = rolls
            .iter()
            .map(|roll| roll["hub_progress"].as_str())
            .collect();
        output.sort_unstable();
        let [Some(offline), Some("1 of 1 done, 1 notified")] = output[..] else {
            return None;
        };
        offline.starts_with("0 of 1 done, 1 offline").then_some(())
    });
}

/// The report names a slot that holds no leaf, or that the device of a group does not have, or an
/// option that is not known. Verifies: the device is excluded all the same, by all its leaves, and
/// the answer says what was wrong.
#[test]
fn a_report_with_wrong_options_excludes_first() {
    let secondary = ["--slot", "secondary"];
    let report = ["roll", "start", "press-7", "--reason", "compromise"];
    for (env, device) in [individual(), grouped()] {
        let output = env.hallmark(&[&report[..], &secondary].concat());
        is_out(&env, &device);
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.error.contains("roll_slot_invalid"), "{output:?}");
    }
    let (env, device) = grouped();
    let body = json!({
        "registration_id": "press-7", "reason": "compromise", "slot": "third", "hub": 7,
    });
    let answer = env.post("/v1/rolls", &body);
    is_out(&env, &device);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let problems = answer["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 2, "{answer:#}");
}

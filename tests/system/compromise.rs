//! A leaf in wrong hands: it is refused at the provisioning service and at the hub from the first
//! answer on, and its device comes back with a new key only.

use crate::device::{is_assigned, register};
use crate::invariants::held;
use crate::process::until;
use crate::provisioned::{below_line_1, individually};
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use dps_emulator::MethodAnswer;
use serde_json::{Value, json};
use std::path::Path;

/// The hub knows the device, by this leaf.
fn hub_knows(env: &TestEnv, device: &Holder) -> bool {
    let identity = env.emulator.hub_identity(&device.id);
    let shown =
        identity.map(|it| it["authentication"]["x509Thumbprint"]["primaryThumbprint"].clone());
    shown.is_some_and(|it| it == Value::String(device.thumbprint.clone()))
}

/// Refused at both doors.
fn is_out(env: &TestEnv, breached: &Holder) {
    let registered = register(&env.emulator, breached);
    assert_ne!(registered.as_deref(), Ok("assigned"), "{breached:?}");
    assert!(!hub_knows(env, breached), "the hub lets it in");
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

fn breach(env: &TestEnv, more: &[&str]) -> Value {
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
/// the command answers; the compromised leaf cannot renew itself here either; a request with the old
/// key is refused; one with a new key restores the enrollment, which holds nothing else.
#[test]
fn a_breached_leaf_is_out_when_the_command_answers() {
    let (env, breached) = individual();
    let output = breach(&env, &[]);
    is_out(&env, &breached);
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

    let itself = env.caller(&breached).ask(&Request::device("press-7"));
    assert_eq!(
        (itself.status, itself.code()),
        (401, "client_certificate_revoked")
    );
    let mut old_key = Request::device("press-7");
    old_key.csr = rcgen_request(&breached);
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
    is_out_of_service(&env, &breached);
}

/// The hub knows the device by its new leaf by now.
fn is_out_of_service(env: &TestEnv, breached: &Holder) {
    assert_ne!(register(&env.emulator, breached).as_deref(), Ok("assigned"));
}

fn rcgen_request(holder: &Holder) -> String {
    let key = rcgen::KeyPair::from_pem(&holder.key).unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.serialize_request(&key).unwrap().pem().unwrap()
}

/// Verifies: the new leaf takes the compromised one's place at once, in the same slot, and its chain
/// is written where it was asked for.
#[test]
fn with_a_request_at_hand_the_breached_slot_is_replaced_at_once() {
    let (env, breached) = individual();
    let request = Request::device("press-7");
    let (csr, out) = (csr(&env, &request), env.path("new.pem"));
    let out = out.to_str().unwrap();
    let output = breach(&env, &["--csr", &csr, "--profile", "device", "--out", out]);
    is_out(&env, &breached);
    let renewed = request.holder(&output["certificate"]);
    assert_eq!(slots(&env), [Some(renewed.thumbprint.clone()), None]);
    let written = std::fs::read_to_string(Path::new(out)).unwrap();
    assert!(written.starts_with(&renewed.certificate), "{written}");
    is_assigned(&env.emulator, &renewed);
    is_done(&env, &output["rolls"][0]["id"]);
}

/// Verifies: a compromise overtakes a roll by expiry and takes over its slots; with one slot
/// compromised the other goes on, and its device is let in without a break.
#[test]
fn a_compromise_overtakes_an_expiry_roll_and_spares_the_good_slot() {
    let (env, old) = individual();
    let new = env.station().obtain(&Request::device("press-7"));
    until("both leaves are let in", || {
        let shown = env.json(&["enrollment", "show", "press-7"]);
        (shown[0]["slots"]["state"] == "draining").then_some(())
    });
    let output = breach(&env, &["--slot", "primary"]);
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
    let (env, breached) = individual();
    let request = Request::device("press-7");
    let csr = csr(&env, &request);
    let output = breach(
        &env,
        &["--hub", "reprovision", "--csr", &csr, "--profile", "device"],
    );
    assert!(hub_knows(&env, &breached));
    assert!(
        output["receipt"]["places"][2]["answer"]
            .to_string()
            .contains("as asked"),
        "{output}"
    );
    let renewed = request.holder(&output["certificate"]);
    is_assigned(&env.emulator, &renewed);
    assert!(hub_knows(&env, &renewed) && !hub_knows(&env, &breached));
}

/// Verifies: a leaf under a group that comes to its end changes nothing at the service, and the
/// daemon says why; the new leaf is let in.
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

/// Verifies: precedence shuts the compromised leaf out although its chain is good; the new leaf is let
/// in by the device's own enrollment; back to the group is refused while the compromised leaf is valid,
/// unless somebody says why not.
#[test]
fn under_a_group_a_breached_leaf_is_out_by_precedence() {
    let (env, breached) = grouped();
    let neighbour = env.station().obtain(&Request::device("press-8"));
    let output = breach(&env, &[]);
    is_out(&env, &breached);
    is_assigned(&env.emulator, &neighbour);
    let shown = env.json(&["enrollment", "show", "press-7"]);
    assert_eq!(shown[0]["overlay_of"], "line-1");

    let renewed = env.station().obtain(&Request::device("press-7"));
    is_done(&env, &output["rolls"][0]["id"]);
    env.wait_in_sync();
    is_assigned(&env.emulator, &renewed);
    is_out_of_service(&env, &breached);

    let back = ["enrollment", "remove", "--individual", "press-7"];
    let refused = env.hallmark(&back);
    assert!(
        refused.code == Some(1) && refused.error.contains("enrollment_shuts_out"),
        "{refused:?}"
    );
    env.run(&[&back[..], &["--override", "the key was destroyed"]].concat());
    env.wait_in_sync();
    assert!(env.emulator.individual("press-7").is_none());
    is_assigned(&env.emulator, &renewed);
    let audit = env.run(&["audit", "export"]);
    assert!(audit.contains("the key was destroyed"), "{audit}");
}

/// Policy starts the roll before the leaf's end, and tells the device; one that is not there to
/// hear it is counted, and not given up.
#[test]
fn policy_starts_rolls_and_tells_devices() {
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
    until("one has answered, and one is called again later", || {
        let rolls = env.json(&["roll", "list", "--open"]);
        let rolls = rolls.as_array().unwrap();
        let mut output: Vec<_> = rolls.iter().map(|roll| roll["told"].as_str()).collect();
        output.sort_unstable();
        let [Some(offline), Some("1 of 1 done, 1 told")] = output[..] else {
            return None;
        };
        offline.starts_with("0 of 1 done, 1 offline").then_some(())
    });
}

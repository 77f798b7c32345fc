//! Tests the compromise of authorities: when the command answers, DPS and hub refuse every leaf
//! below the authority, and devices come back with new certificates only.

use crate::authority_roll::{
    begun, ca_certificates, comes_to, roll_below, second_signs, shown, slots, start, thumbprint,
    under_the_root,
};
use crate::device::{is_assigned, register};
use crate::invariants::held;
use crate::prober::Prober;
use crate::process::until;
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use dps_emulator::{Action, Aim, Fault};
use serde_json::Value;

/// Returns true if the hub has an identity for the device.
fn hub_knows(env: &TestEnv, device: &Holder) -> bool {
    env.emulator.hub_identity(&device.id).is_some()
}

/// Asserts that each place of a receipt is done.
fn is_complete(receipt: &Value) {
    assert_eq!(receipt["complete"], true, "{receipt}");
    for place in receipt["places"].as_array().unwrap() {
        assert_eq!(place["state"], "done", "{receipt}");
    }
}

fn compromise(env: &TestEnv, authority: &str) -> Value {
    let report = [
        "roll",
        "start",
        "--authority",
        authority,
        "--reason",
        "compromise",
    ];
    let started = env.json(&report);
    if started["receipt"]["complete"] != true {
        for roll in started["rolls"].as_array().unwrap() {
            eprintln!(
                "{}: {} {}",
                roll["authority"], roll["state"], roll["waits_for"]
            );
        }
    }
    is_complete(&started["receipt"]);
    started
}

/// Asserts that DPS refuses the device.
fn is_out(env: &TestEnv, device: &Holder) {
    let end = register(&env.emulator, device);
    assert_ne!(end.as_deref(), Ok("assigned"), "{}", device.id);
}

/// Asserts that a disabled group of its own holds the certificate.
fn is_excluded_by_its_own_group(env: &TestEnv, authority: &str) {
    env.wait_in_sync();
    let name = format!("{authority}-blocked-1");
    let blocked = env.emulator.group(&name).expect("it is barred");
    assert_eq!(blocked["provisioningStatus"], "disabled");
    assert_eq!(held(&blocked, "primary"), thumbprint(env, authority, 1));
}

/// The intermediate has no group of its own; the group of the root accepts every leaf below it.
/// Verifies: from the answer on, DPS refuses a leaf under the compromised certificate for good; the
/// device comes back with a new leaf.
#[test]
fn a_compromised_intermediate_is_excluded_from_the_group_above() {
    let mut env = TestEnv::new();
    let compromised = under_the_root(&mut env);
    let started = compromise(&env, "line-1");
    is_out(&env, &compromised);
    assert!(!hub_knows(&env, &compromised));
    is_excluded_by_its_own_group(&env, "line-1");
    let roll = started["rolls"][0]["id"].to_string();
    until("the successor signs", || {
        second_signs(&env, "line-1").then_some(())
    });
    let new = env.enlist_when_possible("device", "press-1");
    is_assigned(&env.emulator, &new);
    comes_to(&env, &roll, "done");
    is_excluded_by_its_own_group(&env, "line-1");
    is_out(&env, &compromised);
}

/// The generation before the serving one is compromised, while both are in the group's slots.
/// Verifies: from the answer on, DPS refuses the old leaf, at the group above as well.
#[test]
fn a_compromised_earlier_generation_is_excluded_from_the_group_above() {
    let mut env = TestEnv::new();
    let old = under_the_root(&mut env);
    env.add_group("line-1", "line-1");
    env.wait_in_sync();
    let roll = start(&env, "line-1", "expiry", &[]);
    comes_to(&env, &roll, "draining");
    is_assigned(&env.emulator, &old);
    let report = [
        "roll",
        "start",
        "--authority",
        "line-1",
        "--generation",
        "1",
    ];
    let started = env.json(&[&report[..], &["--reason", "compromise"]].concat());
    is_complete(&started["receipt"]);
    is_out(&env, &old);
    is_excluded_by_its_own_group(&env, "line-1");
    let new = env.enlist_when_possible("device", "press-1");
    is_assigned(&env.emulator, &new);
}

/// An intermediate is compromised under a root whose group would accept every leaf below it.
/// Verifies: from the answer on, DPS refuses a leaf under the intermediate, and the hub has no
/// identity for it; a disabled group of its own excludes the certificate; the device comes back
/// with a new leaf.
#[test]
fn a_compromised_intermediate_is_excluded_when_the_command_answers() {
    let mut env = TestEnv::new();
    let compromised = under_the_root(&mut env);
    env.add_group("line-1", "line-1");
    env.wait_in_sync();
    is_assigned(&env.emulator, &compromised);

    let started = compromise(&env, "line-1");
    is_out(&env, &compromised);
    assert!(!hub_knows(&env, &compromised));
    let roll = started["rolls"][0]["id"].to_string();
    let reissuing = comes_to(&env, &roll, "reissuing");
    assert_eq!(
        reissuing["report"]["reissue"][0]["registration_id"],
        "press-1"
    );
    until("the successor has the slot", || {
        let [primary, secondary] = slots(&env, "line-1");
        (primary == thumbprint(&env, "line-1", 2) && secondary.is_none()).then_some(())
    });
    env.wait_in_sync();
    let blocked = env.emulator.group("line-1-blocked-1").unwrap();
    assert_eq!(blocked["provisioningStatus"], "disabled");
    assert_eq!(held(&blocked, "primary"), thumbprint(&env, "line-1", 1));
    is_out(&env, &compromised);

    let new = env.station().obtain(&Request::device("press-1"));
    is_assigned(&env.emulator, &new);
    comes_to(&env, &roll, "done");
    is_out(&env, &compromised);
}

/// A draining generation is compromised. Verifies: a device that has renewed itself under the next
/// generation, and whose old leaf is still in the hub, loses its identity too; it comes back with
/// the leaf that it has.
#[test]
fn a_device_on_the_next_generation_is_cleared_with_the_compromised_one() {
    let env = begun(TestEnv::new());
    let station = env.station();
    let old = station.obtain(&Request::device("press-1"));
    let roll = start(&env, "line-1", "expiry", &[]);
    comes_to(&env, &roll, "draining");
    let new = station.obtain(&Request::device("press-1"));
    env.wait_in_sync();
    is_assigned(&env.emulator, &old);

    let report = [
        "--authority",
        "line-1",
        "--generation",
        "1",
        "--reason",
        "compromise",
    ];
    let started = env.json(&[&["roll", "start"], &report[..]].concat());
    is_complete(&started["receipt"]);
    assert!(!hub_knows(&env, &old));
    is_out(&env, &old);
    is_assigned(&env.emulator, &new);
}

/// A root is compromised. Verifies: DPS has no such CA certificate when the command answers, so it
/// accepts nothing below it; the new root is verified and referenced; the hierarchy below it is
/// reissued.
#[test]
fn a_compromised_root_is_deleted_first_and_the_hierarchy_comes_back() {
    let mut env = TestEnv::new();
    let compromised = under_the_root(&mut env);
    let started = compromise(&env, "root");
    assert_eq!(started["rolls"].as_array().unwrap().len(), 4);
    is_out(&env, &compromised);
    assert!(!hub_knows(&env, &compromised));
    let station = env.enlist_when_possible("station", "station-2");
    let new = until("a new leaf", || {
        let request = Request::device("press-1");
        // HTTPS is closed until the listener has a certificate below the new root.
        let answer = env.caller(&station).try_ask(&request).ok()?;
        (answer.status == 201).then(|| request.holder(&answer.body))
    });
    for roll in started["rolls"].as_array().unwrap() {
        comes_to(&env, &roll["id"].to_string(), "done");
    }
    assert_eq!(ca_certificates(&env), ["root-2"]);
    is_assigned(&env.emulator, &new);
    is_out(&env, &compromised);
}

/// DPS refuses all changes for a while, and the device gets its new leaf during that time.
/// Verifies: its identity in the hub is deleted all the same, because it was made with the
/// compromised leaf.
#[test]
fn an_identity_goes_although_its_device_has_a_new_leaf_already() {
    let env = begun(TestEnv::new());
    let compromised = env.station().obtain(&Request::device("press-1"));
    is_assigned(&env.emulator, &compromised);
    let away = Fault::on("group.put", Action::status(503)).times(1_000);
    env.emulator.inject(away).unwrap();
    let operator = compromise_in_background(&env, "line-1");
    until("the successor signs", || {
        second_signs(&env, "line-1").then_some(())
    });
    let new = env.enlist("device", "press-1");
    assert!(
        hub_knows(&env, &compromised),
        "the identity was deleted too early"
    );
    answers(&env, operator);
    assert!(!hub_knows(&env, &compromised));
    is_out(&env, &compromised);
    env.wait_in_sync();
    is_assigned(&env.emulator, &new);
}

/// DPS keeps the compromised root for a while and accepts no other, and a device of the line goes
/// on registering. Verifies: its identity is deleted after the root is gone, and not before, so it
/// does not come back.
#[test]
fn identities_below_a_root_go_after_the_root() {
    let mut env = TestEnv::new();
    let compromised = under_the_root(&mut env);
    for operation in ["authority.delete", "authority.put"] {
        let away = Fault::on(operation, Action::status(503)).times(1_000);
        env.emulator.inject(away).unwrap();
    }
    let operator = compromise_in_background(&env, "root");
    until("the service was asked to delete the root", || {
        let asked = env.emulator.requests_of("authority.delete");
        (asked.len() > 1).then_some(())
    });
    is_assigned(&env.emulator, &compromised);
    let prober = Prober::excluded(&env, std::slice::from_ref(&compromised));
    assert_eq!(env.count("hub_task WHERE done_at IS NOT NULL"), 0);
    answers(&env, operator);
    assert!(!hub_knows(&env, &compromised));
    prober.ends();
    assert!(!hub_knows(&env, &compromised));
}

/// DPS accepts a certificate in one group only. Between the write by which the compromised
/// certificate leaves its group and the write that blocks it, a group above accepts its leaves;
/// here the second write is slow. Verifies: a device that registered in between is excluded when
/// the command answers, at the hub as well.
#[test]
fn a_device_that_registered_before_the_block_is_excluded_when_the_command_answers() {
    let mut env = TestEnv::new();
    let compromised = under_the_root(&mut env);
    env.add_group("line-1", "line-1");
    env.wait_in_sync();
    let fault = Fault::on("group.put", Action::status(503)).times(1_000);
    let aim = Aim {
        path_contains: Some("line-1-blocked-".into()),
        ..fault.aim
    };
    env.emulator.inject(Fault { aim, ..fault }).unwrap();
    let operator = compromise_in_background(&env, "line-1");
    until("the group above accepts it", || {
        let end = register(&env.emulator, &compromised);
        // The first clearing may come between the two.
        let is_in = end.as_deref() == Ok("assigned") && hub_knows(&env, &compromised);
        (second_signs(&env, "line-1") && is_in).then_some(())
    });
    answers(&env, operator);
    assert!(!hub_knows(&env, &compromised));
    is_out(&env, &compromised);
    let roll = env.json(&["roll", "list"])[0]["id"].to_string();
    let new = env.enlist("device", "press-1");
    is_assigned(&env.emulator, &new);
    comes_to(&env, &roll, "done");
}

/// The report of a compromise; another thread waits for its receipt.
fn compromise_in_background(env: &TestEnv, authority: &'static str) -> std::thread::JoinHandle<()> {
    let client = env.client();
    std::thread::spawn(move || {
        let report = ["--json", "roll", "start", "--authority", authority];
        let output = client.hallmark(&[&report[..], &["--reason", "compromise"]].concat());
        is_complete(&serde_json::from_str::<Value>(&output.out).unwrap()["receipt"]);
    })
}

/// DPS answers again, and so does the command that the operator waits for.
fn answers(env: &TestEnv, operator: std::thread::JoinHandle<()>) {
    env.emulator.clear_faults();
    env.run(&["push", "retry"]);
    operator.join().unwrap();
}

/// A compromise overtakes an expiry rollover, and takes over the generation that it has staged.
#[test]
fn a_compromise_overtakes_an_open_roll() {
    let env = begun(TestEnv::new());
    let unseen = Fault::on("device.register", Action::status(500));
    for _ in 0..20 {
        env.emulator.inject(unseen.clone()).unwrap();
    }
    let overtaken = start(&env, "line-1", "expiry", &[]);
    comes_to(&env, &overtaken, "staged");
    let again = [
        "roll",
        "start",
        "--authority",
        "line-1",
        "--reason",
        "expiry",
    ];
    assert_eq!(
        env.hallmark(&again).code,
        Some(1),
        "two rolls of one authority"
    );
    let roll = compromise(&env, "line-1")["rolls"][0]["id"].to_string();
    assert_eq!(shown(&env, &overtaken)["state"], "aborted");
    env.emulator.clear_faults();
    comes_to(&env, &roll, "done");
    assert_eq!(slots(&env, "line-1")[1], thumbprint(&env, "line-1", 2));
    assert_eq!(env.count("generation WHERE authority = 'line-1'"), 2);
}

/// The plant is rolled for expiry, and its rollover and that of the line drain while a device has
/// the old leaf. The plant's old generation is compromised. Verifies: the identity of the device is
/// deleted when the command answers, and the receipt counts it, although the rollover of the line,
/// which clears nothing, is under way below the compromise.
#[test]
fn identities_below_a_rollover_for_expiry_go_with_its_issuer() {
    let env = begun(TestEnv::new());
    // With a group of its own the plant drains until its old certificate expires.
    env.add_group("plant", "plant");
    env.wait_in_sync();
    let old = env.station().obtain(&Request::device("press-1"));
    is_assigned(&env.emulator, &old);
    let plant = start(&env, "plant", "expiry", &[]);
    comes_to(&env, &plant, "draining");
    let line = roll_below(&env, "line-1");
    comes_to(&env, &line, "draining");

    let report = ["roll", "start", "--authority", "plant", "--generation", "1"];
    let started = env.json(&[&report[..], &["--reason", "compromise"]].concat());
    is_complete(&started["receipt"]);
    assert!(!hub_knows(&env, &old));
    is_out(&env, &old);
    // Both were under way: the compromise has ended that of the plant, and taken over the other.
    assert_eq!(shown(&env, &plant)["state"], "aborted");
    let compromise = started["rolls"][0]["id"].to_string();
    let below = format!("roll WHERE id = {line} AND reason = 'expiry' AND parent = {compromise}");
    assert_eq!(env.count(&below), 1);
    let places = started["receipt"]["places"].as_array().unwrap();
    let hub = places.iter().find(|it| it["place"] == "hub: dps").unwrap();
    assert_eq!(hub["parameters"]["total"], 1, "{hub}");
}

/// The rollover of the plant for expiry has ended, and the line below drains with both of its
/// certificates in its group. The old generation of the plant is compromised, and the service
/// refuses the change of that group. Verifies: the receipt has the group as open, and the identity
/// stays until the service follows; then both go.
#[test]
fn a_compromise_waits_for_a_group_below_that_is_rolled_for_expiry() {
    let env = begun(TestEnv::new());
    let old = env.station().obtain(&Request::device("press-1"));
    is_assigned(&env.emulator, &old);
    start(&env, "plant", "expiry", &[]);
    let line = roll_below(&env, "line-1");
    comes_to(&env, &line, "draining");
    let mut refused = Fault::on("group.put", Action::status(400)).times(1_000);
    refused.aim.path_contains = Some("line-1".into());
    env.emulator.inject(refused).unwrap();

    let report = ["roll", "start", "--authority", "plant", "--generation", "1"];
    let started = env.json(&[&report[..], &["--reason", "compromise"]].concat());
    let receipt = &started["receipt"];
    assert_eq!(receipt["complete"], false, "{started:#}");
    let places = receipt["places"].as_array().unwrap();
    let group = places.iter().find(|it| it["code"] == "enrollment_parked");
    assert_eq!(group.unwrap()["state"], "open", "{started:#}");
    is_assigned(&env.emulator, &old);
    assert!(hub_knows(&env, &old));

    env.emulator.clear_faults();
    env.run(&["push", "retry", "line-1"]);
    let roll = started["rolls"][0]["id"].to_string();
    until("the receipt is complete", || {
        (shown(&env, &roll)["receipt"]["complete"] == true).then_some(())
    });
    assert!(!hub_knows(&env, &old));
    is_out(&env, &old);
}

//! Tests the open places of the compromise of an authority: the changes of another client, and
//! what DPS rejects.

use crate::authority_roll::{ca_certificates, comes_to, roll_below, shown, start, under_the_root};
use crate::device::{is_assigned, register};
use crate::excluded::is_out;
use crate::process::until;
use crate::provisioned::individually;
use crate::receipt_stories::has_a_third_group;
use crate::test_env::TestEnv;
use dps_emulator::{Action, Fault, Kind};
use serde_json::{Value, json};

/// Another client has disabled the enrollment of a device that was on a draining generation and has
/// a leaf of the next one alone. Verifies: the compromise of the draining generation does not wait
/// for that; for an enrollment that this client gave the old leaf back it does, and its place is
/// open, with its name.
#[test]
fn a_changed_enrollment_delays_a_compromise_only_with_an_excluded_leaf() {
    let env = TestEnv::new();
    env.configure(&(env.configuration() + "\n[policy]\nscan_interval = \"1s\"\n"));
    let env = env.started();
    let ids = ["press-7", "press-8"];
    for id in ids {
        env.run(&["enrollment", "add", "--individual", id]);
    }
    let old = ids.map(|id| env.enlist("device", id));
    env.wait_in_sync();
    let roll = start(&env, "line-1", "expiry", &[]);
    comes_to(&env, &roll, "draining");
    for id in ids {
        env.run(&["roll", "start", id, "--reason", "compromise"]);
        env.enlist("device", id);
    }
    env.wait_in_sync();
    let change = |id: &str, merge: Value| {
        let merge = merge.as_object().unwrap().clone();
        env.emulator
            .edit_record(Kind::Individual, id, merge)
            .unwrap();
        until("the difference is found", || {
            let shown = env.json(&["enrollment", "show", id]);
            (shown[0]["state"] == "drifted").then_some(())
        });
    };
    change("press-7", json!({ "provisioningStatus": "disabled" }));
    let roll = start(&env, "line-1", "compromise", &["--generation", "1"]);
    let excluded = shown(&env, &roll);
    assert_eq!(excluded["receipt"]["complete"], true, "{excluded}");
    assert_ne!(register(&env.emulator, &old[0]).as_deref(), Ok("assigned"));
    comes_to(&env, &roll, "done");

    let x509 =
        json!({ "clientCertificates": { "primary": { "certificate": old[1].certificate } } });
    change(
        "press-8",
        json!({ "attestation": { "type": "x509", "x509": x509 } }),
    );
    let shown = shown(&env, &roll);
    let places = shown["receipt"]["places"].as_array().unwrap();
    let open: Vec<_> = places.iter().filter(|it| it["state"] != "done").collect();
    assert_eq!(open.len(), 1, "{shown}");
    assert_eq!(open[0]["state"], "open", "{shown}");
    assert_eq!(open[0]["code"], "enrollment_drifted", "{shown}");
    assert_eq!(open[0]["parameters"]["name"], "press-8", "{shown}");
}

/// DPS rejects the deletion of a compromised root's CA certificate. Verifies: its place is open,
/// with its name and the reason, until the deletion is retried.
#[test]
fn a_rejected_deletion_of_a_ca_certificate_is_open() {
    let env = TestEnv::running();
    env.wait_in_sync();
    let rejected = Action::status(400);
    let fault = Fault::on("authority.delete", rejected);
    env.emulator.inject(fault).unwrap();
    let roll = start(&env, "root", "compromise", &[]);
    let place = || {
        let shown = shown(&env, &roll);
        let mut places = shown["receipt"]["places"].as_array().unwrap().iter();
        let is_it = |it: &&Value| it["parameters"]["ca_certificate"] == "root-1";
        places.find(is_it).cloned()
    };
    let parked = until("it is parked", || {
        let queue = env.json(&["push", "list"]);
        (queue[0]["parked"] == true).then(place).flatten()
    });
    assert_eq!(parked["code"], "ca_certificate_parked", "{parked}");
    assert_eq!(parked["state"], "open", "{parked}");
    assert!(!parked["parameters"]["reason"].is_null(), "{parked}");
    env.run(&["push", "retry", "root-1"]);
    until("it is deleted", || place().is_none().then_some(()));
}

/// The places of a receipt that are not done.
fn not_done(answer: &Value) -> Vec<&Value> {
    let places = answer["receipt"]["places"].as_array().unwrap().iter();
    places.filter(|it| it["state"] != "done").collect()
}

/// DPS rejects the change of a device's enrollment. Verifies: the compromise of its authority waits
/// for it, and names it as open with the reason and the remedy; after the remedy the device is out,
/// and the receipt is complete.
#[test]
fn a_rejected_change_of_an_individual_enrollment_is_open() {
    let (env, devices) = individually(&["press-7", "press-8"]);
    let rejected = Fault::on("individual.put", Action::status(400)).times(1_000);
    env.emulator.inject(rejected).unwrap();
    let roll = start(&env, "line-1", "compromise", &[]);
    let parked = until("both are parked", || {
        let shown = shown(&env, &roll);
        let open = not_done(&shown).into_iter().cloned();
        let parked: Vec<_> = open
            .filter(|it| it["code"] == "enrollment_parked")
            .collect();
        (parked.len() == 2).then_some(parked)
    });
    for (place, device) in parked.iter().zip(&devices) {
        assert_eq!(place["state"], "open", "{place}");
        assert_eq!(place["parameters"]["name"], *device.id, "{place}");
        assert!(!place["parameters"]["reason"].is_null(), "{place}");
        let remedy = format!("hallmark push retry {}", device.id);
        assert!(
            place["answer"].as_str().unwrap().contains(&remedy),
            "{place}"
        );
    }
    assert_eq!(shown(&env, &roll)["state"], "excluding");
    assert!(env.emulator.requests_of("identity.delete").is_empty());
    is_assigned(&env.emulator, &devices[0]);
    env.emulator.clear_faults();
    for device in &devices {
        env.run(&["push", "retry", &device.id]);
    }
    until("the receipt is complete", || {
        (shown(&env, &roll)["receipt"]["complete"] == true).then_some(())
    });
    for device in &devices {
        is_out(&env, device);
        assert!(env.emulator.hub_identity(&device.id).is_none());
    }
}

/// A plant is compromised by its old generation while the line below it drains, and DPS rejects the
/// deletion of the CA certificate of the line's old generation, which gets no successor. Verifies:
/// its place is open until it is deleted.
#[test]
fn the_ca_certificate_of_a_draining_generation_below_is_open() {
    let env = TestEnv::new();
    env.configure(
        &env.configuration()
            .replace("[\"root\"]", "[\"root\", \"line-1\"]"),
    );
    let env = env.started();
    env.add_group("line", "line-1");
    env.wait_in_sync();
    let plant = start(&env, "plant", "expiry", &[]);
    comes_to(&env, &plant, "draining");
    comes_to(&env, &roll_below(&env, "line-1"), "draining");
    let rejected = Fault::on("authority.delete", Action::status(400)).times(1_000);
    env.emulator.inject(rejected).unwrap();
    let roll = start(&env, "plant", "compromise", &["--generation", "1"]);
    let shown_parked = until("it is parked", || {
        let shown = shown(&env, &roll);
        let codes: Vec<_> = not_done(&shown)
            .iter()
            .map(|it| it["code"].clone())
            .collect();
        codes
            .contains(&json!("ca_certificate_parked"))
            .then_some(shown)
    });
    let place = not_done(&shown_parked);
    let place = place
        .iter()
        .find(|it| it["code"] == "ca_certificate_parked");
    assert_eq!(place.unwrap()["parameters"]["ca_certificate"], "line-1-1");
    assert_eq!(
        shown_parked["receipt"]["complete"], false,
        "{shown_parked:#}"
    );
    env.emulator.clear_faults();
    env.run(&["push", "retry", "line-1-1"]);
    until("the receipt is complete", || {
        (shown(&env, &roll)["receipt"]["complete"] == true).then_some(())
    });
    assert_eq!(ca_certificates(&env), ["line-1-2", "root-1"]);
}

/// A line is compromised by its old generation while it drains, and the service has no room for the
/// blocking group, so the group of the root admits the device. Verifies: the command and the
/// receipt say so, and nothing is called excluded; with room, all is.
#[test]
fn a_draining_generation_without_room_for_its_blocking_group_is_open() {
    let mut env = TestEnv::new();
    let configuration = env.configuration();
    env.configure(&configuration.replace("verified = [", "groups_max = 3\nverified = ["));
    let device = under_the_root(&mut env);
    env.add_group("line-1", "line-1");
    env.wait_in_sync();
    let expiry = start(&env, "line-1", "expiry", &[]);
    comes_to(&env, &expiry, "draining");
    // The service counts groups with X.509 alone.
    has_a_third_group(&env, 2);

    let report = [
        "roll",
        "start",
        "--authority",
        "line-1",
        "--generation",
        "1",
    ];
    let report = [&["--json"], &report[..], &["--reason", "compromise"]].concat();
    let output = env.hallmark(&report);
    assert_eq!(output.code, Some(1), "{output:?}");
    let failure: Value = serde_json::from_str(&output.out).unwrap();
    let answer = &failure["answer"];
    assert_eq!(answer["problems"][0]["code"], "service_limit", "{failure}");
    let roll = answer["rolls"][0]["id"].to_string();
    let open = until("the blocking group is parked", || {
        let shown = shown(&env, &roll);
        let parked = not_done(&shown).iter().any(|it| {
            it["code"] == "enrollment_parked" && it["parameters"]["name"] == "line-1-blocked-1"
        });
        parked.then_some(shown)
    });
    let places = open["receipt"]["places"].as_array().unwrap();
    let claims = |code: &str| {
        places
            .iter()
            .any(|it| it["code"] == code && it["state"] == "done")
    };
    assert!(
        !claims("authority_excluded") && !claims("identities_deleted"),
        "{open:#}"
    );
    assert_eq!(open["state"], "excluding", "{open:#}");

    env.emulator.delete_record(Kind::Group, "theirs").unwrap();
    env.emulator.switch(|it| it.quotas.groups = None);
    env.run(&["reload"]);
    env.run(&["push", "retry", "line-1-blocked-1"]);
    until("the receipt is complete", || {
        (shown(&env, &roll)["receipt"]["complete"] == true).then_some(())
    });
    is_out(&env, &device);
    assert!(env.emulator.hub_identity("press-1").is_none());
}

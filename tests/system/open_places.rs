//! Tests the open places of the compromise of an authority: the changes of another client, and
//! what DPS rejects.

use crate::authority_roll::{comes_to, shown, start};
use crate::device::register;
use crate::process::until;
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

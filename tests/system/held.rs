//! Tests one certificate that an operator revokes or holds: lists, callers and records follow, each
//! hold is lifted by its own command, and `--everywhere` reaches the provisioning service and the
//! hub.

use crate::device::{is_assigned, register};
use crate::keepalive::KeepAlive;
use crate::process::until;
use crate::provisioned::{below_line_1, individually};
use crate::relying_party::Relying;
use crate::request::{Holder, Request};
use crate::roles::with_operators;
use crate::test_env::TestEnv;
use serde_json::{Value, json};

const SOMEWHERE: &str = "/v1/devices";

fn command(env: &TestEnv, name: &str, serial: &str) -> Value {
    env.json(&["certificate", name, serial, "--cause", "a test"])
}

fn refused(env: &TestEnv, arguments: &[&str], code: &str, words: &str) {
    let output = env.hallmark(&[&["certificate"], arguments].concat());
    assert_eq!(output.code, Some(1), "{arguments:?}: {output:?}");
    assert!(output.error.contains(code), "{arguments:?}: {output:?}");
    assert!(output.error.contains(words), "{arguments:?}: {output:?}");
}

fn record(env: &TestEnv, serial: &str) -> Value {
    env.json(&["certificate", "show", serial])["record"].clone()
}

fn place<'a>(answer: &'a Value, place: &str) -> &'a Value {
    let places = answer["receipt"]["places"].as_array().unwrap();
    let found = places.iter().find(|it| it["place"] == place);
    found.unwrap_or(&Value::Null)
}

/// Verifies: the holder is refused while its certificate is on hold, on a kept connection, too;
/// OpenSSL refuses it by the list; both end with the release; a repeat changes nothing; the record
/// says who did what, and which lists have it.
#[test]
fn a_hold_ends_with_its_release() {
    let env = with_operators();
    let station = env.enlist("station", "station-1");
    let relying = Relying::on(&env);
    let root = env.authority("root");
    let mut kept = KeepAlive::secured(&env, &station);
    assert_eq!(kept.asks(SOMEWHERE).0, 403);

    let held = command(&env, "hold", &station.serial);
    assert_eq!(
        (&held["changed"], &held["receipt"]["complete"]),
        (&json!(true), &json!(true))
    );
    assert!(
        held["held_by"][0]
            .as_str()
            .unwrap()
            .starts_with("local uid"),
        "{held}"
    );
    assert_eq!(kept.asks(SOMEWHERE).0, 401);
    assert!(relying.judge(&station, &root).is_err());
    let (number, entries) = relying.listed("operations");
    assert_eq!(entries.get(&station.serial), Some(&6));
    let again = command(&env, "hold", &station.serial);
    assert_eq!(
        (&again["changed"], &again["on_hold_since"]),
        (&json!(false), &held["on_hold_since"])
    );

    let released = command(&env, "release", &station.serial);
    assert_eq!(
        (&released["changed"], &released["on_hold_since"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(KeepAlive::secured(&env, &station).asks(SOMEWHERE).0, 403);
    assert_eq!(relying.judge(&station, &root), Ok(()));
    assert_eq!(command(&env, "release", &station.serial)["changed"], false);

    let events = record(&env, &station.serial)["revocations"].clone();
    let [lifted, set] = events.as_array().unwrap().as_slice() else {
        panic!("{events}");
    };
    assert_eq!(
        (&lifted["reason"], &set["reason"]),
        (&Value::Null, &json!("certificateHold"))
    );
    assert!(
        set["by"].as_str().unwrap().starts_with("local uid"),
        "{set}"
    );
    assert_eq!(set["first_list"], number.to_string(), "{set}");
    assert_eq!(
        set["last_list"], set["first_list"],
        "the next list is without it"
    );

    env.run(&[
        "certificate",
        "revoke",
        &station.serial,
        "--reason",
        "superseded",
    ]);
    refused(
        &env,
        &["hold", &station.serial],
        "certificate_revoked",
        "local uid",
    );
    refused(
        &env,
        &["release", &station.serial],
        "certificate_revoked",
        "a new certificate",
    );
    for name in ["hold", "release"] {
        refused(&env, &[name, "0A1B2C3D"], "certificate_unknown", "");
    }
}

/// A certificate that an operator and a block hold stays on hold until both have lifted their own,
/// whichever came first and whichever is lifted first.
#[test]
fn an_operator_and_a_block_lift_their_own_hold() {
    let env = TestEnv::running();
    let reason = |relying: &Relying, serial: &str| relying.listed("line-1").1.get(serial).copied();
    for (number, (operator_first, unblock_first)) in
        [(true, true), (true, false), (false, true), (false, false)]
            .into_iter()
            .enumerate()
    {
        let id = format!("press-{number}");
        let device = env.enlist("device", &id);
        let serial = device.serial.as_str();
        let relying = Relying::on(&env);
        let block = || env.json(&["device", "block", &id]);
        let hold = || command(&env, "hold", serial);
        if operator_first {
            hold();
            block();
        } else {
            block();
            refused(
                &env,
                &["release", serial],
                "hold_of_block",
                &format!("device unblock {id}"),
            );
            let held = hold();
            assert_eq!(held["changed"], true, "the operator holds it, too: {held}");
        }
        assert_eq!(hold()["held_by"].as_array().unwrap().len(), 2);
        let unblock = || env.json(&["device", "unblock", &id]);
        let release = || command(&env, "release", serial);
        if unblock_first {
            unblock();
        } else {
            let released = release();
            assert_eq!(released["changed"], true, "{released}");
            assert!(released["on_hold_since"].is_string(), "{released}");
            let by = released["held_by"].to_string();
            assert!(
                by.contains(&format!("hallmark device unblock {id}")),
                "{by}"
            );
        }
        assert_eq!(
            reason(&relying, serial),
            Some(6),
            "{operator_first} {unblock_first}"
        );
        assert_eq!(KeepAlive::secured(&env, &device).asks(SOMEWHERE).0, 401);
        if unblock_first {
            release();
        } else {
            unblock();
        }
        until("it is on no list", || {
            reason(&relying, serial).is_none().then_some(())
        });
        assert_eq!(KeepAlive::secured(&env, &device).asks(SOMEWHERE).0, 403);
    }
}

/// Stations and auditors neither hold nor release.
#[test]
fn only_an_operator_holds() {
    let env = with_operators();
    let [station, auditor, operator] =
        ["station", "auditor", "operator"].map(|it| env.enlist(it, it));
    let ask = |holder: &Holder, path: &str| {
        let body = json!({ "serial": station.serial });
        let answer = env.caller(holder).post_to(path).json(&body).send().unwrap();
        answer.status().as_u16()
    };
    for path in ["/v1/certificates/holds", "/v1/certificates/releases"] {
        assert_eq!(ask(&station, path), 403);
        assert_eq!(ask(&auditor, path), 403);
    }
    assert_eq!(ask(&operator, "/v1/certificates/holds"), 200);
    assert_eq!(ask(&station, "/v1/certificates/releases"), 401);
    assert_eq!(ask(&operator, "/v1/certificates/releases"), 200);
    let by = "audit WHERE actor = 'operator operator' AND action IN ('certificate.revoked',
              'certificate.unrevoked')";
    assert_eq!(env.count(by), 2);
}

/// The daemon is killed between the record of a revocation and its list. Verifies: the next start
/// signs the list, the repeat of the command changes nothing and says who revoked it, and the
/// record names the list.
#[test]
fn a_revocation_is_listed_after_a_crash() {
    let mut env = TestEnv::running();
    let device = env.enlist("device", "press-7");
    env.stop();
    env.start_to_stay_at(&["crl-recorded"]);
    let (client, serial) = (env.client(), device.serial.clone());
    let revoking = std::thread::spawn(move || {
        client.hallmark(&[
            "certificate",
            "revoke",
            &serial,
            "--reason",
            "keyCompromise",
        ])
    });
    env.stays_at("crl-recorded");
    env.kill();
    assert_eq!(revoking.join().unwrap().code, Some(3));
    assert_eq!(env.count("certificate WHERE revocation_reason = 1"), 1);

    env.start();
    let arguments = [
        "certificate",
        "revoke",
        &device.serial,
        "--reason",
        "superseded",
    ];
    let again = env.json(&arguments);
    assert_eq!(
        (&again["already_revoked"], &again["reason"]),
        (&json!(true), &json!("keyCompromise"))
    );
    assert!(
        again["revoked_by"]
            .as_str()
            .unwrap()
            .starts_with("local uid"),
        "{again}"
    );
    let relying = Relying::on(&env);
    let (number, entries) = relying.listed("line-1");
    assert_eq!(entries.get(&device.serial), Some(&1));
    let event = record(&env, &device.serial)["revocations"][0].clone();
    assert_eq!(event["first_list"], number.to_string(), "{event}");
}

/// A leaf below a compromised authority: its own authority signs no list, and the answer says which
/// list excludes it.
#[test]
fn a_leaf_below_a_compromised_authority_is_revoked() {
    let env = TestEnv::running();
    let device = env.enlist("device", "press-7");
    env.run(&["authority", "block", "line-1", "--generation", "1"]);
    let revoke = [
        "certificate",
        "revoke",
        &device.serial,
        "--reason",
        "superseded",
    ];
    let answer = env.json(&revoke);
    assert_eq!(answer["already_revoked"], false);
    let crl = place(&answer, "crl");
    assert_eq!(crl["state"], "done", "{answer}");
    assert!(
        crl["answer"].as_str().unwrap().contains("of plant-1"),
        "{answer}"
    );
    assert!(
        answer["notices"].to_string().contains("signed no more"),
        "{answer}"
    );
    assert_eq!(
        record(&env, &device.serial)["revoked_above"],
        "generation 1 of line-1"
    );
}

/// With `--everywhere` the device is refused by DPS and gone from the hub when the command answers,
/// enrolled individually and by a group; the next leaf is admitted, and the repeat of the command
/// does not exclude it.
#[test]
fn a_revocation_everywhere_reaches_dps_and_the_hub_once() {
    for (env, devices) in [below_line_1(&["press-7"]), individually(&["press-8"])] {
        let device = &devices[0];
        let everywhere = [
            "certificate",
            "revoke",
            &device.serial,
            "--reason",
            "keyCompromise",
            "--everywhere",
        ];
        let answer = env.json(&everywhere);
        assert_eq!(answer["receipt"]["complete"], true, "{answer:#}");
        assert_eq!(place(&answer, "dps: dps")["state"], "done", "{answer:#}");
        let end = register(&env.emulator, device);
        assert_ne!(end.as_deref(), Ok("assigned"), "{}", device.id);
        assert_eq!(env.emulator.hub_identity(&device.id), None);
        assert_eq!(KeepAlive::secured(&env, device).asks(SOMEWHERE).0, 401);
        assert_eq!(record(&env, &device.serial)["in_force"], json!([]));

        let next = env
            .station_called("station-2")
            .obtain(&Request::device(&device.id));
        env.wait_in_sync();
        is_assigned(&env.emulator, &next);
        let again = env.json(&everywhere);
        assert_eq!(again["already_revoked"], true);
        env.wait_in_sync();
        is_assigned(&env.emulator, &next);
        assert_eq!(record(&env, &next.serial)["state"], "valid");
    }
}

/// The daemon is killed after the revocation is on record and before the rest of `--everywhere`.
/// After the restart the leaf is revoked and DPS still admits it, which nothing hides: the repeat
/// of the command excludes it there, and its receipt is complete.
#[test]
fn the_repeat_of_a_revocation_everywhere_completes_what_a_kill_interrupted() {
    let (mut env, devices) = below_line_1(&["press-7"]);
    let device = &devices[0];
    let plain = [
        "certificate",
        "revoke",
        &device.serial,
        "--reason",
        "keyCompromise",
    ];
    let everywhere = [&plain[..], &["--everywhere"]].concat();
    env.restart_to_stay_at("leaf-revoked");
    let client = env.client();
    std::thread::scope(|scope| {
        let interrupted = scope.spawn(|| client.hallmark(&everywhere));
        env.stays_at("leaf-revoked");
        env.kill();
        assert_ne!(interrupted.join().unwrap().code, Some(0));
    });
    env.start();
    env.wait_ready();
    assert_eq!(KeepAlive::secured(&env, device).asks(SOMEWHERE).0, 401);
    let shown = record(&env, &device.serial);
    assert_eq!(shown["state"], "revoked", "{shown:#}");
    let places = shown["in_force"].as_array().unwrap();
    assert!(
        places.iter().any(|it| it["place"] == "dps: dps"),
        "{shown:#}"
    );
    is_assigned(&env.emulator, device);

    let answer = env.json(&everywhere);
    assert_eq!(answer["already_revoked"], true, "{answer:#}");
    assert_eq!(answer["receipt"]["complete"], true, "{answer:#}");
    assert_eq!(place(&answer, "dps: dps")["state"], "done", "{answer:#}");
    let end = register(&env.emulator, device);
    assert_ne!(end.as_deref(), Ok("assigned"));
    assert_eq!(env.emulator.hub_identity(&device.id), None);
}

/// A leaf that a newer one has replaced: DPS accepts it by the group until its end, which the
/// receipt names as open, because the exclusion of the device would exclude the newer one.
#[test]
fn an_older_leaf_that_a_group_accepts_is_open_in_the_receipt() {
    let (env, devices) = below_line_1(&["press-7"]);
    let older = &devices[0];
    let newer = env
        .station_called("station-2")
        .obtain(&Request::device("press-7"));
    let answer = env.json(&[
        "certificate",
        "revoke",
        &older.serial,
        "--reason",
        "keyCompromise",
        "--everywhere",
    ]);
    assert_eq!(answer["receipt"]["complete"], false);
    let dps = place(&answer, "dps: dps");
    assert_eq!(
        (&dps["state"], &dps["code"]),
        (&json!("open"), &json!("leaf_admitted")),
        "{answer:#}"
    );
    is_assigned(&env.emulator, older);
    assert_eq!(record(&env, &newer.serial)["state"], "valid");
    is_assigned(&env.emulator, &newer);
    let station = env.enlist("station", "station-9");
    let answer = env.json(&[
        "certificate",
        "revoke",
        &station.serial,
        "--reason",
        "keyCompromise",
        "--everywhere",
    ]);
    assert_eq!(
        answer["receipt"]["complete"], true,
        "a station has no other place"
    );
}

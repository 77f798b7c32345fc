//! Tests drift: another client changes records at the service without notice, and the scan finds
//! the changes.

use crate::device::is_assigned;
use crate::invariants::held;
use crate::process::until;
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use dps_emulator::{Action, Fault, Kind};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// A daemon that scans every second, with one individually enrolled device in sync.
fn scanning(policy: &str) -> (TestEnv, Holder) {
    scanning_every("1s", policy)
}

fn scanning_every(interval: &str, policy: &str) -> (TestEnv, Holder) {
    let mut env = TestEnv::new();
    let configuration = env.configuration();
    env.configure(&format!(
        "{configuration}\n[policy]\nscan_interval = \"{interval}\"\ndrift = \"{policy}\"\n"
    ));
    env.start();
    env.run_ceremony();
    env.run(&["enrollment", "add", "--individual", "press-7"]);
    let device = env.station().obtain(&Request::device("press-7"));
    env.wait_in_sync();
    (env, device)
}

fn edit(env: &TestEnv, merge: Value) {
    let merge: Map<String, Value> = merge.as_object().unwrap().clone();
    env.emulator
        .edit_record(Kind::Individual, "press-7", merge)
        .unwrap();
}

fn shown(env: &TestEnv) -> Value {
    env.json(&["enrollment", "show", "press-7"])[0].clone()
}

/// Verifies: without any request, within one scan, `enrollment show` lists the difference field by
/// field; the record is not changed, and is read once, not every second.
#[test]
fn an_unannounced_change_is_shown_with_its_difference() {
    let (env, _) = scanning("report");
    edit(&env, json!({ "provisioningStatus": "disabled" }));
    let drift = until("the drift is seen", || {
        let seen = shown(&env);
        (seen["state"] == "drifted").then(|| seen["drift"].clone())
    });
    assert_eq!(drift["cause"], "changed", "{drift}");
    assert!(
        drift["differences"].to_string().contains("disabled"),
        "{drift}"
    );
    let looks = env.emulator.requests_of("individual.get").len();
    let scans = env.emulator.requests_of("individual.query").len();
    until("two more scans", || {
        (env.emulator.requests_of("individual.query").len() >= scans + 2).then_some(())
    });
    assert_eq!(env.emulator.requests_of("individual.get").len(), looks);
    assert_eq!(env.emulator.requests_of("individual.put").len(), 1);
}

/// With `drift = "repair"` the record is restored as desired; fields that Hallmark does not manage
/// are kept.
#[test]
fn where_policy_says_so_drift_is_repaired() {
    let (env, device) = scanning("repair");
    edit(
        &env,
        json!({ "provisioningStatus": "disabled", "initialTwin": { "tags": { "hall": "3" } } }),
    );
    let record = until("it is repaired", || {
        let record = env.emulator.individual("press-7").unwrap();
        (record["provisioningStatus"] == "enabled").then_some(record)
    });
    assert_eq!(record["initialTwin"]["tags"]["hall"], "3");
    assert_eq!(held(&record, "primary"), Some(device.thumbprint));
    env.wait_in_sync();
}

/// Another client deletes the enrollment: a complete scan that does not list it reports that.
#[test]
fn an_enrollment_that_another_client_deleted_is_missed() {
    let (env, _) = scanning("repair");
    env.emulator
        .delete_record(Kind::Individual, "press-7")
        .unwrap();
    until("it is there again", || env.emulator.individual("press-7"));
    env.wait_in_sync();
}

/// A scan that fails half-way reports nothing: what it did not list is not missing.
#[test]
fn a_scan_that_fails_misses_nothing() {
    let (env, _) = scanning("report");
    let fault = Fault::on("individual.query", Action::status(500)).times(2);
    env.emulator.inject(fault).unwrap();
    until("both scans have failed", || {
        env.emulator.faults().is_empty().then_some(())
    });
    assert_eq!(shown(&env)["state"], "in step");
}

/// Reloads come more often than scans. Verifies: scans run all the same.
#[test]
fn scans_run_however_often_the_daemon_reloads() {
    let (env, _) = scanning_every("3s", "report");
    let scans = || env.emulator.requests_of("individual.query").len();
    until("a scan", || (scans() > 0).then_some(()));
    let before = scans();
    until("another one", || {
        env.run(&["reload"]);
        std::thread::sleep(Duration::from_secs(1));
        (scans() > before).then_some(())
    });
}

/// A service, or something in its place, answers the same page for ever, each time with a next one.
/// Verifies: the scan ends and says why, and runs again after its pause; work for devices goes on.
#[test]
fn an_endless_list_ends_the_scan() {
    let (env, _) = scanning_every("3s", "report");
    let endless = Action::Status {
        status: 200,
        headers: vec![("x-ms-continuation".into(), "next".into())],
        body: Some(json!([{ "registrationId": "forged", "etag": "\"1\"" }])),
    };
    let fault = Fault::on("individual.query", endless).times(1_000);
    env.emulator.inject(fault).unwrap();
    until("the scan ends early", || {
        let log = std::fs::read_to_string(env.path("hallmarkd.log")).unwrap();
        log.contains("repeats a page").then_some(())
    });
    let asked = env.emulator.requests_of("individual.query").len();
    assert!(asked < 20, "{asked} pages");
    let station = env.station_called("station-2");
    let device = station.obtain(&Request::device("press-8"));
    env.run(&["enrollment", "add", "--individual", "press-8"]);
    env.wait_in_sync();
    is_assigned(&env.emulator, &device);
}

fn alarm(env: &TestEnv) -> Option<Value> {
    let alarms = env.json(&["status"])["alarm_details"].clone();
    let mut alarms = alarms.as_array().unwrap().iter();
    alarms
        .find(|it| it["code"] == "enrollments_drifted")
        .cloned()
}

/// Verifies: a drifted enrollment is an alarm with its name. `drift = "repair"`, set later, repairs
/// what has drifted before: by a reload, and by a restart. The alarm ends.
#[test]
fn a_drifted_enrollment_is_an_alarm_and_a_later_policy_repairs_it() {
    let (mut env, device) = scanning("report");
    let good = env.configuration();
    for restarts in [false, true] {
        edit(&env, json!({ "provisioningStatus": "disabled" }));
        let alarm = until("there is an alarm", || alarm(&env));
        assert_eq!(alarm["parameters"]["first"], "press-7", "{alarm}");
        assert_eq!(alarm["parameters"]["enrollments"], 1, "{alarm}");
        let policy =
            |drift: &str| format!("[policy]\nscan_interval = \"1h\"\ndrift = \"{drift}\"\n");
        env.configure(&format!("{good}\n{}", policy("repair")));
        if restarts {
            env.restart();
        } else {
            env.run(&["reload"]);
        }
        until("it is repaired", || {
            let record = env.emulator.individual("press-7").unwrap();
            (record["provisioningStatus"] == "enabled").then_some(())
        });
        env.wait_in_sync();
        assert_eq!(self::alarm(&env), None);
        is_assigned(&env.emulator, &device);
        let policy = policy("report").replace("1h", "1s");
        env.configure(&format!("{good}\n{policy}"));
        env.run(&["reload"]);
    }
}

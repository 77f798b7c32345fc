//! Tests `drift = "repair"` after a restore: what was excluded after the backup stays excluded,
//! although the record would admit it.

use crate::backup::{create, restore};
use crate::device::is_assigned;
use crate::process::until;
use crate::request::{Holder, Request};
use crate::restored::{is_out, registered};
use crate::test_env::TestEnv;
use serde_json::Value;

const COMPROMISE: [&str; 4] = ["roll", "start", "--reason", "compromise"];

/// A daemon that scans every second and repairs drift.
fn repairing() -> TestEnv {
    let env = TestEnv::new();
    let policy = "\n[policy]\nscan_interval = \"1s\"\ndrift = \"repair\"\n";
    env.configure(&(env.configuration() + policy));
    env.started()
}

fn with_own_enrollments(env: &TestEnv, ids: &[&str]) -> Vec<Holder> {
    for id in ids {
        env.run(&["enrollment", "add", "--individual", id]);
    }
    ids.iter().map(|id| registered(env, id)).collect()
}

/// Restores the backup that was made before `later`.
fn restored_after<T>(env: &mut TestEnv, later: impl FnOnce(&TestEnv) -> T) -> T {
    let file = create(env);
    let made = later(env);
    env.wait_in_sync();
    env.stop();
    let output = restore(env, &file);
    assert_eq!(output.code, Some(0), "{output:?}");
    env.start();
    env.wait_ready();
    made
}

/// The alarm with this code, once there is one.
pub(crate) fn alarm(env: &TestEnv, code: &str) -> Value {
    until("there is an alarm", || {
        let status = env.json(&["status"]);
        let mut alarms = status["alarm_details"].as_array().unwrap().iter();
        alarms.find(|it| it["code"] == code).cloned()
    })
}

fn drifted(env: &TestEnv, name: &str) -> Option<Value> {
    let shown = env.json(&["enrollment", "show", name]);
    let shown = shown[0].clone();
    (shown["state"] == "drifted").then_some(shown)
}

/// After the backup a device was compromised, another got a new leaf after its compromise, and the
/// enrollment of a third was removed. Verifies: the first scan after the restore, a reload and a
/// restart readmit none of them; an alarm counts them and says that the record is older; a retry by
/// name writes the record of one, and one for all does not.
#[test]
fn what_was_excluded_after_the_backup_stays_excluded() {
    let mut env = repairing();
    let ids = ["press-1", "press-2", "press-3", "press-4"];
    let devices = with_own_enrollments(&env, &ids);
    let new = restored_after(&mut env, |env| {
        env.run(&[&COMPROMISE[..], &["press-1"]].concat());
        env.run(&[&COMPROMISE[..], &["press-2"]].concat());
        env.run(&["enrollment", "remove", "--individual", "press-3"]);
        registered(env, "press-2")
    });
    let excluded = &devices[..3];
    for restarts in [false, true] {
        for id in &ids[..3] {
            until("the difference is found", || drifted(&env, id));
        }
        let found = alarm(&env, "enrollments_drifted");
        assert_eq!(found["parameters"]["enrollments"], 3, "{found}");
        assert_eq!(found["parameters"]["restored"], true, "{found}");
        for device in excluded {
            is_out(&env, device);
        }
        is_assigned(&env.emulator, &new);
        env.run(&["push", "retry"]);
        if restarts {
            env.restart();
        } else {
            env.run(&["reload"]);
        }
        env.wait_in_sync();
    }
    is_assigned(&env.emulator, &devices[3]);
    env.run(&["push", "retry", "press-3"]);
    env.wait_in_sync();
    is_assigned(&env.emulator, &devices[2]);
    for device in &devices[..2] {
        is_out(&env, device);
    }
    assert!(drifted(&env, "press-3").is_none());
    // Drift after that is repaired as ever.
    let merge = serde_json::json!({ "provisioningStatus": "disabled" });
    let merge = merge.as_object().unwrap().clone();
    for id in ["press-3", "press-4"] {
        let kind = dps_emulator::Kind::Individual;
        env.emulator.edit_record(kind, id, merge.clone()).unwrap();
        until("it is repaired", || {
            let record = env.emulator.individual(id)?;
            (record["provisioningStatus"] == "enabled").then_some(())
        });
    }
    for id in ["press-1", "press-2"] {
        env.run(&[&COMPROMISE[..], &[id]].concat());
    }
    is_out(&env, &new);
}

/// A change of a device's enrollment waits for the service when the backup is made, and the device
/// is compromised after that. Verifies: what waited is not written after the restore, by any
/// policy.
#[test]
fn what_waited_at_the_time_of_the_backup_readmits_no_device() {
    let env = TestEnv::new();
    let policy = "\n[policy]\nscan_interval = \"1s\"\n";
    env.configure(&(env.configuration() + policy));
    let mut env = env.started();
    let devices = with_own_enrollments(&env, &["press-1"]);
    let away = dps_emulator::Fault::on("individual.put", dps_emulator::Action::status(503));
    env.emulator.inject(away.times(1_000)).unwrap();
    let renewed = env.station().obtain(&Request::device("press-1"));
    let new = restored_after(&mut env, |env| {
        env.emulator.clear_faults();
        env.run(&["push", "retry"]);
        env.run(&[&COMPROMISE[..], &["press-1"]].concat());
        registered(env, "press-1")
    });
    until("the difference is found", || drifted(&env, "press-1"));
    is_out(&env, &devices[0]);
    is_out(&env, &renewed);
    is_assigned(&env.emulator, &new);
    env.run(&[&COMPROMISE[..], &["press-1"]].concat());
    is_out(&env, &new);
}

/// The root is compromised after the backup: its CA certificate is deleted at the service, and its
/// group is disabled. Verifies: after the restore neither is repaired, by a scan or a restart, and
/// no device of the group is admitted; a retry by name uploads the certificate.
#[test]
fn an_authority_that_was_compromised_after_the_backup_is_not_uploaded_again() {
    let mut env = repairing();
    env.add_group("line-1", "line-1");
    let device = registered(&env, "press-1");
    let is_uploaded = |env: &TestEnv| {
        let authorities = env.emulator.authorities();
        authorities.iter().any(|it| it["name"] == "root-1")
    };
    assert!(is_uploaded(&env));
    restored_after(&mut env, |env| {
        env.run(&[&COMPROMISE[..], &["--authority", "root"]].concat());
        until("it is deleted", || (!is_uploaded(env)).then_some(()));
        until("the line signs again", || {
            crate::authority_roll::second_signs(env, "line-1").then_some(())
        });
    });
    for restarts in [true, false] {
        alarm(&env, "ca_certificate_drifted");
        until("the difference is found", || drifted(&env, "line-1"));
        env.wait_in_sync();
        is_out(&env, &device);
        assert!(!is_uploaded(&env));
        if restarts {
            env.restart();
        }
    }
    env.run(&["push", "retry", "root-1"]);
    until("it is uploaded", || is_uploaded(&env).then_some(()));
}

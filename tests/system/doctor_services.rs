//! Tests the checks of `hallmark doctor` that ask provisioning services: each plane with a fault,
//! clocks that differ, CA certificates that another program has changed.

use crate::doctor::{examined, finds, finds_nothing};
use crate::process::until;
use crate::test_env::TestEnv;
use dps_emulator::{Action, Aim, Fault, Plane};
use serde_json::json;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use time::format_description::well_known::Rfc2822;
use time::{Duration, OffsetDateTime};

/// The operation that a run asks of each plane.
const PLANES: [(&str, &str); 3] = [
    ("group.get", "default service"),
    ("authority.list", "default resource manager"),
    ("identity.get", "default hub"),
];

/// Verifies, at each plane: a credential that is refused, and a plane that is busy or cuts the
/// connection; then a service that is not there at all. `skew` and `ca-certificates` do not guess.
#[test]
fn each_plane_is_checked_with_its_own_credential() {
    let env = TestEnv::running();
    finds_nothing(&env, "planes");
    for (operation, subject) in PLANES {
        env.emulator
            .inject(Fault::on(operation, Action::status(403)))
            .unwrap();
        let (code, findings) = examined(&env, &["planes"]);
        assert_eq!(code, Some(2), "{findings:#?}");
        let failed: Vec<_> = findings.iter().filter(|it| it["verdict"] != "ok").collect();
        assert_eq!(failed.len(), 1, "{findings:#?}");
        let plane = subject.split_once(' ').unwrap().1;
        assert!(
            failed[0]["subject"].as_str().unwrap().ends_with(plane),
            "{findings:#?}"
        );
        assert!(
            failed[0]["text"]
                .as_str()
                .unwrap()
                .contains("credential was not accepted")
        );

        env.emulator
            .inject(Fault::on(operation, Action::throttle(1)))
            .unwrap();
        finds(&env, "planes", "attention", "429");
        finds_nothing(&env, "planes");
    }
    // Without a certificate, the device plane refuses; a fault of the service is no refusal.
    let of_devices = Aim {
        plane: Some(Plane::Device),
        ..Aim::default()
    };
    for status in [500, 503] {
        let mut fault = Fault::on("", Action::status(status));
        fault.aim = of_devices.clone();
        env.emulator.inject(fault).unwrap();
        finds(&env, "planes", "attention", &status.to_string());
        finds_nothing(&env, "planes");
    }
    let good = env.configuration();
    let address = env.emulator.addr().to_string();
    env.configure(&good.replace(&address, "127.0.0.1:1"));
    env.run(&["reload"]);
    finds(&env, "planes", "failed", "refused");
    finds(&env, "skew", "not_applicable", "no plane has answered");
    finds(
        &env,
        "ca-certificates",
        "not_applicable",
        "no service has listed",
    );
    env.configure(&good);
    env.run(&["reload"]);
    finds_nothing(&env, "planes");

    let file = env.path("hub-connection-string");
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    finds(&env, "credentials", "failed", "hub-connection-string");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    finds_nothing(&env, "credentials");
}

/// Verifies: the clock of a service that is two minutes ahead needs attention, and one that is an
/// hour behind has failed.
#[test]
fn a_clock_that_differs_from_a_services_is_found() {
    let env = TestEnv::running();
    finds_nothing(&env, "skew");
    for (ahead, verdict, words) in [
        (Duration::minutes(2), "attention", "s ahead of this one"),
        (Duration::hours(-1), "failed", "s behind this one"),
    ] {
        let date = (OffsetDateTime::now_utc() + ahead)
            .format(&Rfc2822)
            .unwrap();
        let date = date.replace("+0000", "GMT");
        let missing = Action::Status {
            status: 404,
            headers: vec![("Date".to_owned(), date)],
            body: Some(json!({ "errorCode": 404_204, "message": "Not Found." })),
        };
        env.emulator
            .inject(Fault::on("group.get", missing))
            .unwrap();
        finds(&env, "skew", verdict, words);
        finds_nothing(&env, "skew");
    }
}

/// Verifies: a CA certificate that another program has unverified, replaced or deleted; a proof of
/// possession that the service refuses; a change that is parked, which is an alarm.
#[test]
fn certificates_that_the_service_does_not_hold_are_found() {
    let env = TestEnv::running();
    for check in ["ca-certificates", "possession", "alarms"] {
        finds_nothing(&env, check);
    }
    let upload = |of: &str, verified| {
        let pem = env.authority(of);
        env.emulator
            .upload_authority("root-1", &pem, verified)
            .unwrap();
    };
    upload("operations", true);
    finds(
        &env,
        "ca-certificates",
        "failed",
        "another certificate by this name",
    );
    assert!(env.emulator.delete_authority("root-1"));
    finds(
        &env,
        "ca-certificates",
        "failed",
        "the service does not hold it",
    );
    upload("root", false);
    finds(&env, "ca-certificates", "failed", "holds it unverified");

    let refused = Fault::on("authority.verify", Action::status(400));
    env.emulator.inject(refused.times(10)).unwrap();
    let good = env.configuration();
    let repairs = "\n[policy]\nscan_interval = \"1s\"\ndrift = \"repair\"\n";
    env.configure(&(good + repairs));
    env.run(&["reload"]);
    until("the proof is refused", || {
        (examined(&env, &["possession"]).0 != Some(0)).then_some(())
    });
    finds(&env, "possession", "attention", "root-1");
    env.emulator.clear_faults();
    until("the certificate is verified again", || {
        env.run(&["push", "retry"]);
        (examined(&env, &["possession", "ca-certificates"]).0 == Some(0)).then_some(())
    });

    env.emulator
        .inject(Fault::on("group.put", Action::status(400)))
        .unwrap();
    env.add_group("line-2", "line-1");
    until("the change is parked", || {
        (examined(&env, &["alarms"]).0 == Some(1)).then_some(())
    });
    finds(&env, "alarms", "attention", "1 changes are parked");
    env.run(&["push", "retry", "line-2"]);
    env.wait_in_sync();
    finds_nothing(&env, "alarms");
}

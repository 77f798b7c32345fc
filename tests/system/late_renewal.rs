//! Tests leaves of devices that renew themselves after their end, as policy allows: once, within a
//! time, with the same names.

use crate::configured::{Profile, station_table};
use crate::device::is_assigned;
use crate::est_client::EstClient;
use crate::refusals::Witness;
use crate::request::{Holder, Request, der};
use crate::test_env::TestEnv;
use crate::token_faults::new_with_faults;
use pkcs11_fault::plan::{Action, Fault};
use serde_json::{Value, json};
use std::sync::Barrier;
use time::Duration;

const AFTER_THE_END: Duration = Duration::hours(2);

/// An environment whose profile `stored` has leaves of an hour that renew themselves for two days
/// after their end.
pub(crate) fn env() -> TestEnv {
    configured(TestEnv::new())
}

fn configured(env: TestEnv) -> TestEnv {
    let env = env.with_a_movable_clock();
    let stored = Profile {
        name: "stored",
        authority: "line-1",
        role: "device",
        validity: "1h",
        more: "late_renewal = \"2d\"",
    };
    let strict = Profile {
        name: "strict",
        more: "",
        ..stored
    };
    let station = Profile {
        name: "station-1h",
        authority: "operations",
        role: "station",
        ..strict
    };
    let tables = [&stored, &strict, &station].map(Profile::toml).concat();
    let tables = tables + &station_table("line-1", &["stored", "strict"], &["*"]);
    env.configure(&(env.configuration() + &tables));
    env.started()
}

fn issued_late(env: &TestEnv, id: &str) -> i64 {
    env.count(&format!(
        "audit WHERE action = 'certificate.issued' AND subject = '{id}'
         AND actor = 'device {id}' AND detail ->> 'grant' = 'late_renewal'"
    ))
}

/// A device comes out of a warehouse. Verifies: it renews its ended leaf by EST and is assigned by
/// its group; a repeat has the same answer; another request is refused; the journal names what was
/// renewed; the holder of the ended leaf may do nothing else.
#[test]
fn a_device_renews_its_leaf_after_its_end_once() {
    let env = env();
    env.add_group("line-1", "line-1");
    env.wait_in_sync();
    let device = env.enlist("stored", "press-7");
    env.passes(AFTER_THE_END);

    let client = EstClient::of(&env, &device);
    let caller = env.caller(&device);
    let witness = Witness::of(&env);
    let own = |profile: &str, id: &str| Request::new(profile, id);
    witness.sees_refused(403, "role_forbidden", || {
        caller.ask(&own("stored", "press-8"))
    });
    witness.sees_refused(403, "role_forbidden", || {
        caller.ask(&own("strict", "press-7"))
    });
    witness.sees_refused(403, "role_forbidden", || {
        caller.ask(&own("station-1h", "press-7"))
    });
    for path in ["/v1/certificates", "/v1/devices", "/v1/status"] {
        assert_eq!(
            caller.get(path).code(),
            "client_certificate_expired",
            "{path}"
        );
    }
    let item = json!({ "items": [own("stored", "press-7").body()] });
    let batch = caller.post_to("/v1/certificates:batch").json(&item).send();
    assert_eq!(batch.unwrap().status(), 403);

    let request = own("stored", "press-7");
    let renewed = client.obtain("simplereenroll", &request);
    is_assigned(&env.emulator, &renewed);
    let again = client.obtain("simplereenroll", &request);
    assert_eq!(der(&again.certificate), der(&renewed.certificate));
    // Its grant is used up, so the answer holds while the leaf does.
    env.passes(Duration::minutes(40));
    let again = client.obtain("simplereenroll", &request);
    assert_eq!(der(&again.certificate), der(&renewed.certificate));
    assert_eq!(issued_late(&env, "press-7"), 1);
    let renews = format!(
        "audit WHERE action = 'certificate.issued' AND detail ->> 'renews' = '{}'",
        device.serial
    );
    assert_eq!(env.count(&renews), 1);

    let other = own("stored", "press-7");
    let refused = client.post("simplereenroll", other.csr.as_bytes());
    assert_eq!(
        (&*refused.status, &*refused.code()),
        ("409", "late_renewal_used")
    );
    let witness = Witness::of(&env);
    witness.sees_refused(409, "late_renewal_used", || caller.ask(&other));
    // The new leaf is an ordinary one.
    env.caller(&renewed).obtain(&own("stored", "press-7"));
    env.run(&["audit", "verify"]);
}

/// A pallet of devices comes out of a warehouse. Verifies: none is refused for the number of those
/// that the token signs for at the moment, which is limited for strangers.
#[test]
fn a_pallet_renews_at_once() {
    let (env, plan) = new_with_faults(&[]);
    let env = configured(env);
    let devices: Vec<_> = (0..24)
        .map(|number| env.enlist("stored", &format!("press-{number}")))
        .collect();
    env.passes(AFTER_THE_END);
    plan.set(&[Fault::from("C_Sign", 1, Action::Delay(900))])
        .unwrap();
    let all_at_once = Barrier::new(devices.len());
    std::thread::scope(|scope| {
        for device in &devices {
            let (env, all_at_once) = (&env, &all_at_once);
            scope.spawn(move || {
                let caller = env.caller(device);
                let request = Request::new("stored", &device.id);
                // Connected before, so that the requests come together.
                assert_eq!(caller.get("/ca/root.cer").status, 200);
                all_at_once.wait();
                let answer = caller.ask(&request);
                let is_of_a_slow_token = answer.body["code"] == "token_deadline";
                assert!(answer.status == 201 || is_of_a_slow_token, "{answer:?}");
            });
        }
    });
    let renewed = devices.iter().filter(|it| issued_late(&env, &it.id) == 1);
    assert!(renewed.count() > 0, "the token signs one after the other");
}

/// A device with an enrollment of its own renews its ended leaf by the API. Verifies: the new leaf
/// is staged beside the ended one and serves then, and DPS assigns the device with it. Until then
/// the ended leaf is shown as accepted for that.
#[test]
fn the_slots_follow_a_late_renewal() {
    let env = env();
    env.run(&["enrollment", "add", "--individual", "pump-7"]);
    let device = env.enlist("stored", "pump-7");
    env.wait_in_sync();
    env.passes(AFTER_THE_END);
    let may_renew = || {
        let shown = env.json(&["certificate", "show", &device.serial]);
        shown["record"]["in_force"]
            .to_string()
            .contains("to renew it once")
    };
    assert!(may_renew());
    let renewed = env
        .caller(&device)
        .obtain(&Request::new("stored", "pump-7"));
    assert!(!may_renew());
    env.wait_in_sync();
    is_assigned(&env.emulator, &renewed);
    let shown = env.json(&["enrollment", "show", "pump-7"]);
    assert!(shown.to_string().contains(&renewed.thumbprint), "{shown}");
}

/// Verifies: an ended leaf renews nothing after the time of its profile, after a revocation, a
/// block or a compromise, also one after its end, or beside a newer leaf, with a code for each; a
/// profile without the setting and another role have the refusal of always.
#[test]
fn an_ended_leaf_that_is_excluded_or_old_renews_nothing() {
    let env = env();
    let ids = ["revoked", "held", "blocked", "compromised", "newer", "late"];
    let devices = ids.map(|id| env.enlist("stored", id));
    let [revoked, held, _, _, newer, late] = &devices;
    let strict = env.enlist("strict", "strict");
    let station = env.enlist("station-1h", "line-1");
    env.run(&[
        "certificate",
        "revoke",
        &revoked.serial,
        "--reason",
        "superseded",
    ]);
    env.run(&["certificate", "hold", &held.serial]);
    env.passes(AFTER_THE_END);
    env.run(&["device", "block", "blocked"]);
    env.run(&["roll", "start", "compromised", "--reason", "compromise"]);
    env.enlist("stored", "newer");

    let refused = |holder: &Holder, profile: &str, status: u16, code: &str| {
        let caller = env.caller(holder);
        let request = Request::new(profile, &holder.id);
        Witness::of(&env).sees_refused(status, code, || caller.ask(&request));
        let client = EstClient::of(&env, holder);
        let answer = client.post("simplereenroll", request.csr.as_bytes());
        assert_eq!(answer.code(), code, "{answer:?}");
    };
    refused(revoked, "stored", 401, "client_certificate_revoked");
    refused(held, "stored", 401, "client_certificate_revoked");
    refused(&devices[3], "stored", 401, "client_certificate_revoked");
    refused(newer, "stored", 409, "late_renewal_superseded");
    refused(&strict, "strict", 401, "client_certificate_expired");
    refused(&station, "station-1h", 401, "client_certificate_expired");
    refused(&devices[2], "stored", 401, "client_certificate_revoked");
    env.passes(Duration::days(2));
    refused(late, "stored", 401, "late_renewal_over");
    assert_eq!(env.count("grant_use"), 0);
    let answer: Value = env.caller(late).ask(&Request::new("stored", "late")).body;
    assert!(
        answer["detail"]
            .as_str()
            .unwrap()
            .contains("could renew itself until")
    );
}

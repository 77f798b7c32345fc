//! Tests stations, auditors and servers that renew their own certificates within policy; an alarm
//! comes before a certificate ends that was not renewed.

use crate::caller::Caller;
use crate::configured::Profile;
use crate::est_client::EstClient;
use crate::process::until;
use crate::refusals::Witness;
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::Value;
use time::Duration;

/// Profiles whose holders may renew at once, and one whose holders may never.
fn profiles() -> String {
    let profile = |name, role, more| {
        let (authority, validity) = ("operations", "1h");
        Profile {
            name,
            authority,
            role,
            validity,
            more,
        }
        .toml()
    };
    let server = profile("server-now", "server", "self_renewal = \"1h\"")
        .replace("[\"client_auth\"]", "[\"server_auth\", \"client_auth\"]");
    profile("station-now", "station", "self_renewal = \"1h\"")
        + &profile("station-never", "station", "self_renewal = \"0s\"")
        + &profile("auditor-now", "auditor", "self_renewal = \"1h\"")
        + &server
        + "subject_alternative_names = \"dns_and_ip\"\n"
}

fn env() -> TestEnv {
    let env = TestEnv::new();
    env.configure(&(env.configuration() + &profiles()));
    env.started()
}

/// Renews by the API; the holder is the same, with another key.
fn renews(env: &TestEnv, holder: &Holder, profile: &str) -> Holder {
    let renewed = env
        .caller(holder)
        .obtain(&Request::new(profile, &holder.id));
    assert_ne!(renewed.serial, holder.serial);
    let row = format!(
        "intent WHERE hex(serial) = '{}' AND profile = '{profile}' AND subject = '{}'",
        renewed.serial, holder.id
    );
    assert_eq!(env.count(&row), 1);
    let audited = format!(
        "audit WHERE action = 'certificate.issued' AND detail ->> 'serial' = '{}'
         AND detail ->> 'renews' = '{}'",
        renewed.serial, holder.serial
    );
    assert_eq!(
        env.count(&audited),
        1,
        "the journal does not say what was renewed"
    );
    renewed
}

/// Verifies: a station and an auditor renew by the API, and by EST with a label and without one;
/// the new certificate works like the old one; the repeat of a lost answer is the same certificate.
#[test]
fn a_station_renews_its_own_certificate() {
    let env = env();
    let first = env.enlist("station-now", "station-1");
    let second = renews(&env, &first, "station-now");
    env.caller(&second).obtain(&Request::device("press-7"));
    env.caller(&first).obtain(&Request::device("press-7"));
    for operation in ["station-now/simplereenroll", "simplereenroll"] {
        let request = Request::new("station-now", "station-1");
        let client = EstClient::of(&env, &second);
        let answer = client.post(operation, request.csr.as_bytes());
        assert_eq!(answer.status, "200", "{operation}: {answer:?}");
        let issued = env.count("certificate");
        assert_eq!(client.post(operation, request.csr.as_bytes()).status, "200");
        assert_eq!(
            env.count("certificate"),
            issued,
            "{operation}: a repeat is a second one"
        );
    }
    let auditor = env.enlist("auditor-now", "auditor-1");
    let auditor = renews(&env, &auditor, "auditor-now");
    assert_eq!(env.caller(&auditor).get("/v1/devices").status, 200);
}

/// Verifies: each change that a renewal must not make, and each condition of policy, is refused
/// with its own code, audited, and leaves nothing behind.
#[test]
fn a_renewal_widens_nothing() {
    let env = env();
    let holder = env.enlist("station-now", "station-1");
    let station = env.caller(&holder);
    let long = env.caller(&env.enlist("station", "station-2"));
    let never = env.caller(&env.enlist("station-never", "station-3"));
    let auditor = env.caller(&env.enlist("auditor", "auditor-1"));
    let witness = Witness::of(&env);
    let ask = |caller: &Caller, status, code: &str, profile: &str, id: &str| {
        witness.sees_refused(status, code, || caller.ask(&Request::new(profile, id)));
    };
    ask(&long, 409, "renewal_too_early", "station", "station-2");
    ask(
        &never,
        403,
        "renewal_forbidden",
        "station-never",
        "station-3",
    );
    ask(&auditor, 403, "renewal_forbidden", "auditor", "auditor-1");
    ask(&station, 403, "role_forbidden", "station", "station-1");
    ask(&station, 403, "role_forbidden", "auditor-now", "station-1");
    ask(&station, 403, "role_forbidden", "station-now", "station-2");
    ask(&station, 403, "role_forbidden", "station-now", "STATION-1");
    ask(&auditor, 403, "role_forbidden", "auditor-now", "auditor-1");
    ask(&auditor, 403, "role_forbidden", "device", "auditor-1");

    let key = KeyPair::from_pem(&holder.key).unwrap();
    let same_key = Request::of(
        "station-now",
        "station-1",
        csr(&key, "station-1", &[]),
        holder.key.clone(),
    );
    witness.sees_refused(400, "renewal_same_key", || station.ask(&same_key));

    let client = EstClient::of(&env, &holder);
    for (label, code) in [
        ("station", "role_forbidden"),
        ("auditor-now", "role_forbidden"),
    ] {
        let request = Request::new(label, "station-1");
        let operation = format!("{label}/simplereenroll");
        assert_eq!(client.post(&operation, request.csr.as_bytes()).code(), code);
    }

    let promoted = profiles().replacen(
        "role = \"station\"\nself_renewal = \"1h\"",
        "role = \"operator\"",
        1,
    );
    assert_ne!(promoted, profiles());
    env.configure(&(env.configuration() + &promoted));
    env.run(&["reload"]);
    let witness = Witness::of(&env);
    let request = Request::new("station-now", "station-1");
    witness.sees_refused(403, "renewal_role_changed", || station.ask(&request));
}

/// Verifies: a server renews with the names that it has, and obtains no others.
#[test]
fn a_server_keeps_its_alternative_names() {
    let env = env();
    let key = KeyPair::generate().unwrap();
    let names = ["gate.example"];
    let first = Request::of(
        "server-now",
        "gate-1",
        csr(&key, "gate-1", &names),
        key.serialize_pem(),
    );
    let path = env.write("gate.csr", &first.csr);
    let issue = [
        "issue",
        "--profile",
        "server-now",
        "--id",
        "gate-1",
        "--csr",
    ];
    let answer = env.json(&[&issue[..], &[path.to_str().unwrap()]].concat());
    let server = env.caller(&first.holder(&answer));
    let witness = Witness::of(&env);
    let asks = |names: &[&str]| {
        let key = KeyPair::generate().unwrap();
        Request::of(
            "server-now",
            "gate-1",
            csr(&key, "gate-1", names),
            key.serialize_pem(),
        )
    };
    for others in [
        &[][..],
        &["hallmark.example"],
        &["gate.example", "hallmark.example"],
    ] {
        witness.sees_refused(400, "csr_other_names", || server.ask(&asks(others)));
    }
    let device = Request::device("press-7");
    witness.sees_refused(403, "role_forbidden", || server.ask(&device));
    server.obtain(&asks(&names));
}

fn csr(key: &KeyPair, id: &str, names: &[&str]) -> String {
    csr_of_unit(key, id, None, names)
}

fn csr_of_unit(key: &KeyPair, id: &str, unit: Option<&str>, names: &[&str]) -> String {
    let names: Vec<_> = names.iter().map(|it| (*it).to_owned()).collect();
    let mut parameters = CertificateParams::new(names).unwrap();
    let mut subject = DistinguishedName::new();
    if let Some(unit) = unit {
        subject.push(DnType::OrganizationalUnitName, unit);
    }
    subject.push(DnType::CommonName, id);
    parameters.distinguished_name = subject;
    parameters.serialize_request(key).unwrap().pem().unwrap()
}

/// Verifies: a profile makes the host name of the CSR's organizational unit; by the API and by EST
/// a renewal with another unit, or with one that holds more than a label, is refused, audited, and
/// issues nothing.
#[test]
fn a_renewal_has_the_profile_make_no_other_name() {
    let env = TestEnv::new();
    let made =
        "subject_alternative_names = { dns = [\"{csr.organizational_unit}.plant.example\"] }";
    let profiles = profiles().replace("subject_alternative_names = \"dns_and_ip\"", made);
    env.configure(&(env.configuration() + &profiles));
    let env = env.started();
    let asks = |unit: &str| {
        let key = KeyPair::generate().unwrap();
        let csr = csr_of_unit(&key, "gate-1", Some(unit), &[]);
        Request::of("server-now", "gate-1", csr, key.serialize_pem())
    };
    let holder = |request: &Request| {
        let path = env.write("gate.csr", &request.csr);
        let csr = path.to_str().unwrap();
        let issue = [
            "issue",
            "--profile",
            "server-now",
            "--id",
            "gate-1",
            "--csr",
        ];
        request.holder(&env.json(&[&issue[..], &[csr]].concat()))
    };
    let first = holder(&asks("gw1"));
    let server = env.caller(&first);
    let witness = Witness::of(&env);
    witness.sees_refused(400, "csr_other_names", || server.ask(&asks("gw2")));
    witness.sees_refused(400, "template_refused", || {
        server.ask(&asks("evil.example/gw1"))
    });
    let client = EstClient::of(&env, &first);
    let other = client.post("server-now/simplereenroll", asks("gw2").csr.as_bytes());
    assert_eq!(other.code(), "csr_other_names", "{other:?}");
    server.obtain(&asks("gw1"));
}

/// Verifies: a holder that renews without end is stopped, and an operator's revocation lets it go
/// on.
#[test]
fn renewals_of_one_name_are_bounded() {
    let env = env();
    let mut holder = env.enlist("station-now", "station-1");
    for _ in 0..3 {
        holder = renews(&env, &holder, "station-now");
    }
    let witness = Witness::of(&env);
    let station = env.caller(&holder);
    let request = Request::new("station-now", "station-1");
    witness.sees_refused(409, "renewal_limit", || station.ask(&request));
    station.obtain(&Request::device("press-7"));
}

/// One status of one role and profile.
fn expiry(env: &TestEnv, profile: &str) -> Value {
    let status = env.json(&["status"]);
    let all = status["expiry"].as_array().unwrap().clone();
    let mut of_profile = all.into_iter().filter(|it| it["profile"] == profile);
    of_profile.next().unwrap()
}

fn alarms(env: &TestEnv) -> String {
    env.json(&["status"])["alarms"].to_string()
}

/// A year, by moved clocks. Verifies: certificates of every role are counted and become an alarm
/// before they end, by role and profile; one that was renewed, revoked or has ended is no longer
/// reported; a device that is excluded counts no more.
#[test]
fn a_certificate_that_is_not_renewed_is_an_alarm_before_it_ends() {
    let env = TestEnv::new().with_a_movable_clock().started();
    env.enlist("station", "station-1");
    env.enlist("auditor", "auditor-1");
    for id in ["press-1", "press-2", "press-3"] {
        env.enlist("device", id);
    }
    let counted = |profile: &str, name: &str| expiry(&env, profile)[name].clone();
    assert_eq!(alarms(&env), "[]");
    assert_eq!(counted("device", "within_30d"), 0);
    assert_eq!(counted("device", "alarm_within_seconds"), 15 * 86_400);

    env.passes(Duration::days(70));
    until("the devices are seen", || {
        (counted("device", "within_30d") == 3).then_some(())
    });
    assert!(!alarms(&env).contains("role device"), "{}", alarms(&env));
    env.passes(Duration::days(14));
    until("the devices are an alarm", || {
        alarms(&env)
            .contains("role device by profile \\\"device\\\"")
            .then_some(())
    });
    assert_eq!(counted("device", "alarming"), 3);
    assert_eq!(counted("device", "within_7d"), 3);
    assert_eq!(counted("device", "within_1d"), 0);
    assert!(
        counted("device", "next_subject")
            .as_str()
            .unwrap()
            .starts_with("press-")
    );
    let metrics = env.metrics();
    for line in [
        "hallmark_certificates_expiring{role=\"device\",profile=\"device\",within=\"7d\"} 3",
        "hallmark_certificates_expiring{role=\"device\",profile=\"device\",within=\"alarm\"} 3",
        "hallmark_certificates_next_expiry_timestamp_seconds{role=\"station\",profile=\"station\"}",
    ] {
        assert!(metrics.contains(line), "no {line}: {metrics}");
    }
    env.enlist("device", "press-1");
    env.run(&["device", "block", "press-2"]);
    until("one is left", || {
        (counted("device", "alarming") == 1).then_some(())
    });
    assert_eq!(counted("device", "next_subject"), "press-3");
    env.enlist("device", "press-3");
    until("the alarm is over", || {
        (!alarms(&env).contains("role device")).then_some(())
    });

    env.passes(Duration::days(226));
    until("the people are an alarm", || {
        let alarms = alarms(&env);
        let output = |role: &str| alarms.contains(&format!("role {role} by profile"));
        (output("station") && output("auditor")).then_some(())
    });
    assert!(
        !alarms(&env).contains("role server"),
        "the listener renews by itself"
    );
    env.enlist("station", "station-1");
    until("the station is no alarm", || {
        (!alarms(&env).contains("role station")).then_some(())
    });
    env.passes(Duration::days(60));
    until("what has ended is no alarm", || {
        (!alarms(&env).contains("role auditor")).then_some(())
    });
}

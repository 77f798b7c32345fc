//! Tests revocation lists: revoked certificates and abandoned serial numbers are on them, they are
//! fetched over plain HTTP from the addresses in certificates, and OpenSSL checks by them.
//!
//! The tests revoke through a store of their own, beside the daemon's.

use crate::process::until;
use crate::relying_party::Relying;
use crate::request::{Request, der};
use crate::test_env::TestEnv;
use hallmarkd::store::{Revocation, RevocationTarget, Store};
use hallmarkd::unix_seconds::UnixSeconds;
use hallmarkd::x509::revocation::RevocationReason;
use hallmarkd::x509::serial::SerialNumber;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;

/// Every device is checked by the lists of all three authorities above it.
const ABOVE: [&str; 3] = ["root", "plant", "line-1"];

/// Revokes beside the daemon, and wakes it if it runs.
fn revoke(env: &TestEnv, target: RevocationTarget, reason: RevocationReason) {
    let revocation = Revocation {
        target,
        at: UnixSeconds::new(now()),
        actor: "test".into(),
        cause: "a test".into(),
    };
    let store = Store::open(&env.database()).unwrap();
    let revoked = store.revoke(revocation, reason).unwrap();
    assert_eq!(revoked.changed.len(), 1);
    env.hallmark(&["push", "retry"]);
}

fn now() -> i64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    since.as_secs().cast_signed()
}

fn serial(text: &str) -> RevocationTarget {
    let serial: SerialNumber = text.parse().unwrap();
    RevocationTarget::Serial(serial.as_bytes().to_vec())
}

/// Verifies: with nothing revoked OpenSSL accepts both devices; afterwards it refuses the revoked
/// one and accepts the other; both by lists and issuers from the addresses in the certificates.
#[test]
fn a_revoked_device_is_refused_and_its_neighbour_is_not() {
    let env = TestEnv::running();
    let station = env.station();
    let [first, second] = ["press-1", "press-2"].map(|id| station.obtain(&Request::device(id)));
    let relying = Relying::on(&env);
    let root = env.authority("root");
    assert_eq!(relying.judge(&first, &root), Ok(()));
    assert_eq!(relying.judge(&second, &root), Ok(()));
    let (before, entries) = relying.listed("line-1");
    assert!(entries.is_empty(), "{entries:?}");

    let signed = "audit WHERE action = 'crl.signed' AND subject = 'line-1-1'";
    let lists = env.count(signed);
    revoke(&env, serial(&first.serial), RevocationReason::KeyCompromise);
    let (number, entries) = until("the list is signed anew", || {
        let listed = relying.listed("line-1");
        (listed.0 > before).then_some(listed)
    });
    assert_eq!(entries, BTreeMap::from([(first.serial.clone(), 1)]));
    assert_eq!(relying.crl("line-1"), relying.crl("line-1-1"));
    let refusal = relying.judge(&first, &root).unwrap_err();
    assert!(refusal.contains("certificate revoked"), "{refusal}");
    assert_eq!(relying.judge(&second, &root), Ok(()));

    let shown = env.json(&["authority", "show", "line-1"]);
    assert_eq!(shown[0]["crl_number"], number);
    assert_eq!(shown[0]["crl_entries"], 1);
    let shown = &env.json(&["status"])["crls"];
    let up_to_date = |it: &Value| it["up_to_date"] == true;
    assert!(shown.as_array().unwrap().iter().all(up_to_date), "{shown}");
    assert_eq!(env.count(signed), lists + 1);
}

/// The receipts of the commands say that the list is signed, and it is signed then.
#[test]
fn a_block_is_on_the_list_when_the_command_answers_and_off_it_when_it_is_lifted() {
    let env = TestEnv::running();
    let device = env.station().obtain(&Request::device("press-1"));
    let relying = Relying::on(&env);
    let root = env.authority("root");
    let answered = |output: &Value| {
        let place = &output["receipt"]["places"][0];
        let (name, state) = (&place["place"], &place["state"]);
        assert!(*name == "crl" && *state == "done", "{output}");
        place["answer"].as_str().unwrap().to_owned()
    };
    let words = answered(&env.json(&["device", "block", "press-1"]));
    let (number, listed) = relying.listed("line-1");
    assert!(
        words.contains(&format!("list {number} of line-1-1")),
        "{words}"
    );
    assert_eq!(listed, BTreeMap::from([(device.serial.clone(), 6)]));
    assert!(relying.judge(&device, &root).is_err());

    answered(&env.json(&["device", "unblock", "press-1"]));
    let (lifted, listed) = relying.listed("line-1");
    assert!(lifted > number && listed.is_empty(), "{listed:?}");
    assert_eq!(relying.judge(&device, &root), Ok(()));

    let generation = ["line-1", "--generation", "1"];
    answered(&env.json(&[&["authority", "block"][..], &generation].concat()));
    assert_eq!(relying.listed("plant").1.len(), 1);
    answered(&env.json(&[&["authority", "unblock"][..], &generation].concat()));
    assert!(relying.listed("plant").1.is_empty());
    assert_eq!(relying.judge(&device, &root), Ok(()));
}

/// Caches are answered as in RFC 9110, and plain HTTP serves nothing else.
#[test]
fn plain_http_serves_what_is_published_and_nothing_else() {
    let env = TestEnv::running();
    let relying = Relying::on(&env);
    let answer = relying.get("/crl/line-1.crl");
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "application/pkix-crl");
    let age = header("cache-control");
    let age: i64 = age
        .strip_prefix("public, max-age=")
        .unwrap()
        .parse()
        .unwrap();
    // Another generation may serve in an hour.
    assert_eq!(age, 3_600);
    // The list of the next generation may have the same date.
    assert!(!answer.headers().contains_key("last-modified"));
    let numbered = relying.get("/crl/line-1-1.crl");
    let modified = numbered.headers()["last-modified"].to_str().unwrap();
    let by_alias = relying.http.get(format!("{}/crl/line-1.crl", relying.base));
    let by_alias = by_alias.header("if-modified-since", modified).send();
    assert_eq!(by_alias.unwrap().status(), 200);
    for (asked, known) in [
        ("if-none-match", header("etag")),
        ("if-modified-since", modified.to_owned()),
    ] {
        let url = format!("{}/crl/line-1-1.crl", relying.base);
        let again = relying.http.get(&url).header(asked, known).send();
        let again = again.unwrap();
        assert_eq!(again.status(), 304, "{asked}");
        assert!(again.bytes().unwrap().is_empty());
        let other = relying.http.get(url).header("if-none-match", "\"other\"");
        assert_eq!(other.send().unwrap().status(), 200);
    }
    let url = format!("{}/crl/line-1.crl", relying.base);
    let head = relying.http.head(&url).send().unwrap();
    assert_eq!(head.headers()["etag"].to_str().unwrap(), header("etag"));
    assert!(head.bytes().unwrap().is_empty());
    assert_eq!(relying.http.post(&url).send().unwrap().status(), 405);

    let certificate = relying.get("/ca/line-1.cer");
    let content_type = certificate.headers()["content-type"].to_str();
    assert_eq!(content_type.unwrap(), "application/pkix-cert");
    let shown = env.authority("line-1");
    assert_eq!(certificate.bytes().unwrap(), der(&shown));
    for nothing in [
        "/healthz",
        "/metrics",
        "/v1/status",
        "/v1/certificates",
        "/crl/nobody.crl",
        "/crl/line-1.cer",
        "/crl/line-1-2.crl",
        "/crl/line-1-01.crl",
        "/ca/line-1.crl",
    ] {
        assert_eq!(relying.get(nothing).status(), 404, "{nothing}");
    }
    let over_https = env.stranger();
    assert_eq!(over_https.get("/crl/root.crl").status, 200);
    assert_eq!(over_https.get("/ca/root-1.cer").status, 200);
}

/// The token may have signed it: OpenSSL refuses that certificate.
#[test]
fn an_abandoned_serial_number_is_on_the_list() {
    let mut env = TestEnv::running();
    let station = env.enlist("station", "station-1");
    env.is_killed_while_signing_for(&station, "press-1");
    env.start();
    let relying = Relying::on(&env);
    let entries = until("the serial number is listed", || {
        let (_, entries) = relying.listed("line-1");
        (!entries.is_empty()).then_some(entries)
    });
    let database = crate::invariants::open(&env.database());
    let sql = "SELECT hex(serial) FROM intent_state WHERE state = 'abandoned'";
    let burned: String = database.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(entries, BTreeMap::from([(burned, 0)]));
}

/// The daemon is killed between the record of a list and its publication: its number is used up,
/// the next list has a greater one, and the old list was served in between.
#[test]
fn a_list_that_a_crash_left_unsigned_is_never_signed() {
    let mut env = TestEnv::running();
    let device = env.station().obtain(&Request::device("press-1"));
    let other = env.station().obtain(&Request::device("press-2"));
    for (point, serial_number) in [
        ("crl-recorded", &device.serial),
        ("crl-signed", &other.serial),
    ] {
        let (before, listed) = Relying::on(&env).listed("line-1");
        assert!(!listed.contains_key(serial_number));
        env.stop();
        revoke(&env, serial(serial_number), RevocationReason::Superseded);
        env.start_to_stay_at(&[point]);
        env.stays_at(point);
        assert_eq!(Relying::on(&env).listed("line-1").0, before, "{point}");
        env.kill();
        let unsigned = format!("crl WHERE der IS NULL AND number > {before}");
        assert_eq!(env.count(&unsigned), 1, "{point}");

        env.start();
        let relying = Relying::on(&env);
        let (number, listed) = until("the next list is signed", || {
            let listed = relying.listed("line-1");
            (listed.0 > before).then_some(listed)
        });
        assert!(number > before + 1, "{point}: {before}, {number}");
        assert!(listed.contains_key(serial_number), "{point}");
        assert_eq!(env.count(&unsigned), 0, "{point}");
    }
}

/// Lists are served without a token; a list that has ended is an alarm; when the token is back, the
/// next one is signed without a restart.
#[test]
fn lists_are_served_without_the_token_and_an_ended_one_is_an_alarm() {
    let env = TestEnv::new();
    env.configure(&format!(
        "{}\n[policy]\ncrl_validity = \"4s\"\ncrl_interval = \"1s\"\n",
        env.configuration()
    ));
    let mut env = env;
    env.start();
    env.run_ceremony();
    let device = env.station().obtain(&Request::device("press-1"));
    let relying = Relying::on(&env);
    fs::rename(env.path("tokens"), env.path("tokens.away")).unwrap();
    revoke(
        &env,
        serial(&device.serial),
        RevocationReason::CertificateHold,
    );
    let alarm = until("an ended list is an alarm", || {
        let alarms = env.json(&["status"])["alarms"].clone();
        let alarms = alarms.as_array().unwrap().iter();
        let mut words = alarms.map(|it| it.as_str().unwrap().to_owned());
        words.find(|it| it.contains("revocation list of line-1 generation 1 has ended"))
    });
    assert!(alarm.contains("token factory"), "{alarm}");
    let (before, listed) = relying.listed("line-1");
    assert!(!listed.contains_key(&device.serial));
    for name in ABOVE {
        assert_eq!(relying.get(&format!("/crl/{name}.crl")).status(), 200);
    }
    assert_eq!(env.stranger().get("/crl/line-1.crl").status, 200);

    fs::rename(env.path("tokens.away"), env.path("tokens")).unwrap();
    until("the list is signed anew", || {
        let (number, listed) = relying.listed("line-1");
        (number > before && listed.get(&device.serial) == Some(&6)).then_some(())
    });
    until("the alarm is over", || {
        let status = env.json(&["status"]);
        (status["alarms"] == Value::Array(Vec::new())).then_some(())
    });
}

/// A revoked generation is on the list of the one above it, and signs neither certificates nor
/// lists; when the hold is lifted, it signs again.
#[test]
fn a_revoked_generation_is_on_its_issuers_list_and_signs_nothing() {
    let mut env = TestEnv::running();
    let station = env.enlist("station", "station-1");
    let device = env.caller(&station).obtain(&Request::device("press-1"));
    let above = env.json(&["authority", "show", "line-1"])[0]["serial"].clone();
    let above = above.as_str().unwrap();
    env.stop();
    revoke(&env, serial(above), RevocationReason::CertificateHold);
    env.start();
    env.wait_ready();
    let relying = Relying::on(&env);
    until("line-1 is on the list of plant", || {
        relying.listed("plant").1.contains_key(above).then_some(())
    });
    let root = env.authority("root");
    let refusal = relying.judge(&device, &root).unwrap_err();
    assert!(refusal.contains("certificate revoked"), "{refusal}");
    let lists = "crl c JOIN generation g ON g.id = c.generation WHERE g.authority = 'line-1'";
    let recorded = "audit WHERE action = 'crl.recorded' AND subject = 'line-1-1'";
    let signed = (env.count(lists), env.count(recorded));
    let answer = env.caller(&station).ask(&Request::device("press-2"));
    assert_eq!((answer.status, answer.code()), (503, "issuer_revoked"));
    assert_eq!((env.count(lists), env.count(recorded)), signed);

    env.stop();
    let lifted = Revocation {
        target: serial(above),
        at: UnixSeconds::new(now()),
        actor: "test".into(),
        cause: "a test".into(),
    };
    Store::open(&env.database())
        .unwrap()
        .unrevoke(lifted)
        .unwrap();
    env.start();
    env.wait_ready();
    let relying = Relying::on(&env);
    until("the device is accepted again", || {
        relying.judge(&device, &root).is_ok().then_some(())
    });
    env.caller(&station).obtain(&Request::device("press-2"));
}

//! Tests the role of a caller: recorded with the certificate, whatever the profile says later, and
//! invalid in a row that no generation has signed.

use crate::caller::{Answer, Caller};
use crate::configured::Profile;
use crate::request::{Holder, Request, der};
use crate::test_env::TestEnv;
use hallmarkd::enrollment::thumbprint::Thumbprint;
use hallmarkd::x509::certificate::signature_behind;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use rusqlite::{Connection, params};
use std::fs;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The profile by which operators get their certificates.
pub(crate) const OPERATOR: Profile<'_> = Profile {
    name: "operator",
    authority: "operations",
    role: "operator",
    validity: "365d",
    more: "",
};

/// An environment with a profile for operators.
pub(crate) fn with_operators() -> TestEnv {
    let env = TestEnv::new();
    env.configure(&(env.configuration() + &OPERATOR.toml()));
    env.started()
}

/// Checks a caller's role by the answers: an operator may read devices, a station may not and
/// obtains a leaf.
fn is_operator(caller: &Caller) -> bool {
    match caller.get("/v1/devices") {
        Answer { status: 200, .. } => true,
        answer => {
            assert_eq!((answer.status, answer.code()), (403, "role_forbidden"));
            false
        }
    }
}

fn reload(env: &TestEnv, configuration: &str) {
    env.configure(configuration);
    env.run(&["reload"]);
}

/// Profiles change their roles, and are removed. Verifies: each caller keeps the role that it was
/// given, on kept-alive connections and on new ones; a certificate that is issued afterwards has
/// the new role.
#[test]
fn a_caller_keeps_the_role_that_its_certificate_was_issued_with() {
    let env = with_operators();
    let before = fs::read_to_string(env.path("hallmark.toml")).unwrap();
    let station = env.enlist("station", "station-1");
    let operator = env.enlist("operator", "operator-1");
    let auditor = env.enlist("auditor", "auditor-1");
    let kept = [env.caller(&station), env.caller(&operator)];
    assert_eq!(kept.each_ref().map(is_operator), [false, true]);

    let role = |profile: &str, from: &str, to: &str| {
        let line = |role: &str| {
            format!("name = \"{profile}\"\nauthority = \"operations\"\nrole = \"{role}\"")
        };
        assert!(before.contains(&line(from)));
        before.replace(&line(from), &line(to))
    };
    for changed in [
        role("station", "station", "operator"),
        role("operator", "operator", "station"),
        before.replace("name = \"station\"", "name = \"station-now\""),
        before.replace("name = \"operator\"", "name = \"operator-now\""),
    ] {
        reload(&env, &changed);
        let new = [env.caller(&station), env.caller(&operator)];
        assert_eq!(kept.each_ref().map(is_operator), [false, true]);
        assert_eq!(new.each_ref().map(is_operator), [false, true]);
        new[0].obtain(&Request::device("press-7"));
    }
    for (from, to) in [("auditor", "operator"), ("station", "auditor")] {
        reload(&env, &role(from, from, to));
        let answer = env.caller(&auditor).ask(&Request::device("press-8"));
        assert_eq!(answer.code(), "role_forbidden");
        assert!(is_operator(&env.caller(&auditor)), "an auditor may look");
    }
    reload(&env, &role("station", "station", "operator"));
    let promoted = env.enlist("station", "station-2");
    assert!(is_operator(&env.caller(&promoted)));
    let output = env.run(&["audit", "export"]);
    let issued = |role: &str| output.contains(&format!("\"role\":\"{role}\""));
    for role in ["station", "operator", "auditor", "device", "server"] {
        assert!(issued(role), "{role} is not in the journal");
    }
}

/// A station has the name of a device, and its profile is gone. Verifies: a block of the device
/// leaves the station alone.
#[test]
fn a_block_of_a_device_leaves_a_station_of_its_name_alone() {
    let env = TestEnv::running();
    let station = env.enlist("station", "press-7");
    let device = env.caller(&station).obtain(&Request::device("press-7"));
    let before = fs::read_to_string(env.path("hallmark.toml")).unwrap();
    let renamed = before.replace("name = \"station\"", "name = \"station-now\"");
    reload(&env, &renamed);
    let shown = env.json(&["device", "show", "press-7"]);
    assert_eq!(shown["certificates"].as_array().unwrap().len(), 1);
    env.run(&["device", "block", "press-7"]);
    let refused = env.caller(&device).ask(&Request::device("press-7"));
    assert_eq!(refused.code(), "client_certificate_revoked");
    env.caller(&station).obtain(&Request::device("press-8"));
}

/// A certificate by an authority of the same name as ours, with a key that is not ours.
pub(crate) fn forged(id: &str) -> Holder {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.distinguished_name = DistinguishedName::new();
    ca.distinguished_name
        .push(DnType::CommonName, "Example Operations");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name = DistinguishedName::new();
    leaf.distinguished_name.push(DnType::CommonName, id);
    let certificate = leaf.signed_by(&key, &issuer).unwrap();
    Holder {
        id: id.to_owned(),
        key: key.serialize_pem(),
        certificate: certificate.pem(),
        chain: Vec::new(),
        serial: String::new(),
        thumbprint: String::new(),
    }
}

/// Records a certificate as issued by the authority of stations.
fn insert(database: &Connection, holder: &Holder, role: &str, journal: bool) {
    let der = der(&holder.certificate);
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    let sha256 = *Thumbprint::of(&der).as_bytes();
    let serial = parsed.tbs_certificate.serial.to_bytes_be();
    database
        .execute(
            "INSERT INTO intent (serial, issuer, purpose, profile, subject, key_sha256, tbs,
                 not_before, not_after, role, caller, recorded_at)
             SELECT ?1, id, 'leaf', ?2, ?3, randomblob(32), ?4, 1, 9999999999, ?2, 'x', 1
             FROM generation WHERE authority = 'operations'",
            params![serial, role, holder.id, parsed.tbs_certificate.as_ref()],
        )
        .unwrap();
    let intent = database.last_insert_rowid();
    let signature = signature_behind(&der, parsed.tbs_certificate.as_ref()).unwrap();
    database
        .execute(
            "INSERT INTO certificate (intent, signature, sha256, issued_at) VALUES (?1, ?2, ?3, 1)",
            params![intent, signature, sha256],
        )
        .unwrap();
    if journal {
        let detail = serde_json::json!({
            "sha256": hex::encode(sha256), "role": role, "profile": role,
        });
        database
            .execute(
                "INSERT INTO audit (sequence, at, actor, action, subject, detail, hash)
                 SELECT max(sequence) + 1, 1, 'x', 'certificate.issued', ?1, ?2, zeroblob(32)
                 FROM audit",
                params![holder.id, detail.to_string()],
            )
            .unwrap();
    }
}

/// Rows are written past the daemon. Verifies: neither a foreign certificate with all its rows nor
/// a row with another role makes a caller, and the log names the certificate; the name of a caller
/// is the one in its certificate.
#[test]
fn a_row_in_the_database_makes_no_caller() {
    let mut env = with_operators();
    let database = Connection::open(env.database()).unwrap();
    for (id, role, journal) in [
        ("operator-8", "operator", true),
        ("operator-9", "operator", false),
        ("station-9", "station", true),
        ("auditor-9", "auditor", true),
        ("press-9", "device", false),
    ] {
        let holder = forged(id);
        insert(&database, &holder, role, journal);
        let caller = env.caller(&holder);
        for answer in [
            caller.get("/v1/devices"),
            caller.ask(&Request::device("press-9")),
        ] {
            let output = (answer.status, answer.code());
            assert_eq!(output, (401, "client_certificate_unknown"), "{id}");
        }
    }
    let station = env.enlist("station", "station-1");
    let device = env.caller(&station).obtain(&Request::device("press-7"));
    let change = |sql: &str| {
        assert!(
            database.execute(sql, []).is_err(),
            "an intent never changes"
        );
    };
    change("UPDATE intent SET role = 'operator' WHERE subject = 'station-1'");
    database
        .execute_batch("DROP TRIGGER intent_is_immutable")
        .unwrap();
    for (id, holder) in [("station-1", &station), ("press-7", &device)] {
        let promote = "UPDATE intent SET role = 'operator', profile = 'operator'
                       WHERE subject = ?1 AND ended IS NULL";
        assert_eq!(database.execute(promote, [id]).unwrap(), 1);
        let answer = env.caller(holder).get("/v1/devices");
        let output = (answer.status, answer.code());
        assert_eq!(output, (401, "client_certificate_unknown"), "{id}");
    }
    let rename = "UPDATE intent SET role = 'device', profile = 'device', subject = 'press-8'
                  WHERE subject = 'press-7'";
    assert_eq!(database.execute(rename, []).unwrap(), 1);
    let answer = env.caller(&device).ask(&Request::device("press-8"));
    assert_eq!(answer.code(), "role_forbidden");
    let log = fs::read_to_string(env.path("hallmarkd.log")).unwrap();
    assert!(log.contains("client certificate refused, its record is wrong"));
    for reason in [
        "the key of operations-1 did not sign it",
        "the audit journal",
    ] {
        assert!(log.contains(reason), "{reason}");
    }
    // These rows contradict each other, which the invariants would report.
    env.stop();
    drop(database);
    fs::remove_file(env.database()).unwrap();
}

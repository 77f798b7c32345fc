//! Tests that an operator finds a certificate by what is known of it, that `show` explains it, and
//! that each role sees what it may.

use crate::process::until;
use crate::request::{Holder, Request, der};
use crate::roles::with_operators;
use crate::test_env::TestEnv;
use dps_emulator::Kind;
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

/// The serial numbers of a list, as the command prints them.
fn found(env: &TestEnv, criteria: &[&str]) -> Vec<String> {
    let rows = env.json(&[&["certificate", "list"], criteria].concat());
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| row["serial"].as_str().unwrap().to_owned())
        .collect()
}

/// Each key finds its certificate, alone and with others, in pages; a name that was never certified
/// and words that mean nothing are refused.
#[test]
fn a_certificate_is_found_by_each_key() {
    let env = with_operators();
    let operator = env.enlist("operator", "operator-1");
    let station = env.enlist("station", "press-7");
    let [first, second, other] =
        ["press-7", "press-7", "press-8"].map(|id| env.enlist("device", id));
    let serials =
        |of: &[&Holder]| -> Vec<String> { of.iter().map(|it| it.serial.clone()).collect() };
    let lower = first.serial.to_lowercase();
    for (criteria, wanted) in [
        (&["press-7"][..], &[&second, &first, &station][..]),
        (&["--device", "press-7"], &[&second, &first]),
        (&["--serial", &lower], &[&first]),
        (&["--sha256", &other.thumbprint], &[&other]),
        (&["--profile", "station"], &[&station]),
        (&["--profile", "device", "--limit", "2"], &[&other, &second]),
        (&["--authority", "line-1"], &[&other, &second, &first]),
        (&["--authority", "line-1", "--device", "press-8"], &[&other]),
        (&["--profile", "operator", "--state", "valid"], &[&operator]),
        (&["--state", "revoked"], &[]),
        (&["--profile", "device", "--expiring", "1s"], &[]),
        (
            &["--profile", "device", "--expiring", "100years"],
            &[&other, &second, &first],
        ),
        (
            &["--profile", "station", "--issued-since", "1h"],
            &[&station],
        ),
        (
            &["--profile", "station", "--issued-since", "2200-01-01"],
            &[],
        ),
    ] {
        assert_eq!(found(&env, criteria), serials(wanted), "{criteria:?}");
    }
    env.run(&[
        "certificate",
        "revoke",
        &first.serial,
        "--reason",
        "superseded",
    ]);
    env.run(&[
        "certificate",
        "revoke",
        &other.serial,
        "--reason",
        "certificateHold",
    ]);
    assert_eq!(found(&env, &["--state", "revoked"]), serials(&[&first]));
    assert_eq!(found(&env, &["--state", "on_hold"]), serials(&[&other]));
    let valid = ["--profile", "device", "--state", "valid"];
    assert_eq!(found(&env, &valid), serials(&[&second]));

    let text = env.run(&["certificate", "list", "--profile", "device", "--limit", "1"]);
    assert!(text.starts_with("SERIAL"), "{text}");
    let after = text.rsplit_once("--after ").unwrap().1.trim();
    let next = ["--profile", "device", "--limit", "1", "--after", after];
    assert_eq!(found(&env, &next), serials(&[&second]));

    let one_lost = format!("sha256={}", &other.thumbprint[1..]);
    for (criteria, status, code) in [
        ("subject=nonsense", 404, "certificate_unknown"),
        ("device=operator-1", 404, "certificate_unknown"),
        ("authority=nonsense", 404, "authority_unknown"),
        ("state=good", 400, "query_invalid"),
        ("expiring=soon", 400, "query_invalid"),
        ("issued_since=yesterday", 400, "query_invalid"),
        ("serial=xyz", 400, "serial_invalid"),
        ("sha256=0a", 400, "sha256_invalid"),
        (one_lost.as_str(), 400, "sha256_invalid"),
        ("sbject=press-7", 400, "query_invalid"),
        ("device=press-7&subject=press-8", 400, "query_invalid"),
        ("expiring=30d&state=revoked", 400, "query_invalid"),
        ("serial=0a0b0c", 404, "certificate_unknown"),
    ] {
        let answer = env
            .caller(&operator)
            .get(&format!("/v1/certificates?{criteria}"));
        assert_eq!((answer.status, answer.code()), (status, code), "{answer:?}");
    }
}

/// A station and a device find their own certificates alone; an auditor finds every certificate.
#[test]
fn each_role_finds_what_it_may() {
    let env = with_operators();
    let spelled = env.enlist("station", "Press-7");
    let [station, auditor, device] = [
        ("station", "press-7"),
        ("auditor", "auditor-1"),
        ("device", "press-7"),
    ]
    .map(|(role, id)| env.enlist(role, id));
    let listed = |holder: &Holder, criteria: &str| {
        let answer = env
            .caller(holder)
            .get(&format!("/v1/certificates{criteria}"));
        let rows = answer.body.as_array().cloned().unwrap_or_default();
        let serials = rows
            .iter()
            .map(|row| row["serial"].as_str().unwrap().to_owned());
        (answer.status, serials.collect::<Vec<_>>())
    };
    for own in [&station, &device] {
        let its = (200, vec![own.serial.clone()]);
        for criteria in ["", "?subject=press-7", "?state=valid", "?issued_since=1h"] {
            assert_eq!(listed(own, criteria), its, "{criteria}");
        }
        assert_eq!(listed(own, "?state=revoked"), (200, Vec::new()));
        let rows = env.caller(own).get("/v1/certificates").body;
        assert!(rows[0].get("asked_by").is_none(), "{rows}");
        for criteria in ["?subject=press-8", "?subject=PRESS-7"] {
            assert_eq!(listed(own, criteria).0, 403, "{criteria}");
        }
        let shown = env
            .caller(own)
            .get(&format!("/v1/certificates/{}", own.serial));
        assert_eq!(shown.status, 200);
        assert_eq!(shown.body["record"], Value::Null, "who asked is not for it");
    }
    assert_eq!(listed(&station, "?device=press-7").0, 403);
    assert_eq!(listed(&station, ""), (200, vec![station.serial.clone()]));
    assert_eq!(listed(&spelled, ""), (200, vec![spelled.serial.clone()]));
    let (status, all) = listed(&auditor, "?limit=1000");
    assert_eq!(status, 200);
    for holder in [&station, &auditor, &device] {
        assert!(all.contains(&holder.serial));
    }
    let rows = env.caller(&auditor).get("/v1/certificates").body;
    assert!(rows[0]["asked_by"].is_string(), "{rows}");
    let export = format!("/v1/certificates/{}/export", auditor.serial);
    assert_eq!(env.caller(&station).get(&export).code(), "role_forbidden");
    assert_eq!(env.stranger().get(&export).status, 401);
}

/// `show` says who asked and why that was allowed, what signed, and where the leaf is accepted.
#[test]
fn show_explains_a_certificate() {
    let env = TestEnv::running();
    env.add_group("group-a", "line-1");
    env.run(&["enrollment", "add", "--individual", "press-8"]);
    env.wait_in_sync();
    let station = env.station();
    let [grouped, individual] =
        ["press-7", "press-8"].map(|id| station.obtain(&Request::device(id)));
    env.wait_in_sync();
    let record = |serial: &str| env.json(&["certificate", "show", serial])["record"].clone();
    let place = |record: &Value, place: &str| {
        let places = record["in_force"].as_array().unwrap();
        places
            .iter()
            .find(|it| it["place"] == place)
            .cloned()
            .unwrap_or_default()
    };
    let of_group = record(&grouped.serial);
    assert_eq!(of_group["asked_by"], "station station-1", "{of_group}");
    assert!(
        of_group["permission"]
            .as_str()
            .unwrap()
            .contains("[[station]]")
    );
    assert_eq!(of_group["signed_by"]["token"], "factory");
    assert_eq!(
        (&of_group["state"], &of_group["current"]),
        (&json!("valid"), &json!(true))
    );
    let dps = place(&of_group, "dps: dps");
    assert_eq!(dps["enrollment"], "group group-a", "{of_group}");
    assert!(dps["observed_at"].is_string(), "{dps}");
    assert!(
        place(&of_group, "api")["answer"]
            .as_str()
            .unwrap()
            .contains("device press-7")
    );

    let dps = place(&record(&individual.serial), "dps: dps");
    assert_eq!(
        (&dps["enrollment"], &dps["slot"]),
        (&json!("individual press-8"), &json!("primary"))
    );

    let next = station.obtain(&Request::device("press-7"));
    assert_eq!(record(&grouped.serial)["current"], false);
    assert_eq!(record(&next.serial)["current"], true);
    env.run(&[
        "certificate",
        "revoke",
        &next.serial,
        "--reason",
        "superseded",
    ]);
    let revoked = record(&next.serial);
    assert_eq!(revoked["state"], "revoked");
    assert_eq!(place(&revoked, "api"), Value::Null);
    assert_eq!(
        place(&revoked, "dps: dps")["enrollment"],
        "group group-a",
        "DPS reads no list"
    );

    let root = env.json(&["authority", "show", "root"])[0]["serial"].clone();
    let of_root = record(root.as_str().unwrap());
    assert!(
        of_root["permission"].as_str().unwrap().contains("daemon")
            || of_root["asked_by"].is_string()
    );
}

/// Another program changes enrollments at the service. Verifies that `show` says what was observed
/// there, not what is desired.
#[test]
fn show_says_what_was_observed_of_a_changed_enrollment() {
    let mut env = TestEnv::new();
    let configuration = env.configuration();
    env.configure(&format!(
        "{configuration}\n[policy]\nscan_interval = \"1s\"\ndrift = \"report\"\n"
    ));
    env.start();
    env.run_ceremony();
    for id in ["press-7", "press-8"] {
        env.run(&["enrollment", "add", "--individual", id]);
    }
    let station = env.station();
    let [first, other] = ["press-7", "press-8"].map(|id| station.obtain(&Request::device(id)));
    env.wait_in_sync();
    let answers = |of: &Holder| {
        let record = env.json(&["certificate", "show", &of.serial])["record"].clone();
        record["in_force"].to_string()
    };
    assert!(answers(&first).contains("press-7 admits by it, observed"));
    let disabled = json!({ "provisioningStatus": "disabled" });
    let disabled = disabled.as_object().unwrap().clone();
    env.emulator
        .edit_record(Kind::Individual, "press-7", disabled)
        .unwrap();
    until("the change is shown", || {
        let seen = answers(&first);
        (seen.contains("was changed outside Hallmark, and is not enabled, observed")
            && !seen.contains("admits by it"))
        .then_some(())
    });
    env.emulator
        .delete_record(Kind::Individual, "press-8")
        .unwrap();
    until("the deletion is shown", || {
        answers(&other)
            .contains("was deleted outside Hallmark, observed")
            .then_some(())
    });
}

/// Each kind of file is what OpenSSL reads, and is the certificate that was issued.
#[test]
fn a_certificate_is_exported_in_each_form() {
    let env = TestEnv::running();
    let device = env.enlist("device", "press-7");
    let file = |name: &str| env.path(name).display().to_string();
    let [pem, binary, chain] = ["its.pem", "its.der", "its-chain.pem"].map(file);
    for (format, path) in [("pem", &pem), ("der", &binary), ("chain", &chain)] {
        let export = [
            "certificate",
            "export",
            &device.serial,
            "--format",
            format,
            "--out",
            path,
        ];
        env.run(&export);
    }
    assert_eq!(fs::read_to_string(&pem).unwrap(), device.certificate);
    assert_eq!(fs::read(&binary).unwrap(), der(&device.certificate));
    let whole = device.certificate.clone() + &device.chain.concat();
    assert_eq!(fs::read_to_string(&chain).unwrap(), whole);
    let printed = env.run(&[
        "certificate",
        "export",
        &device.thumbprint,
        "--format",
        "chain",
    ]);
    assert_eq!(printed, whole);
    let as_json = env.json(&["certificate", "export", &device.thumbprint]);
    assert_eq!(as_json["content"], device.certificate.as_str());
    let mut openssl = Command::new("openssl");
    openssl.args([
        "x509", "-inform", "DER", "-noout", "-serial", "-in", &binary,
    ]);
    let output = String::from_utf8(openssl.output().unwrap().stdout).unwrap();
    assert_eq!(output.trim(), format!("serial={}", device.serial));

    let refused = env.hallmark(&["certificate", "export", "0A1B2C3D", "--out", &file("x.pem")]);
    assert!(refused.error.contains("certificate_unknown"), "{refused:?}");
    assert!(!env.path("x.pem").exists());
    for usage in [
        &["certificate", "export", &device.serial, "--format", "der"][..],
        &["certificate", "export", &device.serial, "--format", "p12"],
    ] {
        assert_eq!(env.hallmark(usage).code, Some(2), "{usage:?}");
    }
}

/// The daemon is killed while a token signs. Verifies that the list has the abandoned intent with
/// its serial number, which is on the revocation list, and that what was issued before and after is
/// found in the ranges that follow.
#[test]
fn an_abandoned_intent_is_listed_and_lists_go_on_after_a_crash() {
    let mut env = TestEnv::running();
    let station = env.enlist("station", "station-1");
    env.is_killed_while_signing_for(&station, "press-1");
    env.start();
    env.wait_ready();
    let abandoned = until("the intent is abandoned", || {
        found(&env, &["--state", "abandoned"]).pop()
    });
    let rows = env.json(&["certificate", "list", "--state", "abandoned"]);
    assert_eq!(rows[0]["subject"], "press-1");
    assert_eq!(rows[0]["thumbprint"], Value::Null);
    let relying = crate::relying_party::Relying::on(&env);
    until("the serial number is listed", || {
        relying
            .listed("line-1")
            .1
            .contains_key(&abandoned)
            .then_some(())
    });
    let station = env.caller(&station);
    let mut issued = Vec::new();
    for number in 0..70 {
        let id = format!("press-{}", number % 5 + 10);
        issued.push(station.obtain(&Request::device(&id)).serial);
    }
    issued.reverse();
    let valid = ["--profile", "device", "--state", "valid"];
    assert_eq!(found(&env, &valid), issued);
    env.restart();
    until("a range is summarised", || {
        (env.count("certificate_range") > 0).then_some(())
    });
    assert_eq!(found(&env, &valid), issued);
    assert_eq!(found(&env, &["--state", "abandoned"]), [abandoned]);
}

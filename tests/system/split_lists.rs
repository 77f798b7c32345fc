//! Tests delta lists and partitions of revocation lists: signed when something changes, fetched
//! from the addresses that certificates and lists name, judged by OpenSSL, and continued after a
//! kill.

use crate::process::until;
use crate::relying_party::Relying;
use crate::request::{Holder, Request, der};
use crate::test_env::{PUBLIC_HTTP, TestEnv};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const LINE_1: &str = "name = \"line-1\"\ntoken = \"factory\"\n";

/// An environment with these settings of `line-1` and of `[policy]`.
fn with(line: &str, policy: &str) -> TestEnv {
    let env = TestEnv::new();
    configure(&env, line, policy);
    env.started()
}

fn configure(env: &TestEnv, line: &str, policy: &str) {
    let table = format!("{LINE_1}{line}\n");
    let configuration = env.configuration().replacen(LINE_1, &table, 1);
    env.configure(&format!("{configuration}\n[policy]\n{policy}\n"));
}

fn change(env: &TestEnv, command: &str, device: &Holder) -> Value {
    let more: &[&str] = match command {
        "revoke" => &["--reason", "keyCompromise"],
        _ => &[],
    };
    let answer = env.json(&[&["certificate", command, &device.serial], more].concat());
    assert_eq!(answer["receipt"]["complete"], true, "{answer:#}");
    answer
}

/// The base of a delta list in the database of the daemon, and its number, of the newest one.
fn newest_delta(env: &TestEnv) -> (String, String) {
    let database = crate::invariants::open(&env.database());
    let sql = "SELECT hex(base), hex(number) FROM crl
               WHERE base IS NOT NULL AND der IS NOT NULL ORDER BY number DESC LIMIT 1";
    let row = database.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
    row.unwrap()
}

/// Changes are on the delta list when the command answers, and the complete list stays as it was:
/// a verifier that uses delta lists follows each change, one that does not follows on schedule. A
/// hold that has ended is removed, whether the base has it or not.
#[test]
fn a_delta_list_has_each_change_at_once() {
    let mut env = with("delta_crls = true", "");
    let station = env.station();
    let [held, revoked, other] =
        ["press-1", "press-2", "press-3"].map(|id| station.obtain(&Request::device(id)));
    let root = env.authority("root");
    let relying = Relying::on(&env);
    let (complete, entries) = relying.listed("line-1");
    assert!(entries.is_empty());
    for device in [&held, &revoked, &other] {
        assert_eq!(relying.judge_with_deltas(device, &root), Ok(()));
    }
    let refused = |relying: &Relying, device: &Holder| {
        let refusal = relying.judge_with_deltas(device, &root).unwrap_err();
        assert!(refusal.contains("certificate revoked"), "{refusal}");
    };
    change(&env, "hold", &held);
    refused(&relying, &held);
    change(&env, "revoke", &revoked);
    refused(&relying, &revoked);
    assert_eq!(relying.judge_with_deltas(&other, &root), Ok(()));
    assert_eq!(relying.judge(&revoked, &root), Ok(()), "the complete list");
    let (delta, entries) = relying.listed("line-1.delta");
    assert_eq!(entries.get(&held.serial), Some(&6), "{entries:?}");
    assert_eq!(entries.get(&revoked.serial), Some(&1), "{entries:?}");
    assert!(delta > complete);
    assert_eq!(relying.listed("line-1"), (complete, Default::default()));
    let (base, number) = newest_delta(&env);
    let of = |digits: &str| u64::from_str_radix(digits, 16).unwrap();
    assert_eq!((of(&base), of(&number)), (complete, delta));

    // Not on the base, and on an earlier delta list: removed all the same (RFC 5280 5.2.4).
    let answer = change(&env, "release", &held);
    assert!(answer.to_string().contains("list "), "{answer}");
    let (_, entries) = relying.listed("line-1.delta");
    assert_eq!(entries.get(&held.serial), Some(&8), "{entries:?}");
    assert_eq!(relying.judge_with_deltas(&held, &root), Ok(()));
    refused(&relying, &revoked);
    let shown = env.json(&["certificate", "show", &revoked.serial]);
    let first = &shown["record"]["revocations"][0]["first_list"];
    assert!(
        first.as_str().unwrap().parse::<u64>().unwrap() > complete,
        "{shown:#}"
    );

    // A complete list on schedule; then a hold that the base has, and its end.
    change(&env, "hold", &held);
    let fast = "crl_interval = \"30s\"\ncrl_validity = \"10m\"\n\
                delta_crl_interval = \"2s\"\ndelta_crl_validity = \"1m\"";
    env.stop();
    configure(&env, "delta_crls = true", fast);
    env.start();
    env.wait_ready();
    let relying = Relying::on(&env);
    let (second, entries) = until("the next complete list", || {
        let listed = relying.listed("line-1");
        (listed.0 > delta).then_some(listed)
    });
    assert_eq!(entries.get(&held.serial), Some(&6), "{entries:?}");
    assert_eq!(entries.get(&revoked.serial), Some(&1), "{entries:?}");
    refused(&relying, &held);
    change(&env, "release", &held);
    assert_eq!(relying.judge_with_deltas(&held, &root), Ok(()));
    let (now, listed) = (relying.listed("line-1").0, relying.listed("line-1.delta").1);
    assert!(
        now > second || listed.get(&held.serial) == Some(&8),
        "{listed:?}"
    );
    let answer = relying.get("/crl/line-1.delta.crl");
    let age = answer.headers()["cache-control"]
        .to_str()
        .unwrap()
        .to_owned();
    let age: i64 = age.rsplit_once('=').unwrap().1.parse().unwrap();
    assert!(age <= 2, "{age}");
    let status = env.json(&["status"]);
    let delta = |it: &&Value| it["delta"] == true;
    let deltas = status["crls"].as_array().unwrap().iter().filter(delta);
    assert_eq!(deltas.count(), 1, "{status:#}");
    assert_eq!(relying.get("/crl/plant.delta.crl").status(), 404);
    env.run(&["audit", "verify"]);
}

/// The daemon is killed between the record of a delta list and its publication: the next one has a
/// greater number and the change.
#[test]
fn a_delta_list_that_a_crash_left_unsigned_is_never_signed() {
    let mut env = with("delta_crls = true", "");
    let root = env.authority("root");
    let station = env.enlist("station", "station-1");
    for (point, id) in [("crl-recorded", "press-1"), ("crl-signed", "press-2")] {
        let device = env.caller(&station).obtain(&Request::device(id));
        let (before, complete) = {
            let relying = Relying::on(&env);
            (relying.listed("line-1.delta").0, relying.listed("line-1").0)
        };
        env.restart_to_stay_at(point);
        let client = env.client();
        let revoke = [
            "certificate",
            "revoke",
            &device.serial,
            "--reason",
            "superseded",
        ];
        std::thread::scope(|scope| {
            let interrupted = scope.spawn(|| client.hallmark(&revoke));
            env.stays_at(point);
            assert_eq!(
                Relying::on(&env).listed("line-1.delta").0,
                before,
                "{point}"
            );
            env.kill();
            interrupted.join().unwrap();
        });
        assert_eq!(
            env.count("crl WHERE der IS NULL AND base IS NOT NULL"),
            1,
            "{point}"
        );
        env.start();
        env.wait_ready();
        let relying = Relying::on(&env);
        let (number, listed) = until("the next delta list is signed", || {
            let listed = relying.listed("line-1.delta");
            (listed.0 > before).then_some(listed)
        });
        assert!(number > before + 1, "{point}: {before}, {number}");
        assert!(listed.contains_key(&device.serial), "{point}: {listed:?}");
        assert_eq!(relying.listed("line-1").0, complete, "{point}");
        assert!(relying.judge_with_deltas(&device, &root).is_err());
        assert_eq!(env.count("crl WHERE der IS NULL"), 0, "{point}");
    }
}

/// The address of the list that a certificate names.
fn list_of(device: &Holder) -> String {
    let (crl, _) = crate::relying_party::points_to(&der(&device.certificate)).unwrap();
    crl.strip_prefix(&format!("{PUBLIC_HTTP}/crl/"))
        .unwrap()
        .to_owned()
}

/// Each certificate names the list of its partition, and only that one changes when it is revoked;
/// OpenSSL accepts no other one for it. Another number of partitions is for the next generation: no
/// certificate loses its list.
#[test]
fn a_certificate_names_the_partition_that_has_it() {
    let mut env = with("crl_partitions = 4", "");
    let root = env.authority("root");
    let station = env.enlist("station", "station-1");
    let obtain = |env: &TestEnv, id: &str| env.caller(&station).obtain(&Request::device(id));
    let mut devices: Vec<Holder> = Vec::new();
    while devices.iter().map(list_of).collect::<BTreeSet<_>>().len() < 2 || devices.len() < 4 {
        devices.push(obtain(&env, &format!("press-{}", devices.len())));
    }
    let relying = Relying::on(&env);
    for device in &devices {
        let last = u8::from_str_radix(&device.serial[device.serial.len() - 2..], 16).unwrap();
        let part = u16::from(last) % 4 + 1;
        assert_eq!(list_of(device), format!("line-1-1.{part}of4.crl"));
        assert_eq!(relying.judge(device, &root), Ok(()));
    }
    let revoked = &devices[0];
    let elsewhere = devices
        .iter()
        .find(|it| list_of(it) != list_of(revoked))
        .unwrap();
    let name = |device: &Holder| list_of(device).trim_end_matches(".crl").to_owned();
    let before = [revoked, elsewhere].map(|it| relying.listed(&name(it)).0);
    change(&env, "revoke", revoked);
    let refusal = relying.judge(revoked, &root).unwrap_err();
    assert!(refusal.contains("certificate revoked"), "{refusal}");
    for device in &devices[1..] {
        assert_eq!(relying.judge(device, &root), Ok(()));
    }
    let after = [revoked, elsewhere].map(|it| relying.listed(&name(it)).0);
    assert!(
        after[0] > before[0] && after[1] == before[1],
        "{before:?}, {after:?}"
    );
    // A list that does not cover the certificate says nothing about it.
    let other = format!("{PUBLIC_HTTP}/crl/{}", list_of(elsewhere));
    let refusal = relying
        .judge_by(revoked, &root, Some(&other), false)
        .unwrap_err();
    assert!(!refusal.contains("certificate revoked"), "{refusal}");

    let text = crate::relying_party::text(&relying.crl(&name(revoked)));
    for words in [
        "Issuing Distribution Point: critical",
        "Only User Certificates",
        &list_of(revoked),
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    for (file, words) in [
        ("line-1-1.crl", "is split into 4 partitions"),
        ("line-1-1.5of4.crl", "is split into 4 partitions"),
        ("line-1-1.1of8.crl", "is split into 4 partitions"),
        ("line-1-1.01of4.crl", "nothing is published"),
        ("plant-1.1of2.crl", "is not split"),
        ("plant-1.1of1.crl", "nothing is published"),
    ] {
        let answer = relying.get(&format!("/crl/{file}"));
        assert_eq!(answer.status(), 404, "{file}");
        let problem: Value = serde_json::from_slice(&answer.bytes().unwrap()).unwrap();
        assert!(
            problem["detail"].as_str().unwrap().contains(words),
            "{file}: {problem}"
        );
    }
    let status = env.json(&["status"]);
    let of_line = |it: &&Value| it["authority"] == "line-1";
    let partitions = status["crls"].as_array().unwrap().iter().filter(of_line);
    let partitions: Vec<&Value> = partitions.map(|it| &it["partition"]).collect();
    assert_eq!(
        partitions,
        [
            &json!("1of4"),
            &json!("2of4"),
            &json!("3of4"),
            &json!("4of4")
        ]
    );

    env.stop();
    configure(&env, "crl_partitions = 8\ndelta_crls = true", "");
    env.start();
    env.wait_ready();
    let late = obtain(&env, "press-late");
    assert!(list_of(&late).ends_with("of4.crl"), "{}", list_of(&late));
    let relying = Relying::on(&env);
    assert!(relying.judge(revoked, &root).is_err());
    until("each partition has a delta list", || {
        let delta = format!("/crl/{}.delta.crl", name(&late));
        (relying.get(&delta).status() == 200).then_some(())
    });
    // The complete list was signed again at once, so that verifiers find the delta list.
    change(&env, "revoke", &late);
    assert_eq!(relying.judge(&late, &root), Ok(()));
    let refusal = relying.judge_with_deltas(&late, &root).unwrap_err();
    assert!(refusal.contains("certificate revoked"), "{refusal}");
    env.stop();
    configure(&env, "crl_partitions = 8", "");
    env.start();
    env.wait_ready();
    let relying = Relying::on(&env);
    until(
        "the complete list has it again, and names no delta list",
        || {
            let text = crate::relying_party::text(&relying.crl(&name(&late)));
            let names_one = text.contains("Freshest CRL");
            (!names_one && relying.judge(&late, &root).is_err()).then_some(())
        },
    );
    let delta = format!("/crl/{}.delta.crl", name(&late));
    assert_eq!(relying.get(&delta).status(), 404, "no list names it");
    env.run(&["audit", "verify"]);
}

/// The next generation of an authority has the partitions of the configuration, the one before
/// keeps what its certificates name, and the revocations of both are kept.
#[test]
fn a_rollover_brings_the_new_number_of_partitions() {
    let mut env = with("crl_partitions = 2", "");
    let station = env.enlist("station", "station-1");
    let old = env.caller(&station).obtain(&Request::device("press-1"));
    let root = env.authority("root");
    change(&env, "revoke", &old);
    env.stop();
    configure(&env, "", "");
    env.start();
    env.wait_ready();
    env.run(&[
        "roll",
        "start",
        "--authority",
        "line-1",
        "--reason",
        "expiry",
    ]);
    until("generation 2 serves", || {
        let shown = env.json(&["authority", "show", "line-1"]);
        let serves = |it: &Value| it["generation"] == 2 && it["serving"] == true;
        shown.as_array().unwrap().iter().any(serves).then_some(())
    });
    let new = env.caller(&station).obtain(&Request::device("press-2"));
    assert_eq!(list_of(&new), "line-1-2.crl");
    let relying = Relying::on(&env);
    until("generation 2 has its list", || {
        (relying.get("/crl/line-1-2.crl").status() == 200).then_some(())
    });
    assert_eq!(relying.judge(&new, &root), Ok(()));
    assert!(list_of(&old).starts_with("line-1-1.") && list_of(&old).ends_with("of2.crl"));
    let refusal = relying.judge(&old, &root).unwrap_err();
    assert!(refusal.contains("certificate revoked"), "{refusal}");
}

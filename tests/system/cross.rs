//! Tests the cross-certificates of a root's rollover: relying parties that trust one root find a
//! path to what is below the other one, and no path leads to a compromised root.

use crate::authority_roll::{comes_to, second_signs, start};
use crate::est_client::EstClient;
use crate::process::{CommandOutput, until};
use crate::relying_party::Relying;
use crate::request::{Holder, der};
use crate::test_env::TestEnv;
use serde_json::Value;
use std::fs;
use std::process::Command;

/// The pair, by the names under which it is published.
const NEW_BY_OLD: &str = "root-2-by-root-1";
const OLD_BY_NEW: &str = "root-1-by-root-2";

/// A root that was rolled with all below it, and what is good on both sides.
pub(crate) struct Rolled {
    pub(crate) env: TestEnv,
    /// The old one first.
    pub(crate) roots: [String; 2],
    pub(crate) leaves: [Holder; 2],
}

pub(crate) fn rolled(mut env: TestEnv) -> Rolled {
    env.start();
    env.run_ceremony();
    let old = env.enlist("device", "press-1");
    let old_root = env.authority("root");
    start(&env, "root", "expiry", &[]);
    until("all below sign under the new root", || {
        let all = ["root", "plant", "line-1", "operations"];
        all.iter().all(|it| second_signs(&env, it)).then_some(())
    });
    has_pair(&env);
    let new = env.enlist_when_possible("device", "press-2");
    until("every authority has a revocation list", || {
        let authorities = env.json(&["authority", "list"]);
        let mut authorities = authorities.as_array().unwrap().iter();
        authorities
            .all(|it| it["crl_number"].is_i64())
            .then_some(())
    });
    let both = env.authority("root");
    let new_root = both.strip_prefix(&old_root).expect("the old root first");
    Rolled {
        roots: [old_root, new_root.to_owned()],
        leaves: [old, new],
        env,
    }
}

fn pairs(env: &TestEnv) -> i64 {
    env.count("cross_certificate")
}

fn has_pair(env: &TestEnv) {
    until("both roots have certified each other", || {
        (pairs(env) == 2).then_some(())
    });
    // The hierarchy is read after the record.
    until("the pair is published", || {
        let states = [NEW_BY_OLD, OLD_BY_NEW].map(|it| shown(env, it)["state"].clone());
        (states == ["good", "good"]).then_some(())
    });
}

/// A cross-certificate as `hallmark authority show` has it.
fn shown(env: &TestEnv, name: &str) -> Value {
    let generations = env.json(&["authority", "show", "root"]);
    let generations = generations.as_array().unwrap().iter();
    let mut all = generations.filter_map(|it| it["cross_certificates"].as_array());
    let found = all.find_map(|it| it.iter().find(|it| it["name"] == name));
    found.cloned().unwrap_or_default()
}

fn fetched(relying: &Relying, name: &str) -> Option<Vec<u8>> {
    let answer = relying.get(&format!("/ca/{name}.cer"));
    let is_there = answer.status() == 200;
    assert!(is_there || answer.status() == 404, "{answer:?}");
    is_there.then(|| answer.bytes().unwrap().to_vec())
}

fn cacerts(env: &TestEnv) -> Vec<Vec<u8>> {
    let certificates = EstClient::stranger(env).certificates("device/cacerts");
    certificates.iter().map(|it| der(it)).collect()
}

/// Verifies: OpenSSL, which trusts one root alone, refuses a leaf below the other one, and accepts
/// it by the cross-certificate with the lists of all; EST lists the pair beside both roots; it is
/// shown, listed, found by its serial number, and in the journal; a root is certified once.
#[test]
fn a_relying_party_that_trusts_one_root_verifies_leaves_below_the_other() {
    let Rolled { env, roots, leaves } = rolled(TestEnv::new());
    let [old_root, new_root] = &roots;
    let [old, new] = &leaves;
    let relying = Relying::on(&env);
    let new_by_old = fetched(&relying, NEW_BY_OLD).unwrap();
    let old_by_new = fetched(&relying, OLD_BY_NEW).unwrap();
    relying.judge(new, new_root).unwrap();
    relying.judge(old, old_root).unwrap();
    assert!(relying.judge(new, old_root).is_err());
    assert!(relying.judge(old, new_root).is_err());
    relying.judge_over(new, &new_by_old, old_root).unwrap();
    relying.judge_over(old, &old_by_new, new_root).unwrap();

    let listed = cacerts(&env);
    let pair = [new_by_old.clone(), old_by_new.clone()];
    assert!(listed.ends_with(&pair), "the pair comes last");
    for root in &roots {
        assert!(listed.contains(&der(root)), "both roots are there");
    }
    let pem = env.run(&["authority", "show", "root", "--cross"]);
    let exported: Vec<_> = pem.split_inclusive("-----END CERTIFICATE-----\n").collect();
    assert_eq!(exported.len(), 2, "{pem}");
    assert!(exported.iter().all(|it| pair.contains(&der(it))), "{pem}");

    let serial = shown(&env, NEW_BY_OLD)["serial"]
        .as_str()
        .unwrap()
        .to_owned();
    let found = env.json(&["certificate", "show", &serial]);
    assert_eq!(found["profile"], "cross-certificate", "{found}");
    let all = env.json(&["certificate", "list", "--profile", "cross-certificate"]);
    assert_eq!(all.as_array().map(Vec::len), Some(2), "{all}");
    let entry = "audit WHERE action = 'certificate.issued' AND detail ->> 'certifies' = 'root-2'";
    assert_eq!(env.count(entry), 1);
    assert_eq!(pairs(&env), 2);
}

/// Verifies: the report of the old root's compromise revokes the new root's certificate for it in
/// the same step; no path is left to a leaf below it, the pair is published no more, and the new
/// root's own leaves stay good.
#[test]
fn nothing_leads_to_a_compromised_root() {
    let Rolled { env, roots, leaves } = rolled(TestEnv::new());
    let relying = Relying::on(&env);
    let old_by_new = fetched(&relying, OLD_BY_NEW).unwrap();
    relying
        .judge_over(&leaves[0], &old_by_new, &roots[1])
        .unwrap();
    let compromise = ["--generation", "1"];
    start(&env, "root", "compromise", &compromise);
    assert_eq!(shown(&env, OLD_BY_NEW)["state"], "revoked");
    assert_eq!(shown(&env, NEW_BY_OLD)["state"], "excluded");
    for name in [OLD_BY_NEW, NEW_BY_OLD] {
        assert_eq!(fetched(&relying, name), None, "{name}");
    }
    let listed = cacerts(&env);
    assert!(!listed.contains(&old_by_new) && !listed.contains(&der(&roots[0])));
    let serial = shown(&env, OLD_BY_NEW)["serial"]
        .as_str()
        .unwrap()
        .to_owned();
    until("the new root's list has it", || {
        let (_, listed) = relying.listed("root-2");
        // cACompromise, RFC 5280 5.3.1.
        (listed.get(&serial) == Some(&2)).then_some(())
    });
    let refused = relying.judge_over(&leaves[0], &old_by_new, &roots[1]);
    assert!(refused.unwrap_err().contains("certificate revoked"));
    relying.judge(&leaves[1], &roots[1]).unwrap();
    let said = env.json(&["authority", "show", "root"]);
    let said = said[1]["no_cross_certificates"].as_str().unwrap();
    assert!(said.contains("generation 1 is revoked"), "{said}");
}

/// A rollover by compromise makes no pair: the old root must not vouch for the new one.
#[test]
fn a_compromised_root_and_its_successor_do_not_certify_each_other() {
    let env = TestEnv::running();
    let roll = start(&env, "root", "compromise", &[]);
    comes_to(&env, &roll, "done");
    assert!(second_signs(&env, "root"));
    env.enlist_when_possible("device", "press-1");
    assert_eq!(pairs(&env), 0);
    let all = env.json(&["authority", "show", "root"]);
    assert_eq!(all[1]["serving"], true, "{all}");
    let said = all[1]["no_cross_certificates"].as_str().unwrap();
    assert!(said.contains("generation 1 is revoked"), "{said}");
}

/// Verifies: a block of the old root holds the new root's certificate for it, and the end of the
/// block releases it; an operator withdraws a cross-certificate by its own command, and it is not
/// made again; a compromise is refused there, with the command that excludes all.
#[test]
fn a_cross_certificate_is_held_with_its_root_and_revoked_alone() {
    let Rolled { mut env, .. } = rolled(TestEnv::new());
    let generation = ["root", "--generation", "1", "--reason", "an audit"];
    env.run(&[&["authority", "block"], &generation[..]].concat());
    assert_eq!(shown(&env, OLD_BY_NEW)["state"], "revoked");
    assert_eq!(shown(&env, NEW_BY_OLD)["state"], "excluded");
    env.run(&[&["authority", "unblock"], &generation[..]].concat());
    has_pair(&env);

    let serial = shown(&env, NEW_BY_OLD)["serial"]
        .as_str()
        .unwrap()
        .to_owned();
    let revoke = ["certificate", "revoke", &serial, "--reason"];
    let refused = env.hallmark(&[&revoke[..], &["keyCompromise"]].concat());
    assert!(
        refused.error.contains("--authority root --generation 2"),
        "{refused:?}"
    );
    env.run(&[&revoke[..], &["superseded"]].concat());
    assert_eq!(shown(&env, NEW_BY_OLD)["state"], "revoked");
    assert_eq!(fetched(&Relying::on(&env), NEW_BY_OLD), None);
    let relying = Relying::on(&env);
    until("the old root's list has it", || {
        relying
            .listed("root-1")
            .1
            .contains_key(&serial)
            .then_some(())
    });
    env.restart();
    assert_eq!(shown(&env, NEW_BY_OLD)["state"], "revoked");
    assert_eq!(pairs(&env), 2);
}

/// The listener gets its next certificate below the new root. Verifies: curl, which trusts one root
/// alone, accepts it in either case.
#[test]
fn clients_of_the_listener_that_trust_one_root_go_on() {
    let Rolled { env, roots, .. } = rolled(TestEnv::new());
    let names = "names = [\"localhost\"";
    let configuration = env.configuration();
    assert!(configuration.contains(names));
    let accepts = |root: &String| {
        let trusted = env.write("trusted.pem", root);
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--noproxy", "*", "--cacert"]);
        curl.arg(&trusted).arg(format!("{}/healthz", env.https()));
        CommandOutput::of(&mut curl).code == Some(0)
    };
    assert!(accepts(&roots[0]) && !accepts(&roots[1]));
    env.configure(&configuration.replace(names, &format!("{names}, \"next.example\"")));
    env.run(&["reload"]);
    until("the listener has its next certificate", || {
        accepts(&roots[1]).then_some(())
    });
    assert!(accepts(&roots[0]));
}

/// The token is taken away before the pair is made. Verifies: the daemon says what the pair waits
/// for, and makes it when the token is back.
#[test]
fn the_pair_waits_for_the_token() {
    let mut env = TestEnv::new();
    env.start();
    env.run_ceremony();
    env.stop();
    let due = format!("cross-due-{NEW_BY_OLD}");
    env.start_to_stay_at(&[&due]);
    env.wait_ready();
    start(&env, "root", "expiry", &[]);
    env.stays_at(&due);
    env.kill();
    let away = env.path("tokens-away");
    fs::rename(env.path("tokens"), &away).unwrap();
    fs::create_dir(env.path("tokens")).unwrap();
    env.start();
    until("it says what it waits for", || {
        let waits = shown(&env, NEW_BY_OLD);
        let reason = waits["reason"].as_str().unwrap_or_default().to_owned();
        (waits["state"] == "waits" && reason.contains("factory")).then_some(())
    });
    fs::remove_dir(env.path("tokens")).unwrap();
    fs::rename(&away, env.path("tokens")).unwrap();
    env.wait_ready();
    has_pair(&env);
}

/// Kills before, between and after the records of the pair. Verifies: in the end there is one pair,
/// nothing is open, and the serial numbers that may have been signed are on the lists.
#[test]
fn the_pair_is_made_once_although_the_daemon_is_killed_at_every_step() {
    let mut env = TestEnv::new();
    env.start();
    env.run_ceremony();
    env.enlist("device", "press-1");
    env.stop();
    let due = format!("cross-due-{NEW_BY_OLD}");
    env.start_to_stay_at(&[&due]);
    env.wait_ready();
    start(&env, "root", "expiry", &[]);
    env.stays_at(&due);
    env.kill();
    for step in ["cycle-7", "cycle-8"] {
        // Rollovers below may have reached the step first.
        until("the pair has reached the step", || {
            env.start_to_stay_at(&[step]);
            env.stays_at(step);
            let is_its = env.count("open_intent WHERE purpose = 'cross'") == 1;
            env.kill();
            is_its.then_some(())
        });
        assert_eq!(pairs(&env), 0, "{step}");
    }
    for (step, made) in [
        (format!("cross-made-{NEW_BY_OLD}"), 1),
        (format!("cross-due-{OLD_BY_NEW}"), 1),
        (format!("cross-made-{OLD_BY_NEW}"), 2),
    ] {
        env.start_to_stay_at(&[&step]);
        env.stays_at(&step);
        assert_eq!(pairs(&env), made, "{step}");
        env.kill();
    }
    env.start();
    env.wait_ready();
    has_pair(&env);
    let cross = "intent_state WHERE purpose = 'cross'";
    assert_eq!(env.count(cross), 4);
    let abandoned = format!("{cross} AND state = 'abandoned' AND issuer = 1");
    assert_eq!(env.count(&abandoned), 2);
    until("all below sign under the new root", || {
        let all = ["plant", "line-1", "operations"];
        all.iter().all(|it| second_signs(&env, it)).then_some(())
    });
    assert_eq!(pairs(&env), 2);
}

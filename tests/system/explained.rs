//! Tests that every signature of a token is on record: as a certificate, as an abandoned serial
//! number, as a revocation list, or as a test signature of a key.

use crate::process::{signal, until};
use crate::request::Request;
use crate::test_env::TestEnv;
use crate::token_faults::env_with_faults;
use pkcs11_fault::plan::{Action, Fault, Plan};
use rustix::process::Signal;

/// How often the token was asked to sign, without an immediate refusal.
fn signatures(plan: &Plan) -> usize {
    let counted = |line: &String| line.as_str() == "C_SignInit 1+ delay 0";
    plan.came().iter().filter(|line| counted(line)).count()
}

/// How many signatures the database explains.
fn explained(env: &TestEnv) -> i64 {
    let proofs = "(SELECT coalesce(sum(total), 0) AS total FROM key_use)";
    let database = crate::invariants::open(&env.database());
    let proofs: i64 = database
        .query_row(&format!("SELECT total FROM {proofs}"), [], |row| row.get(0))
        .unwrap();
    let certified = env.count("intent_state WHERE state IN ('issued', 'abandoned')");
    let lists = env.count("audit WHERE action = 'crl.signed'");
    proofs + certified + lists
}

fn all_are_explained(env: &TestEnv, plan: &Plan) {
    until("every signature is explained", || {
        let (made, known) = (signatures(plan), explained(env));
        (i64::try_from(made) == Ok(known)).then_some(())
    });
}

/// Verifies: from the ceremony on, over a lost login, the keys of a token check and a killed
/// worker, the test signatures of the token are counted, audited and shown.
#[test]
fn test_signatures_at_a_tokens_return_are_counted() {
    let (env, plan) = env_with_faults(&[
        Fault::at("C_SignInit", 40, Action::Logout),
        Fault::from("C_SignInit", 1, Action::Delay(0)),
    ]);
    all_are_explained(&env, &plan);
    let station = env.station();
    for number in 0..30 {
        station.obtain(&Request::device(&format!("press-{number}")));
    }
    assert!(
        plan.came().iter().any(|line| line.contains("logout")),
        "the login was not lost"
    );
    all_are_explained(&env, &plan);

    let before = env.count("audit WHERE action = 'key.used'");
    let worker = env.worker().unwrap();
    signal(worker, Signal::KILL);
    until("another worker", || {
        env.worker().filter(|now| *now != worker)
    });
    env.wait_ready();
    station.obtain(&Request::device("press-31"));
    all_are_explained(&env, &plan);
    assert!(env.count("audit WHERE action = 'key.used'") > before);

    let shown = env.json(&["token", "show", "factory"]);
    let keys = shown["keys"].as_array().unwrap();
    let line = keys.iter().find(|it| {
        let purpose = it["purpose"].as_str().unwrap();
        purpose.starts_with("line-1 generation 1")
    });
    assert!(line.unwrap()["proofs"].as_i64() >= Some(3), "{shown:#}");
    let metrics = env.metrics();
    let counted = "hallmark_token_key_proofs_total{token=\"factory\"";
    assert!(metrics.contains(counted), "{metrics}");
}

//! Whether certificates can be issued is told truthfully: a listener without a certificate and a key
//! that does not sign make the daemon not ready, and an alarm says what to do.

use crate::process::until;
use crate::test_env::TestEnv;
use crate::token_faults::env_with_faults;
use pkcs11_fault::plan::{Action, Fault};
use std::fs;
use std::time::Duration;

/// The listener's profile, by which no certificate is issued for its key.
fn unusable(env: &TestEnv) -> String {
    let good = env.configuration();
    let (before, server) = good.split_once("name = \"server\"").unwrap();
    let server = server.replacen("[\"p256\"]", "[\"rsa2048\"]", 1);
    format!("{before}name = \"server\"{server}")
}

/// Not ready, and an alarm has all of these words.
fn is_told(env: &TestEnv, words: &[&str]) {
    until(&format!("an alarm says {words:?}"), || {
        let status = env.json(&["status"]);
        let alarms = status["alarms"].as_array().unwrap();
        let output = alarms.iter().any(|alarm| {
            let alarm = alarm.as_str().unwrap();
            words.iter().all(|word| alarm.contains(word))
        });
        (output && status["ready"] == false).then_some(())
    });
    let metrics = env.metrics();
    assert!(metrics.contains("hallmark_ready 0"), "{metrics}");
}

/// Ready, and nothing to tell.
fn is_over(env: &TestEnv) {
    until("all alarms are over", || {
        let status = env.json(&["status"]);
        let quiet = status["alarms"] == serde_json::json!([]);
        (quiet && status["ready"] == true).then_some(())
    });
}

/// Verifies: after a ceremony the listener gets no certificate, because its profile takes no key
/// like the listener's. It is tried a few times and not at every turn; a reload mends it at once.
#[test]
fn a_listener_that_gets_no_certificate_is_told() {
    let mut env = TestEnv::new();
    env.configure(&unusable(&env));
    env.start();
    let file = env.path("ceremony.toml");
    env.run(&["ceremony", "run", file.to_str().unwrap()]);
    is_told(
        &env,
        &[
            "HTTPS listener has no certificate",
            "[listen] names and profile",
        ],
    );
    assert!(env.metrics().contains("hallmark_https_serves 0"));
    std::thread::sleep(Duration::from_secs(8));
    let attempts = env.count("audit WHERE action LIKE '%refused%'");
    assert!((1..=4).contains(&attempts), "{attempts} attempts");
    env.configure(&env.configuration());
    env.run(&["reload"]);
    env.wait_in_sync();
    is_over(&env);
    assert_eq!(env.stranger().get("/readyz").status, 200);
    assert!(env.metrics().contains("hallmark_https_serves 1"));
}

/// Verifies: a certificate that cannot be renewed is told while it is valid, and when it has ended.
#[test]
fn a_certificate_that_cannot_be_renewed_is_told() {
    let env = TestEnv::new().with_a_movable_clock().started();
    let good = env.configuration();
    env.configure(&unusable(&env));
    env.run(&["reload"]);
    is_over(&env);
    env.passes(time::Duration::days(70));
    is_told(
        &env,
        &["has a certificate that ends at", "a new one cannot be made"],
    );
    // The listener goes on while it can.
    assert_eq!(env.stranger().get("/readyz").status, 503);
    env.passes(time::Duration::days(30));
    is_told(&env, &["has a certificate that ended at"]);
    env.configure(&good);
    env.run(&["reload"]);
    is_over(&env);
}

/// Verifies: a folder that takes no file costs no certificate at each attempt.
#[test]
fn a_certificate_that_cannot_be_kept_is_not_requested() {
    let env = TestEnv::running();
    let issued = env.count("certificate");
    let folder = env.path("state/tls");
    std::fs::rename(&folder, env.path("state/tls.kept")).unwrap();
    std::fs::write(&folder, "in the way").unwrap();
    env.configure(&env.configuration().replacen(
        "\"localhost\", ",
        "\"localhost\", \"other.example\", ",
        1,
    ));
    env.run(&["reload"]);
    is_told(&env, &["HTTPS listener", "cannot be written or read"]);
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(env.count("certificate"), issued);
    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(env.path("state/tls.kept"), &folder).unwrap();
    is_over(&env);
    assert_eq!(env.count("certificate"), issued + 1);
}

const CKR_KEY_FUNCTION_NOT_PERMITTED: u64 = 0x68;

/// Verifies: the token is up, and its keys are not on it. Every authority is named, with its token
/// and what to do; when they are there again, the daemon is ready.
#[test]
fn a_key_that_is_missing_is_told() {
    let mut env = TestEnv::running();
    env.stop();
    fs::rename(env.path("tokens"), env.path("tokens.ours")).unwrap();
    fs::create_dir(env.path("tokens")).unwrap();
    env.make_token("factory");
    env.start();
    for authority in ["root", "plant", "line-1", "operations"] {
        let who = format!("authority {authority} cannot sign");
        is_told(&env, &[&who, "token factory", "hallmark roll start"]);
    }
    let status = env.json(&["status"]);
    assert_eq!(status["tokens"]["factory"]["state"], "ready", "{status:#}");
    assert_eq!(env.stranger().get("/readyz").status, 503);
    let metrics = env.metrics();
    let can_sign = "hallmark_authority_can_sign{authority=\"line-1\"}";
    assert!(metrics.contains(&format!("{can_sign} 0")), "{metrics}");
    env.stop();
    fs::remove_dir_all(env.path("tokens")).unwrap();
    fs::rename(env.path("tokens.ours"), env.path("tokens")).unwrap();
    env.start();
    is_over(&env);
    assert!(env.metrics().contains(&format!("{can_sign} 1")));
}

/// Verifies: keys that are there stop to sign while the daemon runs. It is told after the first
/// request that fails, and over by itself.
#[test]
fn a_key_that_stops_to_sign_is_told() {
    let (env, plan) = env_with_faults(&[]);
    is_over(&env);
    let refused = Action::Return(CKR_KEY_FUNCTION_NOT_PERMITTED);
    plan.set(&[Fault::from("C_SignInit", 1, refused)]).unwrap();
    until("a request fails", || {
        let request = crate::request::Request::device("press-1");
        env.try_to_issue(&request).is_none().then_some(())
    });
    is_told(&env, &["authority line-1 cannot sign", "token factory"]);
    plan.set(&[]).unwrap();
    is_over(&env);
}

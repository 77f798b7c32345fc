//! Tests readiness: a listener without a certificate and a key that does not sign make the daemon
//! not ready, and an alarm says what to do.

use crate::process::until;
use crate::test_env::TestEnv;
use crate::token_faults::env_with_faults;
use pkcs11_fault::plan::{Action, Fault};
use std::fs;
use std::time::Duration;

/// The listener's profile, whose key types exclude the listener's key.
fn unusable(env: &TestEnv) -> String {
    let good = env.configuration();
    let (before, server) = good.split_once("name = \"server\"").unwrap();
    let server = server.replacen("[\"p256\"]", "[\"rsa2048\"]", 1);
    format!("{before}name = \"server\"{server}")
}

/// Waits until the daemon is not ready, and an alarm has all of these words.
fn has_alarm(env: &TestEnv, words: &[&str]) {
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

/// Waits until the daemon is ready, without an alarm.
fn is_over(env: &TestEnv) {
    until("all alarms are over", || {
        let status = env.json(&["status"]);
        let quiet = status["alarms"] == serde_json::json!([]);
        (quiet && status["ready"] == true).then_some(())
    });
}

/// Verifies: after a ceremony the listener gets no certificate, because its profile excludes the
/// listener's key type. It is requested a few times and not in every pass; a reload ends that at
/// once.
#[test]
fn a_listener_without_a_certificate_is_an_alarm() {
    let mut env = TestEnv::new();
    env.configure(&unusable(&env));
    env.start();
    let file = env.path("ceremony.toml");
    env.run(&["ceremony", "run", file.to_str().unwrap()]);
    has_alarm(
        &env,
        &[
            "HTTPS listener has no certificate",
            "[listen] names and profile",
        ],
    );
    let status = env.json(&["status"]);
    assert_eq!(
        status["not_ready"][0]["code"], "https_not_serving",
        "{status:#}"
    );
    let alarms = status["alarm_details"].as_array().unwrap();
    let https = |it: &&serde_json::Value| it["code"] == "https_certificate_not_renewed";
    let alarm = alarms.iter().find(https).unwrap();
    assert!(alarm["parameters"]["not_after"].is_null(), "{alarm}");
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

/// Verifies: a certificate that cannot be renewed is an alarm while it is valid, and when it has
/// ended.
#[test]
fn a_certificate_that_cannot_be_renewed_is_an_alarm() {
    let env = TestEnv::new().with_a_movable_clock().started();
    let good = env.configuration();
    env.configure(&unusable(&env));
    env.run(&["reload"]);
    is_over(&env);
    env.passes(time::Duration::days(70));
    has_alarm(
        &env,
        &["has a certificate that ends at", "a new one cannot be made"],
    );
    // The listener serves until its certificate ends.
    assert_eq!(env.stranger().get("/readyz").status, 503);
    env.passes(time::Duration::days(30));
    has_alarm(&env, &["has a certificate that ended at"]);
    env.configure(&good);
    env.run(&["reload"]);
    is_over(&env);
}

/// Verifies: a folder that takes no file does not cost a certificate at each attempt.
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
    has_alarm(&env, &["HTTPS listener", "cannot be written or read"]);
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(env.count("certificate"), issued);
    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(env.path("state/tls.kept"), &folder).unwrap();
    is_over(&env);
    assert_eq!(env.count("certificate"), issued + 1);
}

const CKR_KEY_FUNCTION_NOT_PERMITTED: u64 = 0x68;

/// Verifies: the token is available, and its keys are not on it. Every authority is named, with its
/// token and what to do; when the keys are there again, the daemon is ready.
#[test]
fn a_missing_key_is_an_alarm() {
    let mut env = TestEnv::running();
    env.stop();
    fs::rename(env.path("tokens"), env.path("tokens.ours")).unwrap();
    fs::create_dir(env.path("tokens")).unwrap();
    env.make_token("factory");
    env.start();
    for authority in ["root", "plant", "line-1", "operations"] {
        let who = format!("authority {authority} cannot sign");
        has_alarm(&env, &[&who, "token factory", "hallmark roll start"]);
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

/// Verifies: keys that are present stop signing while the daemon runs. The alarm comes after the
/// first request that fails, and ends by itself.
#[test]
fn a_key_that_stops_signing_is_an_alarm() {
    let (env, plan) = env_with_faults(&[]);
    is_over(&env);
    let refused = Action::Return(CKR_KEY_FUNCTION_NOT_PERMITTED);
    plan.set(&[Fault::from("C_SignInit", 1, refused)]).unwrap();
    until("a request fails", || {
        let request = crate::request::Request::device("press-1");
        env.try_to_issue(&request).is_none().then_some(())
    });
    has_alarm(&env, &["authority line-1 cannot sign", "token factory"]);
    plan.set(&[]).unwrap();
    is_over(&env);
}

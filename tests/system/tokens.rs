//! Tests the commands that list, show, check and measure tokens and leave nothing behind.

use crate::process::until;
use crate::test_env::TestEnv;
use serde_json::Value;
use std::fs;
use std::process::Command;

const CRASHING_MODULE: &str = "
#include <stdlib.h>
unsigned long C_GetFunctionList(void *list) { abort(); }
";

/// The configuration with one token more, whose module `source` implements.
fn with_module(env: &TestEnv, source: &str) -> String {
    let (code, module) = (env.write("module.c", source), env.path("module.so"));
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&module, &code])
        .output();
    let output = output.expect("softhsm-setup/install brings a C compiler");
    assert!(output.status.success(), "{output:?}");
    let pin = env.path("pin");
    let table = format!(
        "[[token]]\nname = \"broken\"\nkind = \"pkcs11\"\nmodule = {module:?}\nlabel = \"any\"\n\
         credential = {pin:?}\n\n[[authority]]",
    );
    env.configuration().replacen("[[authority]]", &table, 1)
}

fn keys(env: &TestEnv) -> Vec<Value> {
    env.json(&["token", "show", "factory"])["keys"]
        .as_array()
        .unwrap()
        .clone()
}

/// Verifies: the configured token is found among all slots, with its state, and without its PIN; a
/// module that crashes costs its own line and nothing else.
#[test]
fn visible_tokens_are_listed_and_a_crashing_module_is_one_line() {
    let mut env = TestEnv::new();
    env.configure(&with_module(&env, CRASHING_MODULE));
    // Listing tokens reads no PIN.
    env.write_secret("pin", "0000");
    env.start();
    let rows = until("the token is parked", || {
        let rows = env.json(&["token", "list"]);
        let parked = |row: &Value| row["token"] == "factory" && row["state"] == "parked";
        rows.as_array().unwrap().iter().any(parked).then_some(rows)
    });
    let rows = rows.as_array().unwrap();
    let row_of = |name: &str| rows.iter().find(|row| row["token"] == name);
    let factory = row_of("factory").expect("it is in sight");
    assert_eq!(factory["label"], "factory", "{factory}");
    assert!(factory["slot"].is_u64(), "{factory}");
    let module = env.path("module.so").display().to_string();
    let crashed = rows.iter().find(|row| row["module"] == module.as_str());
    let remarks = crashed.expect("it is in sight")["remarks"]
        .as_str()
        .unwrap();
    assert!(remarks.contains("signal"), "{remarks}");
    assert_ne!(
        row_of("broken").expect("it is configured")["state"],
        "ready"
    );
    let nss = rows.iter().find(|row| row["family"] == "NSS softokn");
    let remarks = nss.expect("tests/install-modules brings it")["remarks"].to_string();
    assert!(remarks.contains("NSS_CONFIGDIR"), "{remarks}");
    assert!(env.run(&["token", "list"]).contains("LABEL"));
}

/// Verifies: `token show` lists the objects of a token and their owners; `token check` runs the
/// contract, and writes a report; the keys are the same afterwards; the audit journal has the
/// check.
#[test]
fn a_token_is_shown_and_checked_and_keeps_its_keys() {
    let env = TestEnv::running();
    let before = keys(&env);
    let purposes: Vec<_> = before.iter().map(|key| key["purpose"].clone()).collect();
    assert_eq!(purposes.len(), 4, "{purposes:?}");
    for authority in ["root", "plant", "line-1", "operations"] {
        let purpose = format!("{authority} generation 1 (serving)");
        assert!(purposes.contains(&Value::from(purpose)), "{purposes:?}");
    }
    let shown = env.json(&["token", "show", "factory"]);
    let mechanisms = shown["mechanisms"].as_array().unwrap();
    assert!(mechanisms.contains(&"CKM_ECDSA".into()), "{shown}");
    assert_eq!(
        (&shown["sessions"], &shown["unusable"]),
        (&2.into(), &Value::Array(vec![]))
    );

    let report = env.json(&["token", "check", "factory"]);
    assert_eq!(report["good"], true, "{report}");
    assert_eq!(report["left_behind"], Value::Array(vec![]));
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.len() > 50, "{report}");
    assert!(
        checks.iter().all(|check| check["verdict"] == "passed"),
        "{report}"
    );
    assert_eq!(keys(&env), before);
    assert_eq!(env.count("audit WHERE action = 'token.checked'"), 1);
}

/// Verifies: rates for each number of requests at a time, in words too; progress beside the answer;
/// no key is left; a name that is no token is refused with exit code 1, and so is a wrong key type.
#[test]
fn a_token_is_measured_and_no_key_is_left() {
    let mut env = TestEnv::new();
    env.start();
    until("the token is ready", || {
        (env.json(&["status"])["tokens"]["factory"]["state"] == "ready").then_some(())
    });
    let bench = [
        "token",
        "bench",
        "factory",
        "--key-type",
        "p256",
        "--seconds",
        "1",
    ];
    let report = env.json(&bench);
    let rows = report["rows"].as_array().unwrap();
    let in_flight: Vec<_> = rows.iter().map(|row| row["in_flight"].as_u64()).collect();
    assert_eq!(in_flight, [Some(1), Some(2), Some(8)]);
    assert!(
        rows.iter()
            .all(|row| row["signatures_per_second"].as_u64() > Some(0))
    );
    let output = env.hallmark(&bench);
    assert!(output.out.contains("leaves an hour"), "{output:?}");
    assert!(output.error.contains("p256"), "{output:?}");
    assert_eq!(keys(&env), Vec::<Value>::new());
    for refused in [
        &["token", "show", "other"][..],
        &["token", "check", "other"],
        &["token", "bench", "factory", "--key-type", "dsa"],
        &["token", "bench", "factory", "--seconds", "3600"],
    ] {
        let output = env.hallmark(refused);
        assert_eq!(output.code, Some(1), "{refused:?}: {output:?}");
    }
}

/// Verifies: the daemon and its worker, which hold access keys and the PIN, leave no core dump.
#[test]
fn no_process_that_holds_a_secret_leaves_a_core() {
    let env = TestEnv::running();
    for process in [env.daemon(), env.worker().unwrap()] {
        let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
        let core = limits
            .lines()
            .find(|it| it.starts_with("Max core file size"));
        let limit: Vec<_> = core.unwrap().split_whitespace().skip(4).take(2).collect();
        assert_eq!(limit, ["0", "0"], "{limits}");
    }
}

//! Tests what scripts rely on: exit codes, JSON, a repeatable ceremony.

use crate::request::Request;
use crate::test_env::{CEREMONY, TestEnv};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

/// The objects on the token: SoftHSM keeps each in a file of its own.
fn objects(env: &TestEnv) -> BTreeSet<String> {
    let token = fs::read_dir(env.path("tokens")).unwrap().next().unwrap();
    let files = fs::read_dir(token.unwrap().path()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name.ends_with(".object") && name != "token.object")
        .collect()
}

#[test]
fn the_exit_code_shows_the_result() {
    let mut env = TestEnv::running();
    let code = |env: &TestEnv, arguments: &[&str]| env.hallmark(arguments).code;
    assert_eq!(code(&env, &["status"]), Some(0));
    for refused in [
        &["device", "show", "nobody"][..],
        &["authority", "show", "nobody"],
        &["enrollment", "remove", "--group", "nothing"],
        &[
            "enrollment",
            "add",
            "--group",
            "line-1",
            "--authority",
            "nobody",
        ],
        &["enrollment", "add", "--individual", "not an id"],
        &["roll", "abort", "1"],
        &[
            "issue",
            "--profile",
            "device",
            "--id",
            "press-7",
            "--csr",
            "/nonexistent",
        ],
    ] {
        let output = env.hallmark(refused);
        assert_eq!(output.code, Some(1), "{refused:?}: {output:?}");
        assert!(
            output.error.starts_with("hallmark: ") && output.out.is_empty(),
            "{output:?}"
        );
    }
    for usage in [
        &["no-such-command"][..],
        &["roll", "abort", "one"],
        &["enrollment", "add"],
    ] {
        assert_eq!(code(&env, usage), Some(2), "{usage:?}");
    }
    env.stop();
    let output = env.hallmark(&["status"]);
    assert_eq!(output.code, Some(3));
    assert!(
        output.error.contains("admin.sock") && output.error.contains("is it running?"),
        "{output:?}"
    );
}

/// `TestEnv::json` fails on output that is not JSON.
#[test]
fn every_command_speaks_json() {
    let env = TestEnv::running();
    env.enlist("station", "station-1");
    let device = env.caller(&env.enlist("station", "station-2"));
    env.json(&["enrollment", "add", "--individual", "press-7"]);
    env.json(&[
        "enrollment",
        "add",
        "--group",
        "line-1",
        "--authority",
        "line-1",
    ]);
    device.obtain(&Request::device("press-7"));
    env.wait_in_sync();
    let roll = env.json(&["roll", "start", "press-7", "--reason", "expiry"]);
    let roll = roll["rolls"][0]["id"].to_string();
    let ceremony = env.path("ceremony.toml");
    for command in [
        &["status"][..],
        &["ceremony", "run", ceremony.to_str().unwrap()],
        &["authority", "show", "root"],
        &["device", "show", "press-7"],
        &["enrollment", "show", "press-7"],
        &["roll", "show", &roll],
        &["roll", "abort", &roll],
        &["push", "retry"],
        &["audit", "verify"],
        &["enrollment", "remove", "--group", "line-1"],
    ] {
        let said = env.json(command);
        assert!(
            said.is_object() || said.as_array().is_some_and(|it| !it.is_empty()),
            "{command:?}"
        );
    }
    for list in ["authority", "device", "enrollment", "roll", "push"] {
        assert!(env.json(&[list, "list"]).is_array(), "{list}");
    }
    let journal = env.json(&["audit", "show"]);
    let exported = env.run(&["audit", "export"]);
    let exported: Vec<Value> = exported
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(journal, Value::Array(exported));
    env.wait_in_sync();
}

/// Verifies: the second run finds everything, and makes no key and no signature; a file that
/// describes another authority by the same name is refused and makes nothing either.
#[test]
fn a_ceremony_that_is_repeated_makes_nothing() {
    let env = TestEnv::running();
    let (keys, signatures) = (objects(&env), env.count("intent"));
    assert_eq!(keys.len(), 8, "four key pairs: {keys:?}");
    let file = env.path("ceremony.toml");
    let transcript = env.json(&["ceremony", "run", file.to_str().unwrap()]);
    for authority in transcript["authorities"].as_array().unwrap() {
        assert_eq!(authority["outcome"], "existed", "{authority:#}");
        let certificate = authority["certificate"]["pem"].as_str().unwrap();
        assert_eq!(
            env.authority(authority["name"].as_str().unwrap()),
            certificate
        );
    }

    for (said, changed, reason) in [
        (
            "Example Works Line 1",
            "Example Works Line 2",
            "another subject",
        ),
        ("\"p384\"", "\"p256\"", "another key type"),
        ("path_length = 2", "path_length = 3", "another path length"),
        ("issuer = \"plant\"", "issuer = \"root\"", "another issuer"),
    ] {
        let file = env.write("changed.toml", &CEREMONY.replace(said, changed));
        let output = env.hallmark(&["ceremony", "run", file.to_str().unwrap()]);
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.error.contains(reason), "{output:?}");
        assert!(output.error.contains("[authority_exists]"), "{output:?}");
    }
    assert_eq!(objects(&env), keys);
    assert_eq!(env.count("intent"), signatures);
}

//! Tests ceremonies with every key type, and on a token that does not say which keys it has made
//! itself.

use crate::device::is_assigned;
use crate::process::CommandOutput;
use crate::request::Request;
use crate::test_env::{CEREMONY, TestEnv};
use serde_json::Value;
use std::process::Command;

/// The ceremony that ships, with these key types from the root down.
fn with_keys(kinds: [&str; 4]) -> String {
    let mut parts = CEREMONY.split("[[authority]]");
    let mut text = parts.next().unwrap().to_owned();
    for (part, kind) in parts.zip(kinds) {
        let plain: Vec<&str> = part
            .lines()
            .filter(|it| !it.starts_with("key_type"))
            .collect();
        text += &format!("[[authority]]\nkey_type = {kind:?}{}\n", plain.join("\n"));
    }
    text
}

fn a_device_is_assigned(env: &TestEnv) {
    env.run(&[
        "enrollment",
        "add",
        "--group",
        "line-1",
        "--authority",
        "line-1",
    ]);
    let leaf = env.station().obtain(&Request::device("press-1"));
    env.wait_in_sync();
    is_assigned(&env.emulator, &leaf);
    leaf.is_accepted_by_openssl(&env.authority("root"));
}

/// Verifies: authorities with RSA keys of 4096 and 3072 bits, P-384 and Ed25519 are made, linted,
/// verified by the provisioning service and by OpenSSL, and DPS assigns a device below them.
#[test]
fn authorities_have_keys_of_every_kind() {
    let mut env = TestEnv::new();
    env.start();
    let kinds = ["rsa4096", "p384", "rsa3072", "ed25519"];
    env.write("ceremony.toml", &with_keys(kinds));
    env.run_ceremony();
    let authorities = env.json(&["authority", "list"]);
    let authorities = authorities.as_array().unwrap().iter();
    let made: Vec<_> = authorities.map(|it| it["key_type"].clone()).collect();
    assert_eq!(made, kinds);
    a_device_is_assigned(&env);
}

/// An authority with a P-521 key, which SoftHSM makes and which signs with SHA-512. Verifies:
/// OpenSSL accepts a certificate with a P-521 key below it, and its revocation list; a profile
/// without `p521` certifies no such key.
#[test]
fn an_authority_and_a_leaf_have_p521_keys() {
    let mut env = TestEnv::new();
    let of_stations = "name = \"station\"";
    let (before, after) = env.configuration().split_once(of_stations).map_or_else(
        || panic!("the configuration has a profile for stations"),
        |(before, after)| (before.to_owned(), after.to_owned()),
    );
    let wider = after.replacen("key_types = [", "key_types = [\"p521\", ", 1);
    env.configure(&format!("{before}{of_stations}{wider}"));
    env.start();
    env.write(
        "ceremony.toml",
        &with_keys(["p384", "p384", "p256", "p521"]),
    );
    env.run_ceremony();
    let algorithm = ["ec", "-pkeyopt", "ec_paramgen_curve:P-521"];
    let request = Request {
        profile: "station".to_owned(),
        ..Request::by_openssl("station-1", &env.path(""), &algorithm)
    };
    let station = env.try_to_issue(&request).expect("a certificate");
    station.is_accepted_by_openssl(&env.authority("root"));
    let text = |command: &[&str], pem: &str| {
        let file = env.write("p521.pem", pem);
        let mut openssl = Command::new("openssl");
        openssl.args(command).arg("-in").arg(file);
        let output = CommandOutput::of(&mut openssl);
        assert_eq!(output.code, Some(0), "{output:?}");
        output.out + &output.error
    };
    let printed = text(&["x509", "-noout", "-text"], &station.certificate);
    for words in ["ecdsa-with-SHA512", "NIST CURVE: P-521"] {
        assert!(printed.contains(words), "{printed}");
    }
    let device = Request::by_openssl("press-1", &env.path(""), &algorithm);
    assert_eq!(
        env.caller(&station).ask(&device).code(),
        "key_type_forbidden"
    );
}

/// Verifies: NSS does not say that it has made a key, so the transcript warns; everything else is
/// unchanged.
#[test]
fn a_token_that_does_not_report_what_it_made_is_warned_of() {
    let mut env = TestEnv::new();
    let folder = env.path("nss");
    std::fs::create_dir(&folder).unwrap();
    let mut certutil = Command::new("certutil");
    certutil
        .arg("-N")
        .arg("-d")
        .arg(format!("sql:{}", folder.display()));
    let output = certutil.arg("-f").arg(env.path("pin")).output();
    let output = output.expect("tests/install-modules brings certutil");
    assert!(output.status.success(), "{output:?}");
    let configuration = env.configuration();
    let (softhsm, rest) = configuration.split_once("SOFTHSM2_CONF").unwrap();
    let (_, rest) = rest.split_once('\n').unwrap();
    let nss = softhsm
        .replace("fragment = \"softhsm2\"", "fragment = \"nss\"")
        .replace("label = \"factory\"", "label = \"NSS Certificate DB\"");
    env.configure(&format!("{nss}NSS_CONFIGDIR = {folder:?}\n{rest}"));
    env.start();
    let file = env.write("ceremony.toml", CEREMONY);
    let transcript = env.json(&["ceremony", "run", file.to_str().unwrap()]);
    for authority in transcript["authorities"].as_array().unwrap() {
        assert_eq!(authority["outcome"], "created");
        let warned = |it: &Value| it.as_str().unwrap().contains("CKA_LOCAL");
        assert!(
            authority["remarks"].as_array().unwrap().iter().any(warned),
            "{authority}"
        );
    }
    env.run_ceremony();
    a_device_is_assigned(&env);
}

//! Tests the adoption of authorities that exist. A customer has a root and an intermediate, made
//! with OpenSSL and imported into the token with the token's own tool. Hallmark adopts both; then
//! they issue and revoke.

use crate::authority_roll::{begun, comes_to, start};
use crate::device::is_assigned;
use crate::old_authority::{MADE_HERE, P256, certify_plant, make, openssl, run};
use crate::process::CommandOutput;
use crate::relying_party::{Relying, pem};
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use crate::weak_key::Weakness;
use serde_json::Value;
use std::fs;
use std::process::Command;

/// The ceremony file: root and plant are adopted, the rest is made.
fn takeover(env: &TestEnv) -> String {
    let plant = fs::read_to_string(env.path("plant.pem")).unwrap();
    let root = env.path("root.pem");
    format!(
        "name = \"takeover\"\n\
         [[authority]]\nname = \"root\"\n\
         key = \"pkcs11:token=factory;object=Old%20Root;id=%01;type=private\"\n\
         certificate = {root:?}\ncrl_number = 41\n\
         [[authority]]\nname = \"plant\"\nissuer = \"root\"\n\
         key = \"pkcs11:id=%02\"\ncertificate = '''\n{plant}'''\n{MADE_HERE}"
    )
}

/// `openssl verify -crl_check_all`, with the lists of every authority above.
fn judged(env: &TestEnv, leaf: &Holder) -> CommandOutput {
    let relying = Relying::on(env);
    let lists = ["root", "plant", "line-1"].map(|name| pem("crl", &relying.crl(name)));
    env.write("lists.pem", &lists.concat());
    env.write("leaf.pem", &leaf.certificate);
    let above = ["line-1", "plant"].map(|name| env.authority(name));
    env.write("above.pem", &above.concat());
    let mut command = Command::new("openssl");
    command.args([
        "verify",
        "-x509_strict",
        "-crl_check_all",
        "-CAfile",
        "root.pem",
    ]);
    command.args([
        "-untrusted",
        "above.pem",
        "-CRLfile",
        "lists.pem",
        "leaf.pem",
    ]);
    CommandOutput::of(command.current_dir(env.path("")))
}

/// Verifies: root and intermediate are adopted with their certificates, and the transcript says so
/// with its warnings; the other authorities are made under them; the root is verified at the
/// provisioning service; OpenSSL accepts a device's leaf by the old root until the device is
/// blocked. A second run of the file changes nothing, nor does a restart.
#[test]
fn an_old_authority_is_adopted_and_issues_and_revokes() {
    let mut env = TestEnv::new();
    make(&env, "/C=DE/O=Works", [P256, P256]);
    env.start();
    let output = run(&env, &takeover(&env));
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.error.contains("adopting pkcs11:"), "{output:?}");
    let transcript: Value = serde_json::from_str(&output.out).unwrap();
    let outcomes = |transcript: &Value| -> Vec<Value> {
        let entries = transcript["authorities"].as_array().unwrap();
        entries.iter().map(|it| it["outcome"].clone()).collect()
    };
    assert_eq!(
        outcomes(&transcript),
        ["adopted", "adopted", "created", "created"]
    );
    let remarks = transcript["authorities"][0]["remarks"].to_string();
    assert!(remarks.contains("CKA_LOCAL"), "{remarks}");
    let old_root = fs::read_to_string(env.path("root.pem")).unwrap();
    assert_eq!(env.authority("root"), old_root);
    assert_eq!(env.count("audit WHERE action = 'authority.adopted'"), 2);

    // Runs the ceremony a second time, and gives the daemon time to act.
    env.run_ceremony();
    env.run(&[
        "enrollment",
        "add",
        "--group",
        "line-1",
        "--authority",
        "line-1",
    ]);
    let (number, _) = Relying::on(&env).listed("root");
    assert!(
        number > 41,
        "lists count on from the old authority's: {number}"
    );
    let leaf = env.station().obtain(&Request::device("press-1"));
    env.wait_in_sync();
    is_assigned(&env.emulator, &leaf);
    leaf.is_accepted_by_openssl(&old_root);
    let verdict = judged(&env, &leaf);
    assert_eq!(verdict.code, Some(0), "{verdict:?}");

    env.run(&["device", "block", "press-1"]);
    crate::process::until("the list says so", || {
        let (_, entries) = Relying::on(&env).listed("line-1");
        (entries.len() == 1).then_some(())
    });
    assert!(judged(&env, &leaf).error.contains("revoked"));
    env.run(&["device", "unblock", "press-1"]);
    env.wait_in_sync();

    openssl(
        &env,
        "req -new -key root.key -subj /CN=press-9 -out own.csr",
    );
    let csr = fs::read_to_string(env.path("own.csr")).unwrap();
    let own =
        env.station_called("station-2")
            .ask(&Request::of("device", "press-9", csr, String::new()));
    assert_eq!((own.status, own.code()), (400, "key_in_use"));

    env.restart();
    let again = run(&env, &takeover(&env));
    let transcript: Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!(outcomes(&transcript), ["existed"; 4]);
    assert_eq!(env.count("generation"), 4);
}

/// Verifies: each adoption that must fail is refused for its own reason, which the answer names,
/// and leaves nothing behind.
#[test]
fn an_authority_that_does_not_fit_is_not_adopted() {
    let mut env = TestEnv::new();
    make(&env, "/C=DE/O=Works", [P256, P256]);
    for extensions in ["no-lists", "names", "misnamed"] {
        openssl(
            &env,
            &format!(
                "req -x509 -config openssl.cnf -new -key root.key -days 9 -subj /CN=Old-Root \
                 -extensions {extensions} -out {extensions}.pem"
            ),
        );
    }
    openssl(
        &env,
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out stranger.key",
    );
    openssl(
        &env,
        "req -x509 -config openssl.cnf -new -key stranger.key -days 9 -subj /CN=Stranger \
         -extensions authority -out stranger.pem",
    );
    env.write("weak.key", &Weakness::Roca.key());
    openssl(
        &env,
        "req -x509 -config openssl.cnf -new -key weak.key -days 9 -subj /CN=Weak -extensions \
         authority -out weak.pem",
    );
    env.start();
    let good = takeover(&env);
    let (root, plant) = (env.path("root.pem"), env.path("plant.pem"));
    let with = |name: &str| good.replace(root.to_str().unwrap(), env.path(name).to_str().unwrap());
    for (file, code, reason) in [
        (with("no-lists.pem"), "adoption_refused", "cRLSign"),
        (with("names.pem"), "adoption_refused", "RID:1.2.3"),
        (
            with("misnamed.pem"),
            "adoption_refused",
            "authority key identifier",
        ),
        (
            with("stranger.pem"),
            "adoption_refused",
            "public key of the certificate",
        ),
        (with("plant.pem"), "adoption_refused", "was issued by"),
        (with("weak.pem"), "adoption_refused", "ROCA"),
        (with("root.key"), "adoption_refused", "private key"),
        (with("nowhere.pem"), "adoption_refused", "nowhere.pem"),
        (
            good.replace("token=factory", "token=other"),
            "adoption_refused",
            "other",
        ),
        (
            good.replace("id=%01", "id=%09"),
            "adoption_refused",
            "id 01",
        ),
        (
            good.replace("id=%01", "id=%02"),
            "adoption_refused",
            "id 01",
        ),
        (
            good.replace("id=%01", "id=%01?pin-value=1"),
            "ceremony_invalid",
            "PIN",
        ),
    ] {
        let output = run(&env, &file);
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(
            output.error.contains(code) && output.error.contains(reason),
            "{reason}: {output:?}"
        );
    }
    assert!(plant.exists());
    assert_eq!(env.count("generation"), 0);
    assert_eq!(env.count("intent"), 0);
}

/// Verifies: an adopted authority is rolled like any other, under its own name, to a key that was
/// made on the token; DPS accepts devices below it by the old root throughout.
#[test]
fn an_adopted_authority_is_rolled_to_a_key_made_here() {
    let env = TestEnv::new();
    make(&env, "/C=DE/O=Works", [P256, P256]);
    env.write("ceremony.toml", &takeover(&env));
    let env = begun(env);
    let station = env.station();
    let old = station.obtain(&Request::device("press-1"));

    let roll = start(&env, "plant", "expiry", &[]);
    comes_to(&env, &roll, "draining");
    env.wait_in_sync();
    let generations = env.json(&["authority", "show", "plant"]);
    let subjects: Vec<_> = generations
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["subject"].clone())
        .collect();
    assert_eq!(subjects.len(), 2, "{generations}");
    assert_eq!(subjects[0], subjects[1]);
    let shown = env.json(&["token", "show", "factory"]);
    let mut keys = shown["keys"].as_array().unwrap().iter();
    let local = |purpose: &str| {
        let key = keys.clone().find(|key| key["purpose"] == purpose);
        key.unwrap_or_else(|| panic!("{purpose}: {shown}"))["local"].clone()
    };
    assert_eq!(local("plant generation 1 (retired)"), false);
    assert_eq!(local("plant generation 2 (serving)"), true);
    assert!(keys.all(|key| key["purpose"] != "none of ours"), "{shown}");

    let new = station.obtain(&Request::device("press-2"));
    env.wait_in_sync();
    let root = fs::read_to_string(env.path("root.pem")).unwrap();
    for leaf in [&old, &new] {
        is_assigned(&env.emulator, leaf);
        leaf.is_accepted_by_openssl(&root);
    }
}

/// Verifies: the path length of the root counts below the intermediate, which has none, so no third
/// authority is made that verifiers would refuse; and lists count on from a number of 20 octets
/// (rows E3 and E9).
#[test]
fn path_lengths_and_long_numbers_count_on_from_an_old_root() {
    let mut env = TestEnv::new();
    make(&env, "/C=DE/O=Works", [P256, P256]);
    openssl(
        &env,
        "req -x509 -config openssl.cnf -new -key root.key -days 3650 -subj \
         /C=DE/O=Works/CN=Old-Root -extensions short -out root.pem",
    );
    certify_plant(&env, "authority");
    env.start();
    let long = format!("crl_number = \"0x{}\"", "6f".repeat(20));
    let output = run(&env, &takeover(&env).replace("crl_number = 41", &long));
    assert_eq!(output.code, Some(1), "{output:?}");
    let reason = "allows 1 authorities below, and 2 are needed";
    assert!(
        output.error.contains("authority_limited") && output.error.contains(reason),
        "{output:?}"
    );
    assert_eq!(env.count("generation"), 2);
    let next = "636183065661687152629839280123558490909052989296";
    crate::process::until("a list has the next number", || {
        let shown = env.json(&["authority", "show", "root"]);
        (shown[0]["crl_number"] == next).then_some(())
    });
    let octets = [&[0x6f; 19][..], &[0x70]].concat();
    let list = Relying::on(&env).crl("root");
    assert!(list.windows(20).any(|it| it == octets));
}

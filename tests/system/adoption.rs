//! A customer has a root and an intermediate already: made with OpenSSL, imported into the token with its own
//! tool. They are adopted, issue, and revoke.

use crate::authority_roll::{begun, comes_to, start};
use crate::device::is_assigned;
use crate::process::CommandOutput;
use crate::relying_party::{Relying, pem};
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use crate::weak_key::Weakness;
use serde_json::Value;
use std::fs;
use std::process::Command;

const EXTENSIONS: &str = "
[req]
distinguished_name = name
prompt = no
[name]
CN = none
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[below]
basicConstraints = critical, CA:TRUE, pathlen:1
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[names]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
nameConstraints = critical, permitted;DNS:works.example
[no-lists]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
";

const MADE_HERE: &str = r#"
[[authority]]
name = "line-1"
issuer = "plant"
subject = { common_name = "Line 1" }
validity = "1y"
path_length = 0
[[authority]]
name = "operations"
issuer = "root"
subject = { common_name = "Operations" }
validity = "1y"
path_length = 0
"#;

/// What OpenSSL is asked, in the stage's folder.
fn openssl(env: &TestEnv, arguments: &str) {
    let mut command = Command::new("openssl");
    command.args(arguments.split(' ')).current_dir(env.path(""));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments}: {output:?}");
}

/// The customer's old CA, in files: a root, and an intermediate with a short serial number.
fn old_authorities(env: &TestEnv) {
    env.write("openssl.cnf", EXTENSIONS);
    for name in ["root", "plant"] {
        openssl(
            env,
            &format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key"),
        );
    }
    openssl(
        env,
        "req -x509 -config openssl.cnf -new -key root.key -days 3650 -subj /C=DE/O=Works/CN=Old-Root \
         -extensions authority -out root.pem",
    );
    openssl(
        stage,
        "req -config openssl.cnf -new -key plant.key -subj /C=DE/O=Works/CN=Old-Plant -out plant.csr",
    );
    openssl(
        stage,
        "x509 -req -in plant.csr -CA root.pem -CAkey root.key -set_serial 7 -days 1800 \
         -extfile openssl.cnf -extensions below -out plant.pem",
    );
}

/// Puts a key into the token, with SoftHSM's tool.
fn import(stage: &Stage, name: &str, label: &str, id: &str) {
    let pin = fs::read_to_string(stage.path("pin")).unwrap();
    let told = Command::new("softhsm2-util")
        .args([
            "--token",
            "factory",
            "--label",
            label,
            "--id",
            id,
            "--pin",
            pin.trim(),
        ])
        .arg("--import")
        .arg(stage.path(&format!("{name}.key")))
        .env("SOFTHSM2_CONF", stage.path("softhsm2.conf"))
        .output()
        .unwrap();
    assert!(told.status.success(), "{output:?}");
}

/// The ceremony file: root and plant are adopted, the rest is made.
fn takeover(stage: &Stage) -> String {
    let plant = fs::read_to_string(stage.path("plant.pem")).unwrap();
    let root = stage.path("root.pem");
    format!(
        "name = \"takeover\"\n\
         [[authority]]\nname = \"root\"\n\
         key = \"pkcs11:token=factory;object=Old%20Root;id=%01;type=private\"\n\
         certificate = {root:?}\ncrl_number = 41\n\
         [[authority]]\nname = \"plant\"\nissuer = \"root\"\n\
         key = \"pkcs11:id=%02\"\ncertificate = '''\n{plant}'''\n{MADE_HERE}"
    )
}

fn run(env: &TestEnv, file: &str) -> CommandOutput {
    let file = env.write("ceremony.toml", file);
    env.hallmark(&["--json", "ceremony", "run", file.to_str().unwrap()])
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

/// Verifies: root and intermediate are adopted with their certificates, and the transcript says so with its
/// warnings; the rest is made under them; the root is proven at the provisioning service; a device's leaf
/// is good by the old root until it is blocked; running the file again changes nothing, nor does a restart.
#[test]
fn an_old_authority_is_adopted_and_issues_and_revokes() {
    let mut env = TestEnv::new();
    old_authorities(&env);
    import(&env, "root", "Old Root", "01");
    import(&env, "plant", "Old Plant", "02");
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

    // Once more, and the daemon does what it does by itself.
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

/// Verifies: what is not adopted, each for its own reason, which the answer says; and nothing is left of it.
#[test]
fn what_does_not_fit_is_not_adopted() {
    let mut env = TestEnv::new();
    old_authorities(&env);
    import(&env, "root", "Old Root", "01");
    import(&env, "plant", "Old Plant", "02");
    for extensions in ["no-lists", "names"] {
        openssl(
            &env,
            &format!(
                "req -x509 -config openssl.cnf -new -key root.key -days 9 -subj /CN=Old-Root \
                 -extensions {extensions} -out {extensions}.pem"
            ),
        );
    }
    openssl(
        &stage,
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out stranger.key",
    );
    openssl(
        &stage,
        "req -x509 -config openssl.cnf -new -key stranger.key -days 9 -subj /CN=Stranger -extensions authority \
         -out stranger.pem",
    );
    stage.write("weak.key", &Weakness::Roca.key());
    openssl(
        &stage,
        "req -x509 -config openssl.cnf -new -key weak.key -days 9 -subj /CN=Weak -extensions authority \
         -out weak.pem",
    );
    stage.start();
    let good = takeover(&stage);
    let (root, plant) = (stage.path("root.pem"), stage.path("plant.pem"));
    let with =
        |name: &str| good.replace(root.to_str().unwrap(), stage.path(name).to_str().unwrap());
    for (file, code, reason) in [
        (with("no-lists.pem"), "adoption_refused", "cRLSign"),
        (with("names.pem"), "adoption_refused", "nameConstraints"),
        (
            with("stranger.pem"),
            "adoption_refused",
            "public key of the certificate",
        ),
        (with("plant.pem"), "adoption_refused", "was issued by"),
        (with("weak.pem"), "adoption_refused", "ROCA"),
        (with("root.key"), "adoption_refused", "certificates"),
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
        let told = run(&stage, &file);
        assert_eq!(told.code, Some(1), "{output:?}");
        assert!(
            told.error.contains(code) && told.error.contains(reason),
            "{reason}: {output:?}"
        );
    }
    assert!(plant.exists());
    assert_eq!(stage.count("generation"), 0);
    assert_eq!(stage.count("intent"), 0);
}

/// Verifies: an adopted authority is rolled like any other, under its own name, to a key that was made on the
/// token; devices below are let in by the old root throughout.
#[test]
fn an_adopted_authority_is_rolled_to_a_key_made_here() {
    let stage = TestEnv::new();
    old_authorities(&stage);
    import(&stage, "root", "Old Root", "01");
    import(&stage, "plant", "Old Plant", "02");
    stage.write("ceremony.toml", &takeover(&stage));
    let stage = begun(stage);
    let station = stage.station();
    let old = station.obtain(&Request::device("press-1"));

    let roll = start(&stage, "plant", "expiry", &[]);
    comes_to(&stage, &roll, "draining");
    stage.is_in_step();
    let generations = stage.json(&["authority", "show", "plant"]);
    let subjects: Vec<_> = generations
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["subject"].clone())
        .collect();
    assert_eq!(subjects.len(), 2, "{generations}");
    assert_eq!(subjects[0], subjects[1]);
    let shown = stage.json(&["token", "show", "factory"]);
    let mut keys = shown["keys"].as_array().unwrap().iter();
    let local = |purpose: &str| {
        let key = keys.clone().find(|key| key["purpose"] == purpose);
        key.unwrap_or_else(|| panic!("{purpose}: {shown}"))["local"].clone()
    };
    assert_eq!(local("plant generation 1 (retired)"), false);
    assert_eq!(local("plant generation 2 (serving)"), true);
    assert!(keys.all(|key| key["purpose"] != "none of ours"), "{shown}");

    let new = station.obtain(&Request::device("press-2"));
    stage.is_in_step();
    let root = fs::read_to_string(stage.path("root.pem")).unwrap();
    for leaf in [&old, &new] {
        is_assigned(&env.emulator, leaf);
        leaf.is_accepted_by_openssl(&root);
    }
}

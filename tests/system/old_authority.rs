//! Authorities that exist before Hallmark: made with OpenSSL, their keys imported into the token
//! with the token's own tool.

use crate::process::CommandOutput;
use crate::test_env::TestEnv;
use std::fs;
use std::process::Command;

pub(crate) const EXTENSIONS: &str = "
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
nameConstraints = critical, permitted;RID:1.2.3
[misnamed]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = DER:30:06:80:04:01:02:03:04
[short]
basicConstraints = critical, CA:TRUE, pathlen:1
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[no-lists]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
";

/// Authorities that the ceremony makes below the adopted ones.
pub(crate) const MADE_HERE: &str = r#"
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

/// Puts a key into the token, with SoftHSM's tool.
pub(crate) fn import(env: &TestEnv, name: &str, label: &str, id: &str) {
    let pin = fs::read_to_string(env.path("pin")).unwrap();
    let output = Command::new("softhsm2-util")
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
        .arg(env.path(&format!("{name}.key")))
        .env("SOFTHSM2_CONF", env.path("softhsm2.conf"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// The kinds of key of [`make`], as `openssl genpkey -algorithm` takes them.
pub(crate) const P256: &str = "EC -pkeyopt ec_paramgen_curve:P-256";

/// Runs openssl in the environment's folder.
pub(crate) fn openssl(env: &TestEnv, arguments: &str) {
    let mut command = Command::new("openssl");
    command.args(arguments.split(' '));
    let output = CommandOutput::of(command.current_dir(env.path("")));
    assert_eq!(output.code, Some(0), "{arguments}: {output:?}");
}

/// Makes a key in a file.
pub(crate) fn make_key(env: &TestEnv, kind: &str, name: &str) {
    openssl(env, &format!("genpkey -algorithm {kind} -out {name}.key"));
}

/// The customer's old CA, in files and with its keys on the token: a root, and an intermediate with
/// a short serial number.
pub(crate) fn make(env: &TestEnv, organization: &str, kinds: [&str; 2]) {
    env.write("openssl.cnf", EXTENSIONS);
    for (name, kind) in ["root", "plant"].into_iter().zip(kinds) {
        make_key(env, kind, name);
    }
    openssl(
        env,
        &format!(
            "req -x509 -config openssl.cnf -new -key root.key -days 3650 \
             -subj {organization}/CN=Old-Root -extensions authority -out root.pem"
        ),
    );
    openssl(
        env,
        &format!(
            "req -config openssl.cnf -new -key plant.key -subj {organization}/CN=Old-Plant \
             -out plant.csr"
        ),
    );
    certify_plant(env, "below");
    import_both(env);
}

/// Certifies the intermediate's key, with these extensions.
pub(crate) fn certify_plant(env: &TestEnv, extensions: &str) {
    openssl(
        env,
        &format!(
            "x509 -req -in plant.csr -CA root.pem -CAkey root.key -set_serial 7 -days 1800 \
             -extfile openssl.cnf -extensions {extensions} -out plant.pem"
        ),
    );
}

/// Puts the keys of root and intermediate into the token.
pub(crate) fn import_both(env: &TestEnv) {
    import(env, "root", "Old Root", "01");
    import(env, "plant", "Old Plant", "02");
}

/// Runs a ceremony by this file.
pub(crate) fn run(env: &TestEnv, file: &str) -> CommandOutput {
    let file = env.write("ceremony.toml", file);
    env.hallmark(&["--json", "ceremony", "run", file.to_str().unwrap()])
}

//! Certificates from elsewhere, in the kinds of file that other tools write (row E11).

use crate::elsewhere::Elsewhere;
use crate::external::{asked, ceremony, csr};
use crate::process::CommandOutput;
use crate::request::Request;
use crate::test_env::TestEnv;
use std::fs;
use std::process::Command;

fn openssl(env: &TestEnv, arguments: &str) {
    let mut command = Command::new("openssl");
    command.args(arguments.split(' '));
    let output = CommandOutput::of(command.current_dir(env.path("")));
    assert_eq!(output.code, Some(0), "{arguments}: {output:?}");
}

/// Verifies: a bundle of another kind is refused with its name and the command that converts it; a
/// private key is not sent; and PKCS#7 as DER is installed, in which the certificates have no
/// order. The leaf below is verified by OpenSSL.
#[test]
fn an_answer_is_installed_from_pkcs_7() {
    let env = asked();
    let elsewhere = Elsewhere::on(&env);
    ceremony(&env);
    csr(&env);
    let answer = elsewhere.signs("gateway.csr", "below", 1800, "root");
    env.write("answer-chain.pem", &answer);
    for arguments in [
        "crl2pkcs7 -nocrl -certfile answer-chain.pem -outform DER -out chain.p7b",
        "pkcs12 -export -inkey root.key -in root.pem -passout pass:x -out root.p12",
        "pkey -in root.key -outform DER -out key.der",
    ] {
        openssl(&env, arguments);
    }
    fs::write(env.path("empty.pem"), "").unwrap();
    fs::write(env.path("page.pem"), "<html>Sign in\n</html>").unwrap();
    let install = |file: &str| {
        let file = env.path(file);
        env.hallmark(&["authority", "install", "gateway", file.to_str().unwrap()])
    };
    for (file, words) in [
        ("root.p12", "openssl pkcs12 -in FILE -nokeys"),
        ("gateway.csr", "certificate signing request"),
        ("empty.pem", "the file is empty"),
        ("page.pem", "web page"),
    ] {
        let refused = install(file);
        assert!(refused.error.contains("install_malformed"), "{refused:?}");
        assert!(refused.error.contains(words), "{file}: {refused:?}");
    }
    for key in ["root.key", "key.der"] {
        let refused = install(key);
        assert!(refused.error.contains("nothing was sent"), "{refused:?}");
    }
    let installed = install("chain.p7b");
    assert_eq!(installed.code, Some(0), "{installed:?}");
    let leaf = env.station().obtain(&Request::new("behind", "press-1"));
    leaf.is_accepted_by_openssl(&fs::read_to_string(env.path("root.pem")).unwrap());
    let revoked = env.write("leaf.pem", &leaf.certificate);
    openssl(
        &env,
        "x509 -in leaf.pem -trustout -setalias x -out leaf.trusted",
    );
    assert!(revoked.exists());
    let file = env.path("leaf.trusted");
    let reason = ["--reason", "superseded"];
    let arguments = [
        &["certificate", "revoke", "--file", file.to_str().unwrap()][..],
        &reason,
    ];
    let output = env.hallmark(&arguments.concat());
    assert_eq!(output.code, Some(0), "{output:?}");
}

/// Verifies: no certificate of a `ca_bundle` is lost to a byte order mark, another label or a
/// remark, and one that cannot be read is refused by the check and not skipped.
#[test]
fn a_ca_bundle_is_read_in_every_form() {
    let mut env = TestEnv::new();
    let pem = fs::read_to_string(env.emulator.ca_file()).unwrap();
    let old = env.configuration();
    let bundle = env.path("bundle");
    let configuration = old.replace(
        &env.emulator.ca_file().display().to_string(),
        &bundle.display().to_string(),
    );
    assert_ne!(configuration, old);
    env.configure(&configuration);
    fs::write(env.path("ca.pem"), &pem).unwrap();
    openssl(
        &env,
        "x509 -in ca.pem -trustout -addreject serverAuth -out rejected.pem",
    );
    let rejected = fs::read(env.path("rejected.pem")).unwrap();
    let cut = pem.replace("-----END CERTIFICATE-----", "");
    for (bytes, words) in [
        (b"\xff\xfe-\0".to_vec(), "iconv"),
        (rejected, "reject"),
        ([pem.as_bytes(), cut.as_bytes()].concat(), "END"),
    ] {
        fs::write(&bundle, bytes).unwrap();
        let refused = env.check();
        assert_eq!(refused.code, Some(1), "{words}: {refused:?}");
        assert!(refused.out.contains(words), "{words}: {refused:?}");
    }
    let trusted = pem.replace("CERTIFICATE", "X509 CERTIFICATE");
    fs::write(
        &bundle,
        [b"\xef\xbb\xbf", trusted.as_bytes(), b"\nM\xfcller"].concat(),
    )
    .unwrap();
    env.start();
    env.run_ceremony();
    env.wait_in_sync();
}

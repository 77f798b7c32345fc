//! Tests EST with clients that do not know Hallmark: Bouncy Castle's, and requests as the
//! certificates service of Azure IoT Edge (`aziot-certd`) sends them. strongSwan's is in
//! [`crate::est`].

use crate::caller::Caller;
use crate::device::is_assigned;
use crate::est_client::{EstClient, openssl};
use crate::generated_keys::with_generation;
use crate::process::CommandOutput;
use crate::request::{Holder, Request, der};
use crate::test_env::TestEnv;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Runs Bouncy Castle's client as `holder`; returns what it prints, and the file that it wrote.
fn bouncy_castle(
    env: &TestEnv,
    holder: &Holder,
    request: &Request,
    [label, operation]: [&str; 2],
) -> (String, PathBuf) {
    let file = |name: &str, text: &str| env.write(name, text).display().to_string();
    let key = file("java.key", &holder.key);
    let chain = file(
        "java.chain",
        &(holder.certificate.clone() + &holder.chain.concat()),
    );
    let store = env.path("java.p12").display().to_string();
    let files = ["-inkey", &key, "-in", &chain, "-out", &store];
    openssl(
        &[
            &["pkcs12", "-export", "-passout", "pass:password"][..],
            &files,
        ]
        .concat(),
    );
    let jars = ["bcpkix", "bcprov", "bcutil"].map(|it| format!("/usr/share/java/{it}.jar"));
    let program = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/system/EstClient.java"
    );
    let out = env.path("java.pem");
    let mut java = Command::new("java");
    java.arg("-cp").arg(jars.join(":")).arg(program);
    java.args([&env.https(), label]);
    java.arg(file("java.root", &env.authority("root")))
        .arg(store);
    java.arg(file("java.csr", &request.csr))
        .arg(&out)
        .arg(operation);
    let output = CommandOutput::of(&mut java);
    assert_eq!(
        output.code,
        Some(0),
        "tests/install-modules brings java: {output:?}"
    );
    (output.out, out)
}

/// The life of a device whose gateway has Bouncy Castle's client. Verifies: the client reads the
/// authorities and the attributes to ask for, enrolls the device as a station, and the device
/// renews itself; both certificates are accepted by OpenSSL and assigned by DPS; and it gets a key
/// that the daemon makes.
#[test]
fn bouncy_castle_enrolls_renews_and_has_a_key_made() {
    let env = with_generation();
    env.add_group("line-1", "line-1");
    env.wait_in_sync();
    let station = env.enlist("station", "station-1");
    let enroll = |holder: &Holder, request: &Request, operation: &str| {
        let (printed, out) = bouncy_castle(&env, holder, request, ["device", operation]);
        assert_eq!(
            printed.trim(),
            "3 2 1",
            "authorities, attributes, certificates"
        );
        let device = Holder {
            id: request.id.clone(),
            key: request.key.clone(),
            certificate: fs::read_to_string(out).unwrap(),
            chain: EstClient::of(&env, holder).certificates("device/cacerts"),
            serial: String::new(),
            thumbprint: String::new(),
        };
        device.is_accepted_by_openssl(&env.authority("root"));
        is_assigned(&env.emulator, &device);
        device
    };
    let device = enroll(&station, &Request::device("press-7"), "simpleenroll");
    let renewed = enroll(&device, &Request::device("press-7"), "simplereenroll");
    assert_ne!(der(&renewed.certificate), der(&device.certificate));

    let names = Request::device("press-8");
    let (_, out) = bouncy_castle(&env, &station, &names, ["made", "serverkeygen"]);
    let out = out.to_str().unwrap();
    let of_key = openssl(&["pkey", "-in", out, "-pubout"]);
    assert_eq!(of_key, openssl(&["x509", "-in", out, "-noout", "-pubkey"]));
}

/// Sends a request as `aziot-certd` does, and reads the answer as it does: between the lines of
/// PEM.
fn aziot(env: &TestEnv, caller: &Caller, body: &str) -> String {
    let post = caller.post_to("/.well-known/est/device/simpleenroll");
    let post = post
        .header("content-type", "application/pkcs10")
        .header("content-transfer-encoding", "base64")
        .body(body.to_owned());
    let answer = post.send().unwrap();
    let media = answer.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    let status = answer.status().as_u16();
    let body = answer.text().unwrap();
    assert_eq!(status, 200, "{body}");
    assert!(
        media == "application/pkcs7-mime" || media.starts_with("application/pkcs7-mime;"),
        "{media}"
    );
    let pem = format!("-----BEGIN PKCS7-----\n{body}-----END PKCS7-----\n");
    let file = env.write("aziot.p7", &pem);
    openssl(&["pkcs7", "-in", file.to_str().unwrap(), "-print_certs"])
}

/// A device with Azure IoT Edge, whose identity is renewed by `simpleenroll` with the identity that
/// it has; older versions send base64 in one line, newer ones in lines of 64. Verifies: both have
/// their certificate, which is the device's.
#[test]
fn aziot_certd_enrolls_and_renews() {
    let env = TestEnv::running();
    let station = env.station();
    let first = Request::device("press-7");
    let device = station.obtain(&first);
    let next = Request::device("press-7");
    let base64 = STANDARD.encode(der(&next.csr));
    let lines = base64.as_bytes().chunks(64);
    let lines = lines.map(|it| std::str::from_utf8(it).unwrap());
    let lines = lines.collect::<Vec<_>>().join("\n");
    let caller = env.caller(&device);
    let issued = aziot(&env, &caller, &lines);
    assert!(issued.contains("CN = press-7"), "{issued}");
    let file = env.write("aziot.pem", &issued);
    let certified = openssl(&["x509", "-in", file.to_str().unwrap(), "-noout", "-pubkey"]);
    let key = env.write("aziot.key", &next.key);
    assert_eq!(
        certified,
        openssl(&["pkey", "-in", key.to_str().unwrap(), "-pubout"])
    );
    // The same request in one line is a repeat.
    assert_eq!(aziot(&env, &caller, &base64), issued);
    assert_eq!(env.count("intent WHERE subject = 'press-7'"), 2);
}

//! Tests certificate requests as devices and tools in the field make them: each is certified over
//! the API, EST and the command line, or refused with its true reason. The files are in
//! `tests/cases/csr`; the unit tests of `hallmark-pki` have their neighbours.

use crate::caller::{Answer, Caller};
use crate::process::CommandOutput;
use crate::refusals::Witness;
use crate::request::{Holder, Request, der};
use crate::test_env::TestEnv;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn file(name: &str) -> PathBuf {
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests");
    Path::new(tests).join("cases/csr").join(name)
}

fn request(profile: &str, id: &str, name: &str) -> Request {
    let csr = fs::read_to_string(file(name)).unwrap();
    Request::of(profile, id, csr, String::new())
}

/// `openssl x509`: the subject, and the alternative names if there are any.
fn read_by_openssl(env: &TestEnv, certificate: &str) -> String {
    let path = env.write("issued.pem", certificate);
    let mut command = Command::new("openssl");
    command.args([
        "x509",
        "-noout",
        "-subject",
        "-ext",
        "subjectAltName",
        "-in",
    ]);
    CommandOutput::of(command.arg(path)).out
}

fn enroll(caller: &Caller, operation: &str, csr: &[u8]) -> Answer {
    let address = format!("/.well-known/est/device/{operation}");
    let post = caller
        .post_to(&address)
        .header("content-type", "application/pkcs10");
    Answer::read(post.body(csr.to_vec()).send().unwrap()).unwrap()
}

/// How many entries of the journal name exactly these as left out of a certificate of `id`.
fn journaled(env: &TestEnv, id: &str, dropped: &[&str]) -> i64 {
    let names = json!(dropped).to_string();
    env.count(&format!(
        "audit WHERE action = 'certificate.issued' AND subject = '{id}'
         AND detail ->> 'dropped_names' = '{names}'"
    ))
}

/// `hallmark issue` for a device.
fn issue(env: &TestEnv, id: &str, csr: &Path) -> CommandOutput {
    let csr = csr.to_str().unwrap();
    let given = ["--profile", "device", "--id", id, "--csr", csr];
    env.hallmark(&[&["--json", "issue"], &given[..]].concat())
}

/// Rows C1 to C4, C6 and C8; `c08_string.csr` has the key of another file, and so its own test.
#[test]
fn a_request_from_the_field_is_certified_however_it_comes() {
    let env = TestEnv::running();
    let station = env.station();
    for (name, dropped) in [
        ("a02-noattrs", &[][..]),
        ("a03-bmp", &[]),
        ("a04-ecnull", &[]),
        ("a11-san-cn", &["DNS:CN=a11-san-cn"]),
        ("a11_san_underscore", &["DNS:a11_san_underscore"]),
        ("a12-bombase64", &[]),
        ("b05-sanip", &["IP:10.0.0.7"]),
        ("c01-pssdefault", &[]),
    ] {
        is_certified(&env, &station, name, dropped);
    }
}

/// The certificate says the name, and nothing that its profile does not certify; answer, journal
/// and command line list that.
fn is_certified(env: &TestEnv, station: &Caller, id: &str, dropped: &[&str]) {
    let path = file(&format!("{id}.csr"));
    let request = request("device", id, &format!("{id}.csr"));
    let answer = station.ask(&request);
    assert_eq!(answer.status, 201, "{id}: {answer:?}");
    assert_eq!(answer.body["dropped_names"], json!(dropped), "{id}");
    let holder = request.holder(&answer.body);
    holder.is_accepted_by_openssl(&env.authority("root"));
    let read = read_by_openssl(env, &holder.certificate);
    assert!(read.contains(&format!("CN = {id}")), "{id}: {read}");
    assert!(!read.contains("Alternative"), "{id}: {read}");
    let again = station.ask(&request);
    assert_eq!(again.body["serial"], answer.body["serial"], "{id}");
    assert_eq!(again.body["dropped_names"], json!(dropped), "{id}");

    for operation in ["simpleenroll", "simplereenroll"] {
        let answer = enroll(station, operation, request.csr.as_bytes());
        assert_eq!(answer.status, 200, "{id} {operation}: {answer:?}");
    }
    let output = issue(env, id, &path);
    assert_eq!(output.code, Some(0), "{id}: {output:?}");
    for dropped in dropped {
        assert!(output.out.contains(dropped), "{id}: {output:?}");
    }
    // By the API, by EST once (the renewal is the repeat of the enrollment), by the command line.
    assert_eq!(journaled(env, id, dropped), 3, "{id}");
}

/// Rows C5 and C7, and names that no server can have.
#[test]
fn a_request_that_cannot_be_certified_is_refused_in_words() {
    let env = TestEnv::running();
    let station = env.station();
    let witness = Witness::of(&env);
    let version = request("device", "a08-version1", "a08-version1.csr");
    witness.sees_refused(400, "csr_malformed", || {
        let answer = station.ask(&version);
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains("version is 1"), "{detail}");
        answer
    });
    let at_the_machine = |id: &str, csr: &Path| {
        let csr = csr.to_str().unwrap();
        let given = ["issue", "--profile", "server", "--id", id, "--csr", csr];
        env.hallmark(&[&["--json"], &given[..]].concat())
    };
    let nameless = env.write("nameless.csr", &Request::new("server", "web-2").csr);
    for (id, csr, code) in [
        ("web-2", nameless, "csr_without_names"),
        ("a11-san-cn", file("a11-san-cn.csr"), "csr_bad_name"),
        ("b05-sanip", file("b05-sanip.csr"), "csr_bad_name"),
    ] {
        let output = at_the_machine(id, &csr);
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.error.contains(code), "{output:?}");
    }

    let output = at_the_machine("web-1.plant.example", &file("b01-msext.csr"));
    assert_eq!(output.code, Some(0), "{output:?}");
    let answer: serde_json::Value = serde_json::from_str(&output.out).unwrap();
    assert_eq!(answer["dropped_names"], json!([]));
    let read = read_by_openssl(&env, answer["certificate"].as_str().unwrap());
    assert!(read.contains("DNS:web-1.plant.example"), "{read}");
}

/// Row D3, and the second file of row C2. The organization is the profile's to give, so it is left
/// out by enrollment and renewal alike.
#[test]
fn a_request_with_an_organization_is_taken_by_enrollment_and_renewal() {
    let env = TestEnv::running();
    let station = env.enlist("station", "station-1");
    let csr = openssl_request(&env, "/O=Example/OU=Pumps/CN=press-7");
    let dropped = ["O=Example", "OU=Pumps"];
    let station = env.caller(&station);
    is_certified(&env, &station, "c08_string", &[]);
    let enrolled = enroll(&station, "simpleenroll", &csr);
    assert_eq!(enrolled.status, 200, "{enrolled:?}");
    assert_eq!(journaled(&env, "press-7", &dropped), 1);
    let renewed = enroll(&station, "simplereenroll", &csr);
    assert_eq!(renewed.status, 200, "{renewed:?}");
    let other = openssl_request(&env, "/O=Another/CN=press-7");
    assert_eq!(enroll(&station, "simplereenroll", &other).status, 200);
    assert_eq!(journaled(&env, "press-7", &["O=Another"]), 1);

    let text = String::from_utf8(openssl_request(&env, "/O=Example/OU=Pumps/CN=press-8")).unwrap();
    let request = Request::of("device", "press-8", text, String::new());
    let answer = station.ask(&request);
    assert_eq!(answer.body["dropped_names"], json!(dropped), "{answer:?}");
    let holder: Holder = request.holder(&answer.body);
    let read = read_by_openssl(&env, &holder.certificate);
    assert!(!read.contains("Example"), "{read}");
}

fn openssl_request(env: &TestEnv, subject: &str) -> Vec<u8> {
    let csr = env.path("named.csr");
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ]);
    command
        .args(["-subj", subject, "-keyout"])
        .arg(env.path("named.key"));
    let output = command.arg("-out").arg(&csr).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    fs::read(csr).unwrap()
}

/// Neighbours of row C8: files as OpenSSL, Windows and PowerShell write them.
#[test]
fn the_command_line_sends_a_file_of_every_encoding_and_no_private_key() {
    let env = TestEnv::running();
    let request = Request::device("press-7");
    let wide: Vec<u8> = request
        .csr
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for (name, bytes) in [
        ("der", der(&request.csr)),
        ("utf-16", [b"\xff\xfe", &wide[..]].concat()),
        ("mark", [b"\xef\xbb\xbf", request.csr.as_bytes()].concat()),
        (
            "remarks",
            [b"Anfrage M\xfcller\n", request.csr.as_bytes()].concat(),
        ),
    ] {
        let path = env.path(name);
        fs::write(&path, &bytes).unwrap();
        let output = issue(&env, "press-7", &path);
        assert_eq!(output.code, Some(0), "{name}: {output:?}");
        let station = env.station_called(&format!("station-{name}"));
        let answer = enroll(&station, "simpleenroll", &bytes);
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
    }
    let before = env.count("audit");
    let key = env.write("key.pem", &format!("{}{}", request.csr, request.key));
    let output = issue(&env, "press-7", &key);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.error.contains("holds a private key"), "{output:?}");
    assert_eq!(env.count("audit"), before);
}

//! Clients that are not ours: the program itself, asked by curl and openssl.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::client::token;

/// The program, stopped at the end of the test.
struct Program {
    child: Child,
    ready: Value,
    dir: tempfile::TempDir,
}

impl Program {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_dps-emulator"))
            .arg("--tls-dir")
            .arg(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready = serde_json::from_str(&line).unwrap();
        Self { child, ready, dir }
    }

    fn text(&self, member: &str) -> &str {
        self.ready[member].as_str().unwrap()
    }

    /// Status and body of one request by curl.
    fn curl(&self, host: &str, path: &str, more: &[&str]) -> (u16, Value) {
        let url = format!("https://{host}{path}");
        let connect = format!("::{}", self.text("addr"));
        let output = Command::new("curl")
            .args([
                "--silent",
                "--cacert",
                self.text("ca_file"),
                "--connect-to",
                &connect,
            ])
            .args(["--write-out", "\n%{http_code}"])
            .args(more)
            .arg(url)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (
            status.parse().unwrap(),
            serde_json::from_str(body).unwrap_or(Value::Null),
        )
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Run openssl in the program's folder; it must succeed.
fn openssl(program: &Program, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(program.dir.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A device with a certificate of version 1, as `openssl x509 -req` makes it, over TLS 1.2: refused
/// in JSON while it has no enrollment, assigned when it has one.
#[test]
fn a_device_made_of_curl_and_openssl_is_assigned() {
    let program = Program::start();
    let file = |name: &str| program.dir.path().join(name).display().to_string();
    openssl(
        &program,
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k.pem -out r.csr \
         -subj /CN=press-7",
    );
    openssl(
        &program,
        "x509 -req -in r.csr -signkey k.pem -days 2 -out c.pem",
    );
    let base = format!("/{}/registrations/press-7", program.text("id_scope"));
    let (cert, key) = (file("c.pem"), file("k.pem"));
    let device = |path: &str, more: &[&str]| {
        let mut arguments = vec![
            "--tlsv1.2",
            "--tls-max",
            "1.2",
            "--cert",
            &cert,
            "--key",
            &key,
        ];
        arguments.extend(more);
        let path = format!("{base}{path}?api-version=2019-03-31");
        program.curl(program.text("device_host"), &path, &arguments)
    };
    let register = ["-X", "PUT", "-d", r#"{"registrationId":"press-7"}"#];
    let (status, answer) = device("/register", &register);
    assert_eq!((status, &answer["errorCode"]), (401, &json!(401_002)));

    let record = json!({ "registrationId": "press-7", "attestation": { "type": "x509", "x509": {
        "clientCertificates": { "primary": {
            "certificate": std::fs::read_to_string(&cert).unwrap() } } } } });
    let token = token(program.text("service_connection_string"));
    let (authorization, record) = (format!("Authorization: {token}"), record.to_string());
    let (status, _) = program.curl(
        program.text("service_host"),
        "/enrollments/press-7?api-version=2021-10-01",
        &["-X", "PUT", "-H", &authorization, "-d", &record],
    );
    assert_eq!(status, 200);
    let (status, answer) = device("/register", &register);
    assert_eq!(status, 202);
    let operation = answer["operationId"].as_str().unwrap();
    let (status, answer) = device(&format!("/operations/{operation}"), &[]);
    assert_eq!((status, &answer["status"]), (200, &json!("assigned")));
}

#[test]
fn openssl_verifies_the_server_for_every_name() {
    let program = Program::start();
    for member in ["service_host", "device_host", "hub_host", "arm_host"] {
        let output = Command::new("openssl")
            .args([
                "s_client",
                "-connect",
                program.text("addr"),
                "-CAfile",
                program.text("ca_file"),
            ])
            .args([
                "-servername",
                program.text(member),
                "-verify_hostname",
                program.text(member),
            ])
            .args(["-verify_return_error", "-brief"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

//! Clients that are not ours: the program itself, asked by curl and openssl.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::client::token;
use crate::pki;

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

#[test]
fn curl_reads_and_a_device_of_curl_is_refused_in_json() {
    let program = Program::start();
    let authorization = format!(
        "Authorization: {}",
        token(program.text("service_connection_string"))
    );
    let service = program.text("service_host");
    let (status, body) = program.curl(
        service,
        "/enrollments/a?api-version=2021-10-01",
        &["-H", &authorization],
    );
    assert_eq!((status, &body["errorCode"]), (404, &Value::from(404_201)));

    let leaf = pki::leaf("press-7", None);
    let (cert, key) = (
        program.dir.path().join("c.pem"),
        program.dir.path().join("k.pem"),
    );
    std::fs::write(&cert, &leaf.pem).unwrap();
    std::fs::write(&key, &leaf.key_pem).unwrap();
    let path = format!(
        "/{}/registrations/press-7/register?api-version=2019-03-31",
        program.text("id_scope")
    );
    let body = r#"{"registrationId":"press-7"}"#;
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let put = [
        "-X",
        "PUT",
        "--tlsv1.2",
        "--tls-max",
        "1.2",
        "--cert",
        cert,
        "--key",
        key,
        "-d",
        body,
    ];
    let (status, answer) = program.curl(program.text("device_host"), &path, &put);
    assert_eq!((status, &answer["errorCode"]), (401, &Value::from(401_002)));
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

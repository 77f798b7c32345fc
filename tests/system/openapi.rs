//! Tests `/openapi.json`: every route is in it, and every answer is as it says.

use crate::access;
use crate::console::{local, remote};
use crate::device::is_assigned;
use crate::process::CommandOutput;
use crate::request::Request;
use crate::roles::with_operators;
use crate::test_env::TestEnv;
use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

/// Verifies: every route of the router is in the document with its method, operators and auditors
/// get it, and others are refused.
#[test]
fn the_document_has_every_route() {
    let env = TestEnv::running();
    let answer = local(&env, "/openapi.json");
    assert_eq!(answer.status, 200, "{answer:?}");
    let document: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(document["openapi"], "3.1.1");
    let routes = access::routes();
    assert!(routes.len() > 50, "{routes:?}");
    for (method, path) in routes {
        let operation = &document["paths"][&path][method.to_lowercase()];
        assert!(operation["summary"].is_string(), "{method} {path}");
    }
    let [auditor, station] = ["auditor", "station"].map(|it| env.enlist(it, &format!("{it}-9")));
    let path = "/openapi.json";
    assert_eq!(remote(&env, Some(&auditor), path).status, 200);
    assert_eq!(remote(&env, Some(&station), path).status, 403);
    assert_eq!(remote(&env, None, path).status, 401);
}

/// A port of this machine that leads to the admin socket: Schemathesis knows no Unix sockets.
pub(crate) fn port_of(socket: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let socket = socket.clone();
            thread::spawn(move || connect(&client, &socket));
        }
    });
    address
}

/// Copies both ways until one end closes.
fn connect(client: &TcpStream, socket: &Path) -> io::Result<()> {
    let daemon = UnixStream::connect(socket)?;
    let (mut to_daemon, mut from_client) = (daemon.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        let _ = copy(&mut from_client, &mut to_daemon);
        let _ = to_daemon.shutdown(Shutdown::Write);
    });
    let (mut from_daemon, mut to_client) = (daemon, client.try_clone()?);
    let _ = copy(&mut from_daemon, &mut to_client);
    client.shutdown(Shutdown::Both)
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<u64> {
    io::copy(from, to)
}

/// A plant with something of each kind, and a profile for operators.
fn plant() -> TestEnv {
    let env = with_operators();
    env.add_group("line-1", "line-1");
    let station = env.station();
    let devices = ["press-7", "press-8"].map(|id| station.obtain(&Request::device(id)));
    env.wait_in_sync();
    devices.iter().for_each(|it| is_assigned(&env.emulator, it));
    env.run(&["enrollment", "add", "--individual", "press-9"]);
    env.run(&["device", "block", "press-8", "--reason", "stolen"]);
    let make = ["device", "credential", "make", "press-10"];
    env.run(&[&make[..], &["--profile", "device"]].concat());
    env.wait_in_sync();
    env
}

/// Has Schemathesis send what the document of a local user allows, and what it forbids.
fn is_judged(env: &TestEnv, url: &str, more: &[(&str, &Path)], role: &str) {
    let document = env.write("openapi.json", &env.get("/openapi.json"));
    let variable = |name: &str| std::env::var(name).expect(name);
    let settings = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/openapi/schemathesis.toml"
    );
    let mut judge = Command::new(variable("SCHEMATHESIS"));
    judge.current_dir(env.path("")).env("HALLMARK_ROLE", role);
    judge.args(["--config-file", settings, "run"]);
    judge.arg(document).args(["--url", url]);
    for (option, file) in more {
        judge.arg(option).arg(file);
    }
    judge.args(["--max-examples", &variable("SCHEMATHESIS_EXAMPLES")]);
    judge.args(["--seed", &variable("SCHEMATHESIS_SEED")]);
    let output = CommandOutput::of(&mut judge);
    assert_eq!(output.code, Some(0), "{}{}", output.out, output.error);
    println!("{}", output.out);
}

/// The same over HTTPS, with a client certificate of this role.
fn is_judged_as(role: &str) {
    let env = plant();
    let holder = env.enlist(role, &format!("{role}-9"));
    let root = env.write("judge-root.pem", &env.authority("root"));
    let chain = holder.certificate.clone() + &holder.chain.concat();
    let chain = env.write("judge.pem", &chain);
    let key = env.write("judge.key", &holder.key);
    let files: [(&str, &Path); 3] = [
        ("--tls-verify", &root),
        ("--request-cert", &chain),
        ("--request-cert-key", &key),
    ];
    is_judged(&env, &env.https(), &files, role);
}

/// Verifies, with requests that the document allows and with others: no answer is 500 or has a
/// status, a code, a media type or a member that is not in the document.
#[test]
#[ignore = "needs Schemathesis: run tests/openapi/run"]
fn schemathesis_finds_no_undocumented_answer() {
    let env = plant();
    let url = format!("http://{}", port_of(env.path("state/admin.sock")));
    is_judged(&env, &url, &[], "local");
}

/// Verifies the same over HTTPS with the certificate of an operator.
#[test]
#[ignore = "needs Schemathesis: run tests/openapi/run"]
fn schemathesis_finds_no_undocumented_answer_to_an_operator() {
    is_judged_as("operator");
}

/// Verifies the same with the certificate of a device, which is refused nearly everything: each
/// refusal is documented, and no operation for others gives it anything else.
#[test]
#[ignore = "needs Schemathesis: run tests/openapi/run"]
fn schemathesis_finds_no_undocumented_refusal() {
    is_judged_as("device");
}

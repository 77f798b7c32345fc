//! Tests `/openapi.json`: every route is in it, and every answer is as it says.

use crate::access;
use crate::console::{local, remote};
use crate::process::CommandOutput;
use crate::provisioned::below_line_1;
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

/// Verifies, with requests that the document allows and with others: no answer is 500 or has a
/// status, a code, a media type or a member that is not in the document.
#[test]
#[ignore = "needs Schemathesis: run tests/openapi/run"]
fn schemathesis_finds_no_undocumented_answer() {
    let (env, _) = below_line_1(&["press-7", "press-8"]);
    env.run(&["enrollment", "add", "--individual", "press-9"]);
    env.run(&["device", "block", "press-8", "--reason", "stolen"]);
    env.run(&[
        "device",
        "credential",
        "make",
        "press-10",
        "--profile",
        "device",
    ]);
    env.wait_in_sync();
    let url = format!("http://{}", port_of(env.path("state/admin.sock")));
    let variable = |name: &str| std::env::var(name).expect(name);
    let settings = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/openapi/schemathesis.toml"
    );
    let mut judge = Command::new(variable("SCHEMATHESIS"));
    judge.current_dir(env.path(""));
    judge.args(["--config-file", settings, "run"]);
    judge.args([&format!("{url}/openapi.json"), "--url", &url]);
    judge.args(["--max-examples", &variable("SCHEMATHESIS_EXAMPLES")]);
    judge.args(["--seed", &variable("SCHEMATHESIS_SEED")]);
    let output = CommandOutput::of(&mut judge);
    assert_eq!(output.code, Some(0), "{}{}", output.out, output.error);
    println!("{}", output.out);
}

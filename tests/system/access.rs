//! Tests access control of every route for every role. A caller without permission is refused
//! before its path, query and body are parsed. Each refusal has one entry in the audit journal,
//! with caller, source address and action.

use crate::invariants;
use crate::process::{CommandOutput, until};
use crate::raw_tls::RawTls;
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use serde_json::Value;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// The file that names all routes.
const ROUTES: &str = include_str!("../../daemon/daemon/src/api/mod.rs");
/// Routes without access control.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];
const EST: [&str; 4] = [
    "/.well-known/est/simpleenroll",
    "/.well-known/est/simplereenroll",
    "/.well-known/est/{label}/simpleenroll",
    "/.well-known/est/{label}/simplereenroll",
];
/// Announced length of a body that is never sent completely.
const PROMISED: usize = 10_000_000;
/// The first bytes of that body: no JSON, no TOML, no PKCS #10.
pub(crate) const MALFORMED: &str = "}{\u{0}";

/// A method and the template of a path.
pub(crate) type Route = (String, String);

/// All routes with callers, read from the source.
pub(crate) fn routes() -> Vec<Route> {
    let mut routes = Vec::new();
    for said in ROUTES.split(".route(").skip(1) {
        let path = said.split('"').nth(1).unwrap();
        let handlers = said.split('"').nth(2).unwrap();
        if OPEN.contains(&path) {
            continue;
        }
        for method in ["get", "post", "delete"] {
            if handlers.contains(&format!("{method}(")) {
                routes.push((method.to_uppercase(), path.to_owned()));
            }
        }
    }
    routes.extend(EST.map(|path| ("POST".to_owned(), path.to_owned())));
    assert!(routes.len() >= 40, "{routes:?}");
    routes
}

/// The path with an example in each place; the examples do not exist.
pub(crate) fn filled(template: &str) -> String {
    let parts = template.split('/').map(|part| match part {
        "{label}" => "device",
        _ if part.starts_with('{') => "!",
        _ => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

/// A request with further headers, and a malformed body, which it announces to have this length.
pub(crate) fn malformed((method, template): &Route, more: &str, length: usize) -> String {
    let path = filled(template);
    format!(
        "{method} {path}?limit=x HTTP/1.1\r\nhost: localhost\r\n{more}content-type: \
         application/json\r\ncontent-length: {length}\r\n\r\n{MALFORMED}"
    )
}

/// Returns status and code of the answer to a head and the beginning of a malformed body.
pub(crate) fn asked(client: &RawTls, route: &Route) -> (u16, String) {
    answer_of(
        client
            .says(malformed(route, "", PROMISED).as_bytes())
            .unwrap(),
        route,
    )
}

/// Returns status and code of an answer.
pub(crate) fn answer_of(stream: impl Read, (method, path): &Route) -> (u16, String) {
    let mut answer = BufReader::new(stream);
    let mut line = String::new();
    answer.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).and_then(|it| it.parse().ok());
    let status = status.unwrap_or_else(|| panic!("{method} {path}: {line:?}"));
    let mut length = 0;
    while line != "\r\n" {
        line.clear();
        answer.read_line(&mut line).unwrap();
        if let Some(said) = line.to_lowercase().strip_prefix("content-length: ") {
            length = said.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    answer.read_exact(&mut body).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let code = body["code"].as_str().unwrap_or_default();
    (status, code.to_owned())
}

/// The newest entry of the journal: action, actor, detail.
pub(crate) fn newest_entry(env: &TestEnv) -> (i64, String, String, Value) {
    let store = invariants::open(&env.database());
    let sql = "SELECT sequence, action, actor, detail FROM audit ORDER BY sequence DESC LIMIT 1";
    let row = store.query_row(sql, [], |row| {
        let text = |column| row.get::<_, String>(column);
        Ok((row.get(0)?, text(1)?, text(2)?, text(3)?))
    });
    let (id, action, actor, detail) = row.unwrap();
    (id, action, actor, serde_json::from_str(&detail).unwrap())
}

/// Verifies, for every route and for device, station, auditor and approver: a caller without
/// permission gets 403 whatever it sends. Each refusal is one entry of the journal and one line of
/// the log.
#[test]
fn each_refusal_of_a_role_is_in_the_journal_once() {
    let env = TestEnv::running();
    let holders = [
        ("device", env.enlist("device", "press-7")),
        ("station", env.enlist("station", "station-1")),
        ("auditor", env.enlist("auditor", "auditor-1")),
        ("approver", env.enlist("approver", "approver-1")),
    ];
    for (role, holder) in &holders {
        let client = RawTls::of(&env, Some(holder));
        let mut refused = 0;
        for route in routes() {
            let (before, ..) = newest_entry(&env);
            let (status, code) = asked(&client, &route);
            let (id, action, actor, detail) = newest_entry(&env);
            let issues = is_issuance(&route);
            if status != 403 {
                assert_ne!(status, 401, "{role} {route:?}");
                assert!(issues || id == before, "{role} {route:?}: {action}");
                continue;
            }
            refused += 1;
            assert_eq!(id, before + 1, "{role} {route:?}: one entry");
            let wanted = if issues {
                "certificate.refused"
            } else {
                "request.refused"
            };
            assert_eq!(action, wanted, "{role} {route:?}");
            assert_eq!(actor, format!("{role} {}", holder.id), "{route:?}");
            assert_eq!(detail["code"], code, "{route:?}");
            assert_eq!(detail["address"], "127.0.0.1", "{detail}");
            assert_eq!(
                (&detail["method"], &detail["route"]),
                (&route.0.as_str().into(), &route.1.as_str().into())
            );
            assert_eq!(detail["certificate"], holder.thumbprint, "{detail}");
        }
        // Auditors and approvers may read; a station and a device may request certificates.
        let least = if ["auditor", "approver"].contains(role) {
            15
        } else {
            30
        };
        assert!(refused > least, "{role}: {refused}");
        let log = fs::read_to_string(env.path("hallmarkd.log")).unwrap();
        let lines = log
            .lines()
            .filter(|line| line.contains(&format!("{role} {}", holder.id)));
        assert!(
            lines.filter(|line| line.contains("refused")).count() >= refused,
            "{log}"
        );
    }
}

fn is_issuance((method, path): &Route) -> bool {
    let issuing = [
        "/v1/certificates",
        "/v1/certificates:batch",
        "/v1/authorities/{name}/subordinates",
    ];
    method == "POST" && (issuing.contains(&path.as_str()) || path.starts_with("/.well-known/est/"))
}

/// Verifies, for every route: a client without a certificate gets 401 before any part of its
/// request is judged. Each refusal is an entry or is counted.
#[test]
fn a_stranger_is_refused_before_its_request_is_parsed() {
    let mut env = TestEnv::running();
    let stranger = RawTls::of(&env, None);
    let routes = routes();
    for route in &routes {
        let (status, code) = asked(&stranger, route);
        assert_eq!(
            (status, code.as_str()),
            (401, "client_certificate_required"),
            "{route:?}"
        );
    }
    env.stop();
    let written = env.count(
        "audit WHERE detail ->> 'code' = 'client_certificate_required'
                               AND detail ->> 'times' IS NULL
                               AND detail ->> 'address' = '127.0.0.1'",
    );
    let counted = "SELECT coalesce(sum(detail ->> 'times'), 0) FROM audit
                   WHERE action = 'certificate.refusals_counted'
                     AND detail ->> 'code' = 'client_certificate_required'";
    let store = invariants::open(&env.database());
    let counted: i64 = store.query_row(counted, [], |row| row.get(0)).unwrap();
    assert_eq!(written + counted, i64::try_from(routes.len()).unwrap());
}

/// Verifies: a stranger gets the same answer for a device that exists and for one that does not, by
/// EST and by the API. A device learns nothing about other devices.
#[test]
fn an_answer_does_not_reveal_which_devices_exist() {
    let env = TestEnv::running();
    let station = env.station();
    station.obtain(&Request::device("press-7"));
    let device = station.obtain(&Request::device("press-8"));
    let ask = |holder: Option<&Holder>, operation: &str, id: &str| {
        let csr = env.write("access.csr", &Request::device(id).csr);
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--insecure", "--write-out", "%{http_code}"]);
        if let Some(holder) = holder {
            let chain = holder.certificate.clone() + &holder.chain.concat();
            curl.arg("--cert").arg(env.write("access.pem", &chain));
            curl.arg("--key").arg(env.write("access.key", &holder.key));
        }
        curl.args(["--header", "content-type: application/pkcs10"]);
        curl.arg("--data-binary").arg(format!("@{}", csr.display()));
        curl.arg(format!("{}/.well-known/est/{operation}", env.https()));
        let output = curl.output().unwrap();
        String::from_utf8(output.stdout).unwrap().replace(id, "ID")
    };
    for holder in [None, Some(&device)] {
        for operation in [
            "device/simpleenroll",
            "device/simplereenroll",
            "simplereenroll",
        ] {
            let known = ask(holder, operation, "press-7");
            assert!(!known.ends_with("200"), "{known}");
            assert_eq!(known, ask(holder, operation, "press-9"), "{operation}");
        }
    }
    let stranger = env.stranger();
    let output = |path: &str| {
        let answer = stranger.get(path);
        (answer.status, answer.body)
    };
    assert_eq!(output("/v1/devices/press-7"), output("/v1/devices/press-9"));
}

/// Verifies: a local user without permission is refused on each route, and each refusal is in the
/// journal.
#[test]
fn a_local_user_without_permission_is_refused_on_each_route() {
    const NOBODY: &str = "65534";
    let env = TestEnv::running();
    // The folders belong to the test and the daemon; in production the socket lies in /run.
    for folder in ["", "state"] {
        fs::set_permissions(env.path(folder), Permissions::from_mode(0o711)).unwrap();
    }
    let as_nobody = ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"];
    let mut status = Command::new("setpriv");
    status.args(as_nobody).arg("curl").arg("--silent");
    status
        .arg("--unix-socket")
        .arg(env.path("state/admin.sock"));
    let output = CommandOutput::of(status.arg("http://localhost/v1/status"));
    assert!(output.out.contains("user_not_admitted"), "{output:?}");
    let (_, action, actor, detail) = newest_entry(&env);
    assert_eq!(
        (&action[..], &actor[..]),
        ("request.refused", "local uid 65534")
    );
    assert_eq!(detail["route"], "/v1/status", "{detail}");
    assert_eq!(detail["code"], "user_not_admitted", "{detail}");
}

/// Verifies: a client that presents a certificate without holding its key is in the journal.
#[test]
fn a_client_without_the_key_of_its_certificate_is_audited() {
    let env = TestEnv::running();
    let station = env.enlist("station", "station-1");
    let thief = Request::device("press-7").key;
    let thief = RawTls::with_wrong_key(&env, &station, &thief);
    let mut answer = Vec::new();
    // The handshake fails, at one step or another.
    let _ = thief
        .says(b"")
        .and_then(|mut stream| stream.read_to_end(&mut answer));
    assert!(answer.is_empty(), "{answer:?}");
    let refused = "audit WHERE action = 'connection.refused' AND actor = 'unauthenticated' \
                   AND detail ->> 'code' = 'client_certificate_invalid' \
                   AND detail ->> 'address' = '127.0.0.1'";
    until("the handshake is audited", || {
        (env.count(refused) == 1).then_some(())
    });
}

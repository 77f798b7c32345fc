//! Every route and every role. A caller that may not is refused before its path, query and body are
//! looked at, and each refusal is in the audit journal once, with who, from where, and what.

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

/// Where the routes are written down.
const ROUTES: &str = include_str!("../../daemon/src/api/mod.rs");
/// What is open to all.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];
const EST: [&str; 4] = [
    "/.well-known/est/simpleenroll",
    "/.well-known/est/simplereenroll",
    "/.well-known/est/{label}/simpleenroll",
    "/.well-known/est/{label}/simplereenroll",
];
/// No body of this length is ever sent.
const PROMISED: usize = 10_000_000;
/// What is sent of it: no JSON, no TOML, no PKCS #10.
const MALFORMED: &str = "}{\u{0}";

/// A method and the template of a path.
type Route = (String, String);

/// All routes with callers, as the source has them.
fn routes() -> Vec<Route> {
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

/// The path with something in each place, which exists nowhere.
fn filled(template: &str) -> String {
    let parts = template.split('/').map(|part| match part {
        "{label}" => "device",
        _ if part.starts_with('{') => "!",
        _ => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

/// What the daemon answers to a head and the beginning of a malformed body, and its code.
fn asked(client: &RawTls, (method, template): &Route) -> (u16, String) {
    let path = filled(template);
    let request = format!(
        "{method} {path}?limit=x HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {PROMISED}\r\n\r\n{MALFORMED}"
    );
    let mut answer = BufReader::new(client.says(request.as_bytes()).unwrap());
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
fn newest_entry(stage: &Stage) -> (i64, String, String, Value) {
    let store = invariants::open(&stage.database());
    let sql = "SELECT sequence, action, actor, detail FROM audit ORDER BY sequence DESC LIMIT 1";
    let row = store.query_row(sql, [], |row| {
        let text = |column| row.get::<_, String>(column);
        Ok((row.get(0)?, text(1)?, text(2)?, text(3)?))
    });
    let (id, action, actor, detail) = row.unwrap();
    (id, action, actor, serde_json::from_str(&detail).unwrap())
}

/// Verifies, of every route and of device, station and auditor: who may not is told 403 whatever it
/// sends, and that is one entry of the journal, and a line of the log.
#[test]
fn each_refusal_of_a_role_is_in_the_journal_once() {
    let stage = TestEnv::running();
    let holders = [
        ("device", stage.enlist("device", "press-7")),
        ("station", stage.enlist("station", "station-1")),
        ("auditor", stage.enlist("auditor", "auditor-1")),
    ];
    for (role, holder) in &holders {
        let client = RawTls::of(&stage, Some(holder));
        let mut refused = 0;
        for route in routes() {
            let (before, ..) = newest_entry(&stage);
            let (status, code) = asked(&client, &route);
            let (id, action, actor, detail) = newest_entry(&stage);
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
        // An auditor may look, a station and a device may ask for certificates.
        let least = if *role == "auditor" { 15 } else { 30 };
        assert!(refused > least, "{role}: {refused}");
        let log = fs::read_to_string(stage.path("hallmarkd.log")).unwrap();
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
    method == "POST" && (path == "/v1/certificates" || path.starts_with("/.well-known/est/"))
}

/// Verifies, of every route: a client without a certificate is told 401 before anything of its
/// request is judged, and each refusal is an entry or counted.
#[test]
fn a_stranger_is_refused_before_its_request_is_looked_at() {
    let mut stage = TestEnv::running();
    let stranger = RawTls::of(&stage, None);
    let routes = routes();
    for route in &routes {
        let (status, code) = asked(&stranger, route);
        assert_eq!(
            (status, code.as_str()),
            (401, "client_certificate_required"),
            "{route:?}"
        );
    }
    stage.stop();
    let written = stage.count("audit WHERE detail ->> 'code' = 'client_certificate_required'
                               AND detail ->> 'times' IS NULL AND detail ->> 'address' = '127.0.0.1'");
    let counted = "SELECT coalesce(sum(detail ->> 'times'), 0) FROM audit
                   WHERE action = 'certificate.refusals_counted'
                     AND detail ->> 'code' = 'client_certificate_required'";
    let store = invariants::open(&stage.database());
    let counted: i64 = store.query_row(counted, [], |row| row.get(0)).unwrap();
    assert_eq!(written + counted, i64::try_from(routes.len()).unwrap());
}

/// Verifies: a stranger is told the same of a device that exists and of one that does not, by EST and
/// by the API; and a device is not told which others exist.
#[test]
fn nobody_is_told_which_devices_exist() {
    let stage = TestEnv::running();
    let station = stage.station();
    station.obtain(&Request::device("press-7"));
    let device = station.obtain(&Request::device("press-8"));
    let ask = |holder: Option<&Holder>, operation: &str, id: &str| {
        let csr = stage.write("access.csr", &Request::device(id).csr);
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--insecure", "--write-out", "%{http_code}"]);
        if let Some(holder) = holder {
            let chain = holder.certificate.clone() + &holder.chain.concat();
            curl.arg("--cert").arg(stage.write("access.pem", &chain));
            curl.arg("--key")
                .arg(stage.write("access.key", &holder.key));
        }
        curl.args(["--header", "content-type: application/pkcs10"]);
        curl.arg("--data-binary").arg(format!("@{}", csr.display()));
        curl.arg(format!("{}/.well-known/est/{operation}", stage.https()));
        let told = curl.output().unwrap();
        String::from_utf8(told.stdout).unwrap().replace(id, "ID")
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
    let stranger = stage.stranger();
    let told = |path: &str| {
        let answer = stranger.get(path);
        (answer.status, answer.body)
    };
    assert_eq!(told("/v1/devices/press-7"), told("/v1/devices/press-9"));
}

/// Verifies: a local user who is not admitted is told so, on each route, and it is in the journal.
#[test]
fn a_local_user_who_is_not_admitted_is_told_so() {
    const NOBODY: &str = "65534";
    let stage = TestEnv::running();
    // The folders are the test's and the daemon's own; in production the socket lies in /run.
    for folder in ["", "state"] {
        fs::set_permissions(stage.path(folder), Permissions::from_mode(0o711)).unwrap();
    }
    let as_nobody = ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"];
    let mut status = Command::new("setpriv");
    status.args(as_nobody).arg("curl").arg("--silent");
    status
        .arg("--unix-socket")
        .arg(stage.path("state/admin.sock"));
    let told = Told::of(status.arg("http://localhost/v1/status"));
    assert!(output.out.contains("user_not_admitted"), "{output:?}");
    let (_, action, actor, detail) = newest_entry(&env);
    assert_eq!(
        (&action[..], &actor[..]),
        ("request.refused", "local uid 65534")
    );
    assert_eq!(detail["route"], "/v1/status", "{detail}");
    assert_eq!(detail["code"], "user_not_admitted", "{detail}");
}

/// Verifies: a client that presents a certificate and does not hold its key is in the journal.
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

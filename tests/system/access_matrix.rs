//! Runs every cell of docs/access.md: each route for each kind of caller, and each command for a
//! local user that is not admitted and for one that is.
//!
//! Another test compares the page with the permissions of the routes.

use crate::access::{MALFORMED, Route, answer_of, filled, malformed, newest_entry};
use crate::access_page;
use crate::configured::{Profile, station_table};
use crate::process::{CommandOutput, until};
use crate::raw_tls::RawTls;
use crate::request::{Holder, Request};
use crate::roles::{OPERATOR, forged};
use crate::test_env::{HALLMARK, TestEnv};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hallmark_cli::ctl::{FIRST_REQUESTS, ON_THE_MACHINE};
use hallmarkd::ca::profile::Role;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::LazyLock;

/// docs/access.md, which [`access_page`](crate::access_page) writes.
static PAGE: LazyLock<String> = LazyLock::new(|| fs::read_to_string(access_page::PAGE).unwrap());
/// A user that the admin socket does not admit.
const NOBODY: &str = "65534";
const REFUSED: &str = "–";

/// A row of the page: the cells by their columns.
struct Row {
    route: Route,
    cells: BTreeMap<&'static str, &'static str>,
}

impl Row {
    /// The code by which a known caller is refused.
    fn code(&self) -> &'static str {
        self.cells["code for callers"].trim_matches('`')
    }
}

fn cells(line: &'static str) -> Vec<&'static str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

fn rows() -> Vec<Row> {
    let mut lines = PAGE.lines().skip_while(|it| !it.starts_with("| route |"));
    let columns = cells(lines.next().unwrap());
    let lines = lines.skip(1).take_while(|it| it.starts_with('|'));
    let rows = lines.map(|line| {
        let cells = cells(line);
        assert_eq!(cells.len(), columns.len(), "{line}");
        let (method, path) = cells[0].trim_matches('`').split_once(' ').unwrap();
        Row {
            route: (method.to_owned(), path.to_owned()),
            cells: columns.iter().copied().zip(cells).collect(),
        }
    });
    rows.collect()
}

/// An environment with every role, a station table for presses alone, and leaves that renew
/// themselves late.
fn env() -> TestEnv {
    let env = TestEnv::new();
    let stored = Profile {
        name: "stored-2s",
        authority: "line-1",
        role: "device",
        validity: "2s",
        more: "late_renewal = \"2d\"",
    };
    let any = station_table("*", &["device", "device-20s"], &["*"]);
    let configuration = env.configuration();
    assert!(configuration.contains(&any), "{configuration}");
    let presses = station_table("*", &["device", "device-20s"], &["press-*"]);
    let configuration = configuration.replace(&any, &presses) + &OPERATOR.toml() + &stored.toml();
    env.configure(&configuration);
    env.started()
}

/// A whole request with a malformed body: what is served is answered at once.
fn request(route: &Route, more: &str) -> String {
    malformed(route, more, MALFORMED.len())
}

/// Status and code of the answer to that request of a client of HTTPS.
fn over(client: &RawTls, route: &Route) -> (u16, String) {
    answer_of(client.says(request(route, "").as_bytes()).unwrap(), route)
}

/// Asserts that each cell of a column is as the page says. `ask` returns status and code; `refused`
/// is what a refused route answers.
fn judge(
    column: &str,
    rows: &[Row],
    ask: impl Fn(&Route) -> (u16, String),
    refused: impl Fn(&Row) -> Vec<(u16, String)>,
) {
    let mut wrong = Vec::new();
    for row in rows {
        let cell = row.cells[column];
        let (status, code) = ask(&row.route);
        let is_right = match cell {
            REFUSED => refused(row).contains(&(status, code.clone())),
            "all" | "own" | "tables" => ![401, 403].contains(&status) && code != "route_unknown",
            other => panic!("{:?}: a cell says {other}", row.route),
        };
        if !is_right {
            wrong.push(format!(
                "{:?} for {column}: {cell}, but {status} {code}",
                row.route
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn one(status: u16, code: &str) -> Vec<(u16, String)> {
    vec![(status, code.to_owned())]
}

/// Verifies every cell of the roles, by certificates that the daemon has issued.
#[test]
fn every_role_is_served_and_refused_as_the_table_says() {
    let env = env();
    let rows = rows();
    assert!(rows.len() > 70, "{} rows", rows.len());
    let columns: Vec<_> = rows[0].cells.keys().copied().collect();
    let roles = Role::ALL.map(Role::name);
    for role in roles {
        assert!(columns.contains(&role), "{role}");
        let client = RawTls::of(&env, Some(&enlist(&env, role)));
        let by_role = |row: &Row| one(403, row.code());
        judge(role, &rows, |route| over(&client, route), by_role);
    }
}

/// A certificate of a role.
fn enlist(env: &TestEnv, role: &str) -> Holder {
    let id = holder_of(role);
    if role != "server" {
        return env.enlist(role, &id);
    }
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([id.clone()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let request = Request::of(role, &id, csr, key.serialize_pem());
    env.try_to_issue(&request).expect("it is issued")
}

/// A name for the holder of a role.
fn holder_of(role: &str) -> String {
    match role {
        "device" => "press-7".to_owned(),
        "server" => "gauge.example".to_owned(),
        _ => format!("{role}-1"),
    }
}

/// Verifies every cell of clients that are no callers of the network: without a certificate, with a
/// revoked, an expired and a foreign one, and of plain HTTP.
#[test]
fn clients_that_are_no_callers_are_refused_as_the_table_says() {
    let env = env();
    let rows = rows();
    let revoked = env.enlist("operator", "operator-2");
    let serial = revoked.serial.as_str();
    env.run(&["certificate", "revoke", serial, "--reason", "superseded"]);
    let expired = env.enlist("station-2s", "station-2");
    until("the certificate has ended", || {
        let answer = env.caller(&expired).get("/v1/status");
        (answer.code() == "client_certificate_expired").then_some(())
    });
    let other = forged("operator-1");
    let holders = [
        ("no certificate", None, "client_certificate_required"),
        ("revoked", Some(&revoked), "client_certificate_revoked"),
        ("expired", Some(&expired), "client_certificate_expired"),
        (
            "other authority",
            Some(&other),
            "client_certificate_unknown",
        ),
    ];
    for (column, holder, code) in holders {
        let client = RawTls::of(&env, holder);
        judge(
            column,
            &rows,
            |route| over(&client, route),
            |_| one(401, code),
        );
    }
    let http = env.json(&["status"])["http"].as_str().unwrap().to_owned();
    let over_http = |route: &Route| {
        let mut stream = TcpStream::connect(&http).unwrap();
        let _ = stream.write_all(request(route, "").as_bytes());
        answer_of(stream, route)
    };
    judge("plain HTTP", &rows, over_http, |_| {
        one(404, "route_unknown")
    });
}

/// Verifies every cell of devices that have a grant instead of a valid leaf: a one-time credential,
/// and a leaf that has ended.
#[test]
fn devices_with_a_grant_are_served_and_refused_as_the_table_says() {
    let env = env();
    let rows = rows();
    let make = [
        "device",
        "credential",
        "make",
        "press-8",
        "--profile",
        "device",
    ];
    let made = env.json(&make);
    let secret = made["secret"].as_str().unwrap();
    let header = format!(
        "authorization: Basic {}\r\n",
        STANDARD.encode(format!("press-8:{secret}"))
    );
    let stranger = RawTls::of(&env, None);
    let by_credential = |route: &Route| {
        let stream = stranger.says(request(route, &header).as_bytes()).unwrap();
        answer_of(stream, route)
    };
    let required = |_: &Row| one(401, "client_certificate_required");
    judge("first leaf", &rows, by_credential, required);

    let ended = env.enlist("stored-2s", "press-9");
    until("the leaf has ended", || {
        let answer = env.caller(&ended).get("/v1/caller");
        (answer.code() == "client_certificate_expired").then_some(())
    });
    let client = RawTls::of(&env, Some(&ended));
    let ended = |row: &Row| {
        let code = one(401, "client_certificate_expired");
        let of_batches = one(403, "role_forbidden");
        let is_batch = row.route.1 == "/v1/certificates:batch";
        if is_batch {
            [code, of_batches].concat()
        } else {
            code
        }
    };
    judge("late renewal", &rows, |route| over(&client, route), ended);
}

/// Verifies every cell of local users, and that a command is refused at the request that the page
/// names.
#[test]
fn local_users_and_their_commands_are_served_and_refused_as_the_table_says() {
    let env = env();
    let rows = rows();
    for folder in ["", "state"] {
        fs::set_permissions(env.path(folder), Permissions::from_mode(0o711)).unwrap();
    }
    let socket = env.path("state/admin.sock");
    let admitted = |route: &Route| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        let _ = stream.write_all(request(route, "").as_bytes());
        answer_of(stream, route)
    };
    judge("local user", &rows, admitted, |_| Vec::new());
    let not_admitted = |route: &Route| {
        let mut curl = as_nobody("curl");
        curl.args(["--silent", "--request", &route.0, "--unix-socket"]);
        curl.arg(&socket).args(["--write-out", "\n%{http_code}"]);
        let path = filled(&route.1);
        let output = CommandOutput::of(curl.arg(format!("http://localhost{path}")));
        let (body, status) = output.out.rsplit_once('\n').unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        let code = body["code"].as_str().unwrap_or_default().to_owned();
        (status.parse().unwrap(), code)
    };
    judge("user not admitted", &rows, not_admitted, |_| {
        one(403, "user_not_admitted")
    });
}

fn as_nobody(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        NOBODY,
        "--regid",
        NOBODY,
        "--clear-groups",
        program,
    ]);
    command
}

/// Verifies that each command of a local user that is not admitted is refused at the request that
/// the page names, and that none of an admitted one is.
#[test]
fn commands_are_refused_at_the_request_that_the_table_names() {
    let env = env();
    for folder in ["", "state"] {
        fs::set_permissions(env.path(folder), Permissions::from_mode(0o711)).unwrap();
    }
    let shared = env.path("shared");
    for folder in ["", "carried", "returned"] {
        fs::create_dir(shared.join(folder)).unwrap();
        fs::set_permissions(shared.join(folder), Permissions::from_mode(0o777)).unwrap();
    }
    let program = shared.join("hallmark");
    fs::copy(HALLMARK, &program).unwrap();
    let leaf = Request::device("press-9");
    for (name, text) in [
        ("ceremony.toml", "name = \"none\"\n"),
        ("leaf.csr", &leaf.csr),
        ("leaf.pem", &env.authority("line-1")),
        ("old.crl", "none"),
        ("list.csv", "press-9,leaf.csr\n"),
    ] {
        fs::write(shared.join(name), text).unwrap();
    }
    let socket = env.path("state/admin.sock");
    for (example, request) in FIRST_REQUESTS {
        if *request == ON_THE_MACHINE {
            continue;
        }
        let arguments = example.split(' ').map(|word| match word.strip_prefix('@') {
            Some(file) => shared.join(file).into_os_string(),
            None => word.into(),
        });
        let arguments: Vec<_> = arguments.collect();
        let run = |command: &mut Command| {
            command
                .env("HALLMARK_ADMIN_SOCKET", &socket)
                .args(&arguments);
            CommandOutput::of(command)
        };
        let (before, ..) = newest_entry(&env);
        let output = run(&mut as_nobody(program.to_str().unwrap()));
        assert_ne!(output.code, Some(0), "{example}: {output:?}");
        let (id, _, actor, detail) = newest_entry(&env);
        assert!(id > before, "{example} was not refused: {output:?}");
        assert_eq!(actor, "local uid 65534", "{example}");
        let method = detail["method"].as_str().unwrap_or_default();
        let route = detail["route"].as_str().unwrap_or_default();
        assert_eq!(format!("{method} {route}"), *request, "{example}");
        assert_eq!(detail["code"], "user_not_admitted", "{example}");

        let output = run(&mut Command::new(&program));
        for code in ["user_not_admitted", "role_forbidden", "_not_local"] {
            assert!(!output.error.contains(code), "{example}: {output:?}");
        }
        let answers = shared.join("carried/answers.json");
        if answers.exists() {
            fs::copy(answers, shared.join("returned/answers.json")).unwrap();
        }
    }
}

/// Verifies that a cell `own` or `tables` ends where the page says: a caller gets what is its own,
/// and is refused what is another's.
#[test]
fn what_is_anothers_is_refused_where_the_table_says_own() {
    let env = env();
    let mine = env.enlist("device", "press-7");
    let other = env.enlist("device", "press-8");
    let roles = Role::ALL.map(Role::name);
    let rows = rows();
    let cell = |route: (&str, &str), role: &str| {
        let row = rows.iter().find(|it| (&*it.route.0, &*it.route.1) == route);
        row.unwrap().cells[role]
    };
    for role in roles {
        let holder: Holder = match role {
            "device" => mine.clone(),
            _ => enlist(&env, role),
        };
        let caller = env.caller(&holder);
        let own = caller.get(&format!("/v1/certificates/{}", holder.serial));
        assert_eq!(own.status, 200, "{role}: {own:?}");
        let of_other = caller.get(&format!("/v1/certificates/{}", other.serial));
        let expected = match cell(("GET", "/v1/certificates/{serial}"), role) {
            "own" => (403, "role_forbidden"),
            _ => (200, ""),
        };
        assert_eq!((of_other.status, of_other.code()), expected, "{role}");

        let requested = caller.ask(&Request::device("press-9"));
        let drill = caller.ask(&Request::device("drill-1"));
        let expected = match cell(("POST", "/v1/certificates"), role) {
            "own" => [(403, "role_forbidden"); 2],
            "tables" => [(201, ""), (403, "station_id_forbidden")],
            _ => [(201, ""), (201, "")],
        };
        let seen = [&requested, &drill].map(|it| (it.status, it.code()));
        assert_eq!(seen, expected, "{role}");
    }
}

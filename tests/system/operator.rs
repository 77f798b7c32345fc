//! Tests what an operator meets day by day: failures that a script can read, files that cannot be
//! written, the newest of the journal, lines of the log, certificates that are fetched again, and
//! requests whose words are wrong.

use crate::process::{CommandOutput, until};
use crate::request::Request;
use crate::test_env::{HALLMARK, TestEnv};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// Words that say how this program is made, and not what to do.
const OF_THE_INSIDE: [&str; 12] = [
    "expected struct",
    "expected one of",
    "unknown field",
    "missing field",
    "unknown variant",
    "invalid type",
    "at line",
    "deserialize",
    "SUN_LEN",
    "SQL",
    "constraint failed",
    "os error 104",
];

fn is_plain(text: &str) {
    let found = OF_THE_INSIDE.iter().find(|it| text.contains(**it));
    assert_eq!(found, None, "{text}");
}

/// Asserts that `--json` printed one object with these members.
fn is_one_object(output: &CommandOutput, exit: i32, code: &str) -> Value {
    assert_eq!(output.code, Some(exit), "{output:?}");
    let object: Value = serde_json::from_str(&output.out).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(object["code"], code, "{object}");
    for member in ["error", "remedy"] {
        let text = object[member].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "no {member}: {object}");
        is_plain(text);
    }
    object
}

/// Every command that fails with `--json` prints one object, whatever has failed.
#[test]
fn a_failure_is_one_object_for_scripts() {
    let mut env = TestEnv::running();
    let csr = env.write("press-7.csr", &Request::device("press-7").csr);
    let csr = csr.to_str().unwrap();
    let nowhere = env.path("nowhere").display().to_string();
    let json = |env: &TestEnv, arguments: &[&str]| env.hallmark(&[&["--json"], arguments].concat());
    let issue = ["issue", "--profile", "no-such", "--id", "x", "--csr", csr];
    let roll = [
        "roll",
        "start",
        "--authority",
        "nonsense",
        "--reason",
        "expiry",
    ];
    for (code, arguments) in [
        ("device_unknown", &["device", "show", "nonsense"][..]),
        ("device_unknown", &["device", "block", "nonsense"]),
        ("block_unknown", &["device", "unblock", "nonsense"]),
        ("enrollment_unknown", &["push", "retry", "nonsense"]),
        ("enrollment_unknown", &["enrollment", "show", "nonsense"]),
        ("authority_unknown", &["authority", "show", "nonsense"]),
        ("authority_unknown", &roll),
        ("authority_not_waiting", &["authority", "csr", "nonsense"]),
        ("certificate_unknown", &["certificate", "show", "0A1B"]),
        ("certificate_unknown", &["certificate", "list", "nonsense"]),
        ("token_unknown", &["token", "check", "nonsense"]),
        ("profile_unknown", &issue),
        ("file_unusable", &["ceremony", "run", &nowhere]),
        ("file_unusable", &["authority", "install", "root", &nowhere]),
    ] {
        is_one_object(&json(&env, arguments), 1, code);
    }
    for arguments in [
        &["no-such-command"][..],
        &["device", "show"],
        &["device", "show", ""],
        &["roll", "show", "one"],
        &["audit", "show", "--limit", "0"],
        &["roll", "start", "press-7", "--reason", "boredom"],
    ] {
        is_one_object(&json(&env, arguments), 2, "usage");
    }
    let root = tempfile::tempdir().unwrap();
    let mut setup = Command::new(HALLMARK);
    setup.args(["--json", "setup", "--root"]).arg(root.path());
    let output = CommandOutput::of(setup.stdin(std::process::Stdio::null()));
    is_one_object(&output, 2, "usage");
    env.stop();
    is_one_object(&json(&env, &["status"]), 3, "daemon_unreachable");
}

/// A file that cannot be written is found before anything is issued, made or copied.
#[test]
fn nothing_is_done_for_a_file_that_cannot_be_written() {
    let env = TestEnv::running();
    let csr = env.write("press-7.csr", &Request::device("press-7").csr);
    let csr = csr.to_str().unwrap();
    let missing = env.path("missing/x.pem").display().to_string();
    let folder = env.path("state").display().to_string();
    let gone = env.path("missing").display().to_string();
    let done = || (env.count("intent"), env.entries());
    let before = done();
    let issue = [
        "issue",
        "--profile",
        "device",
        "--id",
        "press-7",
        "--csr",
        csr,
        "--out",
    ];
    for arguments in [
        [&issue[..], &[&missing]].concat(),
        [&issue[..], &[&folder]].concat(),
        ["backup", "create", "--to", &gone].to_vec(),
    ] {
        let output = env.hallmark(&arguments);
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(
            output.error.contains("nothing was asked of the daemon"),
            "{output:?}"
        );
        assert_eq!(done(), before, "{arguments:?}");
    }
    let out = env.path("press-7.pem");
    env.run(&[&issue[..], &[out.to_str().unwrap()]].concat());
    let written = fs::read_to_string(&out).unwrap();
    assert_eq!(written.matches("BEGIN CERTIFICATE").count(), 4, "{written}");

    let again = env.path("again.pem");
    let serial = env.json(&["device", "show", "press-7"])["serial"].clone();
    let serial = serial.as_str().unwrap();
    env.run(&[
        "certificate",
        "show",
        serial,
        "--out",
        again.to_str().unwrap(),
    ]);
    assert_eq!(fs::read_to_string(again).unwrap(), written);
}

/// Operators and auditors fetch each certificate with its chain; a station and a device their own,
/// and learn nothing of others.
#[test]
fn a_certificate_is_fetched_again_by_those_that_may() {
    let env = TestEnv::running();
    let station = env.enlist("station", "station-1");
    let auditor = env.enlist("auditor", "auditor-1");
    let device = env.enlist("device", "press-7");
    let get = |holder, path: &str| env.caller(holder).get(path);
    for (holder, own) in [(&auditor, true), (&station, false), (&device, false)] {
        for of in [&auditor, &station, &device] {
            for digits in [&of.serial, &of.thumbprint] {
                let answer = get(holder, &format!("/v1/certificates/{digits}"));
                if own || holder.serial == of.serial {
                    assert_eq!(answer.status, 200, "{answer:?}");
                    assert_eq!(answer.body["certificate"], of.certificate.as_str());
                    assert_eq!(answer.body["chain"], serde_json::json!(of.chain));
                } else {
                    assert_eq!(answer.code(), "role_forbidden", "{answer:?}");
                }
            }
        }
        let unknown = get(holder, "/v1/certificates/0A1B2C3D");
        let code = if own {
            "certificate_unknown"
        } else {
            "role_forbidden"
        };
        assert_eq!(unknown.code(), code);
    }
    let listed = env.json(&["certificate", "list", "press-7"]);
    assert_eq!(listed[0]["serial"], device.serial.as_str());
    assert_eq!(env.stranger().get("/v1/certificates/0A1B").status, 401);
}

/// `audit show` has the newest entries, with times in words, the caller, and who was refused.
#[test]
fn the_journal_shows_the_newest_and_names_who_was_refused() {
    let env = TestEnv::running();
    let station = env.enlist("station", "station-1");
    let device = env.caller(&env.enlist("device", "press-7"));
    env.caller(&station)
        .ask(&Request::new("device", "not an id"));
    assert_eq!(device.ask(&Request::device("press-8")).status, 403);
    env.run(&[
        "certificate",
        "revoke",
        &station.serial,
        "--reason",
        "superseded",
    ]);
    assert_eq!(env.caller(&station).get("/v1/devices").status, 401);
    let text = env.run(&["audit", "show"]);
    let newest = text.lines().nth(1).unwrap();
    assert!(newest.contains("holder: station station-1"), "{text}");
    let refused = |words: [&str; 3]| {
        let mut lines = text.lines();
        let found = lines.any(|line| words.iter().all(|it| line.contains(it)));
        assert!(found, "no {words:?}: {text}");
    };
    refused(["station station-1", "not an id", "registration_id_invalid"]);
    refused(["device press-7", "press-8", "role_forbidden"]);
    let year = format!("  {}-", time::OffsetDateTime::now_utc().year());
    assert!(
        text.lines().skip(1).all(|line| line.contains(&year)),
        "{text}"
    );

    let all = env.json(&["audit", "show"]);
    let all = all.as_array().unwrap();
    let newest = env.json(&["audit", "show", "--limit", "2"]);
    assert_eq!(newest.as_array().unwrap()[..], all[all.len() - 2..]);
    let before = all[all.len() - 2]["sequence"].to_string();
    let earlier = env.json(&["audit", "show", "--limit", "2", "--before", &before]);
    assert_eq!(
        earlier.as_array().unwrap()[..],
        all[all.len() - 4..all.len() - 2]
    );
    let first = env.json(&["audit", "show", "--after", "0", "--limit", "1"]);
    assert_eq!(first[0]["sequence"], 1);
}

/// The number of entries in the answer to `audit show` with these options.
fn entries(env: &TestEnv, options: &[&str]) -> usize {
    let found = env.json(&[&["audit", "show"], options].concat());
    found.as_array().unwrap().len()
}

/// Verifies: `audit show` finds what concerns a device, an authority and a caller, and what is
/// recent; a wrong time is refused with a reason.
#[test]
fn the_journal_is_searched() {
    let env = TestEnv::running();
    let station = env.station_called("station-1");
    station.obtain(&Request::device("press-7"));
    station.obtain(&Request::device("press-8"));
    env.run(&["device", "block", "press-7", "--reason", "stolen"]);
    let of_device = env.json(&["audit", "show", "--device", "PRESS-7"]);
    let actions = of_device.as_array().unwrap().iter();
    let actions: Vec<_> = actions.map(|it| it["action"].as_str().unwrap()).collect();
    assert_eq!(actions[0], "certificate.issued", "{of_device:#}");
    assert!(actions.len() > 1, "{of_device:#}");
    let of_others = |it: &Value| it["subject"] == "press-8";
    assert!(!of_device.as_array().unwrap().iter().any(of_others));
    for caller in ["station-1", "station station-1"] {
        assert_eq!(entries(&env, &["--caller", caller]), 2);
    }
    assert_eq!(
        entries(&env, &["--caller", "station-1", "--device", "press-8"]),
        1
    );
    assert!(entries(&env, &["--authority", "line-1"]) > 0);
    assert_eq!(entries(&env, &["--authority", "line-9"]), 0);
    let all = entries(&env, &[]);
    assert_eq!(entries(&env, &["--since", "1h"]), all);
    assert_eq!(entries(&env, &["--since", "2099-01-01"]), 0);
    let wrong = env.hallmark(&["audit", "show", "--since", "yesterday"]);
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    assert!(wrong.error.contains("yesterday"), "{wrong:?}");
}

/// Verifies: `audit show --follow` prints an entry that is made after it has begun.
#[test]
fn the_journal_is_followed() {
    let env = TestEnv::running();
    let station = env.station_called("station-1");
    let mut command = Command::new(HALLMARK);
    command.args(["audit", "show", "--follow", "--device", "press-7"]);
    command.env("HALLMARK_ADMIN_SOCKET", env.path("state/admin.sock"));
    let mut follow = command.stdout(Stdio::piped()).spawn().unwrap();
    station.obtain(&Request::device("press-7"));
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    assert!(line.contains("certificate.issued"), "{line}");
    follow.kill().unwrap();
    follow.wait().unwrap();
}

/// The log has one line for each certificate that is issued, refused and revoked.
#[test]
fn the_log_says_what_was_issued_refused_and_revoked() {
    let env = TestEnv::running();
    let device = env.enlist("device", "press-7");
    let station = env.caller(&env.enlist("station", "station-1"));
    station.ask(&Request::new("device", "not an id"));
    env.run(&[
        "certificate",
        "revoke",
        &device.serial,
        "--reason",
        "superseded",
    ]);
    let line = |words: [&str; 4]| {
        until("the line is in the log", || {
            let log = fs::read_to_string(env.path("hallmarkd.log")).unwrap();
            let lines = log
                .lines()
                .filter(|it| words.iter().all(|word| it.contains(word)));
            (lines.count() == 1).then_some(())
        });
    };
    line(["certificate issued", "press-7", &device.serial, "device"]);
    line([
        "refused",
        "station station-1",
        "not an id",
        "registration_id_invalid",
    ]);
    line([
        "certificate revoked",
        "press-7",
        &device.serial,
        "superseded",
    ]);
}

/// A local user without permission learns that, and what to do, whatever the command sends.
#[test]
fn a_user_without_permission_is_not_told_that_nothing_runs() {
    const NOBODY: &str = "65534";
    let env = TestEnv::running();
    let program = env.path("hallmark");
    fs::copy(HALLMARK, &program).unwrap();
    let large = env.write("large.toml", &"# remark\n".repeat(1 << 20));
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
        command.arg(&program).arg("--json").arg("--admin-socket");
        command.arg(env.path("state/admin.sock")).args(arguments);
        CommandOutput::of(&mut command)
    };
    fs::set_permissions(env.path(""), Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(env.path("state"), Permissions::from_mode(0o700)).unwrap();
    is_one_object(&as_nobody(&["status"]), 1, "user_not_admitted");
    fs::set_permissions(env.path("state"), Permissions::from_mode(0o711)).unwrap();
    for arguments in [
        &["status"][..],
        &["push", "retry"],
        &["ceremony", "run", large.to_str().unwrap()],
    ] {
        let object = is_one_object(&as_nobody(arguments), 1, "user_not_admitted");
        assert!(
            object["remedy"].to_string().contains("admin_users"),
            "{object}"
        );
    }
    fs::set_permissions(env.path("state"), Permissions::from_mode(0o700)).unwrap();
}

/// Bodies, queries and parts of addresses that are wrong are refused by problem documents in plain
/// words.
#[test]
fn what_is_wrong_with_a_request_is_said_in_plain_words() {
    let env = TestEnv::running();
    let socket = env.path("state/admin.sock");
    let asked = |arguments: &[&str], path: &str| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--unix-socket"]).arg(&socket);
        curl.args(["--header", "content-type: application/json"]);
        let curl = curl.args(arguments).arg(format!("http://localhost{path}"));
        let output = CommandOutput::of(curl);
        let problem: Value =
            serde_json::from_str(&output.out).unwrap_or_else(|_| panic!("{output:?}"));
        let detail = problem["detail"].as_str().unwrap().to_owned();
        is_plain(&detail);
        (problem["code"].as_str().unwrap().to_owned(), detail)
    };
    for (path, body, words) in [
        (
            "/v1/certificates",
            "{\"profil\": \"x\"}",
            "`profil` is not known; possible here: `profile`",
        ),
        (
            "/v1/certificates",
            "{\"profile\": \"x\"}",
            "`registration_id` is missing",
        ),
        (
            "/v1/certificates",
            "{\"profile\": 5}",
            "a text in quotes is needed here, not the number `5`",
        ),
        ("/v1/certificates", "no json", "is not JSON"),
        ("/v1/certificates", "", "it ends too early"),
        (
            "/v1/blocks",
            "{\"kind\": \"thing\"}",
            "`thing` is not possible; possible here: `device`",
        ),
        ("/v1/push/retry", "{\"nam\": 1}", "`nam` is not known"),
    ] {
        let (code, detail) = asked(&["--data", body], path);
        assert_eq!(code, "body_invalid", "{detail}");
        assert!(detail.contains(words), "{body}: {detail}");
    }
    for (path, code) in [
        ("/v1/devices?limit=many", "query_invalid"),
        ("/v1/audit?after=-x", "query_invalid"),
        ("/v1/rolls?open=perhaps", "query_invalid"),
        ("/v1/certificates?state=good", "query_invalid"),
        ("/v1/rolls/first", "path_invalid"),
        ("/v1/blocks/thing/x", "path_invalid"),
        ("/v1/devices/%ff", "path_invalid"),
        ("/v1/certificates/xyz", "serial_invalid"),
    ] {
        let (found, detail) = asked(&[], path);
        assert_eq!(found, code, "{path}: {detail}");
    }
}

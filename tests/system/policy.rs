//! Tests which certificates stations and devices may request, as the configuration says.

use crate::caller::Answer;
use crate::configured::{device_profile, station_table};
use crate::est_client::EstClient;
use crate::process::CommandOutput;
use crate::refusals::Witness;
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;

/// A profile that would issue a CA certificate.
const AUTHORITY: &str = r#"
[[profile]]
name = "sub-authority"
authority = "plant"
role = "device"
[profile.certificate]
kind = "authority"
path_length = 0
validity = "30d"
key_types = ["p256"]
key_usage = ["key_cert_sign", "crl_sign"]
"#;

/// Verifies: `check`, a start and a reload refuse such a profile for every role and say why; after
/// a refused reload the daemon serves the configuration that it had.
#[test]
fn no_profile_lets_a_caller_obtain_a_ca_certificate() {
    let mut env = TestEnv::running();
    let good = env.configuration();
    let station = env.station();
    for role in [
        "device", "station", "operator", "auditor", "approver", "server",
    ] {
        let profile = AUTHORITY.replace("\"device\"", &format!("\"{role}\""));
        env.configure(&(good.clone() + &profile));
        for (code, output) in [(1, env.check()), (1, env.hallmark(&["reload"]))] {
            let said = format!("{}{}", output.out, output.error);
            assert_eq!(output.code, Some(code), "{role}: {output:?}");
            for word in ["sub-authority", "a CA certificate", "kind = \"leaf\""] {
                assert!(said.contains(word), "{role}: no {word}: {output:?}");
            }
        }
        let asked = station.ask(&Request::new("sub-authority", "press-7"));
        assert_eq!((asked.status, asked.code()), (404, "profile_unknown"));
    }
    station.obtain(&Request::device("press-7"));
    env.stop();
    let output = CommandOutput::of(&mut env.serve(&[]));
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(output.error.contains("a CA certificate"), "{output:?}");
    env.configure(&good);
    env.start();
    env.wait_ready();
}

/// The devices of another line, and what each station may request.
fn line_2() -> String {
    let more = "authorities = [\"line-1\"]\nmay_move = true\n";
    device_profile("device-b", "plant", "90d")
        + &station_table(
            "line-1-*",
            &["device", "device-20s"],
            &["press-*", "pump-7"],
        )
        + more
        + &station_table("line-2-*", &["device-b"], &["lathe-*", "*-shared"])
        + &station_table("line-2-a", &["device"], &["saw-?"])
        + "\n"
}

/// A plant that may issue to devices, and two lines whose stations are bound.
fn two_lines() -> TestEnv {
    let env = TestEnv::new();
    env.configure(&bound(&env));
    env.started()
}

fn bound(env: &TestEnv) -> String {
    let configuration = env.configuration();
    let before = configuration.find("[[station]]").unwrap();
    let after = configuration.find("[[provisioning]]").unwrap();
    let (head, tail) = (&configuration[..before], &configuration[after..]);
    let head = head.replacen("[listen]", "[listen]\nest_profile = \"device\"", 1);
    head + &line_2() + tail
}

fn est(env: &TestEnv, holder: &Holder, operation: &str, request: &Request) -> (String, String) {
    let answer = EstClient::of(env, holder).post(operation, request.csr.as_bytes());
    (answer.status.clone(), answer.code())
}

fn est_code(env: &TestEnv, holder: &Holder, operation: &str, id: &str) -> String {
    est(env, holder, operation, &Request::device(id)).1
}

/// Verifies: a station that no table names may request nothing, by the API and by EST; a reload
/// binds it, and another reload takes that back while its connection stays.
#[test]
fn a_station_that_no_table_names_may_ask_for_nothing() {
    let env = two_lines();
    let holder = env.enlist("station", "station-9");
    let station = env.caller(&holder);
    let witness = Witness::of(&env);
    for id in ["press-7", "lathe-1", "station-9", "anything"] {
        for profile in ["device", "device-b"] {
            let request = Request::new(profile, id);
            witness.sees_refused(403, "station_not_bound", || station.ask(&request));
        }
        for operation in [
            "simpleenroll",
            "device-b/simpleenroll",
            "device/simplereenroll",
        ] {
            let code = est_code(&env, &holder, operation, id);
            assert_eq!(code, "station_not_bound", "{operation} {id}");
        }
    }
    let open = "[[station]]\nname = \"STATION-?\"\nprofiles = [\"device\"]\nids = [\"press-7\"]\n\
                [[provisioning]]";
    env.configure(&bound(&env).replacen("[[provisioning]]", open, 1));
    env.run(&["reload"]);
    station.obtain(&Request::device("press-7"));
    env.configure(&bound(&env));
    env.run(&["reload"]);
    let witness = Witness::of(&env);
    let request = Request::device("press-7");
    witness.sees_refused(403, "station_not_bound", || station.ask(&request));
}

/// Verifies: a station obtains what its tables allow together, and neither a profile nor a device
/// of another line, although that line may have the device; ids are compared without case.
#[test]
fn a_station_asks_for_the_devices_of_its_line_only() {
    let env = two_lines();
    let holder = env.enlist("station", "line-2-a");
    let other = env.caller(&holder);
    let first = env.station_called("line-1-a");
    first.obtain(&Request::device("press-7"));
    other.obtain(&Request::new("device-b", "lathe-1"));
    other.obtain(&Request::new("device-b", "Lathe-2"));
    other.obtain(&Request::device("saw-1"));
    first.obtain(&Request::device("pump-7"));
    let witness = Witness::of(&env);
    for (profile, id, code) in [
        ("device-b", "press-7", "station_id_forbidden"),
        ("device-b", "press-8", "station_id_forbidden"),
        ("device-b", "a-lathe-1", "station_id_forbidden"),
        ("device-b", "saw-1", "station_id_forbidden"),
        ("device", "press-7", "station_id_forbidden"),
        ("device", "PRESS-7", "station_id_forbidden"),
        ("device", "lathe-1", "station_id_forbidden"),
        ("device", "saw-12", "station_id_forbidden"),
        ("device-20s", "saw-1", "station_profile_forbidden"),
        ("station", "saw-1", "role_forbidden"),
        ("operator", "line-2-a", "profile_unknown"),
    ] {
        let status = if code == "profile_unknown" { 404 } else { 403 };
        let request = Request::new(profile, id);
        witness.sees_refused(status, code, || other.ask(&request));
    }
    for operation in [
        "device/simpleenroll",
        "device/simplereenroll",
        "simplereenroll",
    ] {
        let code = est_code(&env, &holder, operation, "press-7");
        assert_eq!(code, "station_id_forbidden", "{operation}");
    }
    let code = est_code(&env, &holder, "device-20s/simpleenroll", "press-7");
    assert_eq!(code, "station_profile_forbidden");
}

/// Verifies: a device renews by the profile that it has, by the API and by EST with a label or
/// without one; by another profile it is refused, whatever its station may request.
#[test]
fn a_device_renews_by_its_own_profile_alone() {
    let env = two_lines();
    let station = env.station_called("line-2-b");
    let holder = station.obtain(&Request::new("device-b", "lathe-1"));
    let device = env.caller(&holder);
    let witness = Witness::of(&env);
    for profile in ["device", "device-20s"] {
        let request = Request::new(profile, "lathe-1");
        witness.sees_refused(403, "device_profile_forbidden", || device.ask(&request));
    }
    let mut moving = Request::device("lathe-1").body();
    moving["move"] = true.into();
    witness.sees_refused(403, "device_profile_forbidden", || {
        let post = device
            .post()
            .header("idempotency-key", "a-device-that-moves");
        Answer::read(post.json(&moving).send().unwrap()).unwrap()
    });
    // Without a label, an enrollment is by `est_profile`, and a renewal by the present profile.
    for operation in [
        "device/simpleenroll",
        "device/simplereenroll",
        "device-20s/simplereenroll",
        "simpleenroll",
    ] {
        let code = est_code(&env, &holder, operation, "lathe-1");
        assert_eq!(code, "device_profile_forbidden", "{operation}");
    }
    for operation in [
        "device-b/simplereenroll",
        "device-b/simpleenroll",
        "simplereenroll",
    ] {
        let (status, code) = est(&env, &holder, operation, &Request::device("lathe-1"));
        assert_eq!((status.as_str(), code.as_str()), ("200", ""), "{operation}");
    }
    device.obtain(&Request::new("device-b", "lathe-1"));
    let kept = "device WHERE registration_id = 'lathe-1' AND profile = 'device-b'";
    assert_eq!(env.count(kept), 1);
}

/// Verifies: a station whose table says so moves a registered device to another profile, and only
/// from one of that table's profiles; an operator moves it with an explicit option; the journal has
/// each move.
#[test]
fn a_registered_device_moves_only_where_that_is_allowed() {
    let env = two_lines();
    let moving = env.station_called("line-1-a");
    let staying = env.station_called("line-2-a");
    moving.obtain(&Request::new("device-20s", "press-7"));
    moving.obtain(&Request::device("press-7"));
    staying.obtain(&Request::new("device-b", "lathe-1"));
    let operators = |id: &str, more: &[&str]| {
        let csr = Request::device(id).csr;
        let csr = env.write("moves.csr", &csr);
        let ask = ["issue", "--profile", "device-b", "--id", id, "--csr"];
        env.hallmark(&[&ask[..], &[csr.to_str().unwrap()], more].concat())
    };
    let output = operators("press-7", &[]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.error.contains("device_moves"), "{output:?}");
    let output = operators("press-7", &["--move"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    let moves = "audit WHERE action = 'device.moved' AND subject = 'press-7'";
    assert_eq!(env.count(moves), 2);
    let last = format!("{moves} AND detail ->> 'from' = 'device' AND detail ->> 'to' = 'device-b'");
    assert_eq!(env.count(&last), 1);

    // The device is of line 2 from now on, and line 1 may move its own devices only.
    let witness = Witness::of(&env);
    let back = Request::device("press-7");
    witness.sees_refused(403, "device_moves", || moving.ask(&back));
    // Line 2 may use both profiles, and its table moves nothing.
    let both = "name = \"line-2-a\"\nprofiles = [\"device\", \"device-b\"]\nids = [\"lathe-*\"]\n";
    let saw = "name = \"line-2-a\"\nprofiles = [\"device\"]\nids = [\"saw-?\"]\n";
    env.configure(&bound(&env).replacen(saw, both, 1));
    env.run(&["reload"]);
    let witness = Witness::of(&env);
    let moved = Request::device("lathe-1");
    witness.sees_refused(403, "device_moves", || staying.ask(&moved));
    let renewal = [
        "roll",
        "start",
        "lathe-1",
        "--reason",
        "compromise",
        "--profile",
        "device",
    ];
    let csr = env.write("moves.csr", &Request::device("lathe-1").csr);
    let output = env.hallmark(&[&renewal[..], &["--csr", csr.to_str().unwrap()]].concat());
    assert!(output.error.contains("device_moves"), "{output:?}");
    assert_eq!(env.count("roll"), 0, "no service admits the device");
    let excluded = "certificate c JOIN intent i ON i.id = c.intent
                    WHERE c.revoked_at IS NOT NULL AND i.subject = 'lathe-1'";
    assert_eq!(env.count(excluded), 1, "the leaf is excluded first");
}

/// Verifies: a reload reports a profile that is removed while devices are registered with it, and
/// so does an alarm, after a restart too; its devices are refused, not lost: an operator moves one,
/// and the profile that is put back serves the other.
#[test]
fn a_removed_profile_is_reported_and_its_devices_are_not_lost() {
    let mut env = two_lines();
    let station = env.station_called("line-1-a");
    let holder = station.obtain(&Request::new("device-20s", "pump-7"));
    station.obtain(&Request::new("device-20s", "press-7"));
    drop(holder);
    let with = bound(&env);
    let begin = with.find("[[profile]]\nname = \"device-20s\"").unwrap();
    let end = begin + 2 + with[begin + 2..].find("[[profile]]").unwrap();
    let without = format!("{}{}", &with[..begin], &with[end..]);
    let without = without.replace("\"device\", \"device-20s\"", "\"device\"");
    env.configure(&without);
    let notices = env.json(&["reload"])["notices"].to_string();
    for word in ["2 devices", "device-20s", "issue --move"] {
        assert!(notices.contains(word), "no {word}: {notices}");
    }
    env.restart();
    let alarms = || env.json(&["status"])["alarms"].to_string();
    let stranded = "profile \\\"device-20s\\\" is not configured";
    assert!(alarms().contains(stranded), "{}", alarms());
    let station = env.station_called("line-1-a");
    let request = Request::new("device-20s", "pump-7");
    assert_eq!(station.ask(&request).code(), "profile_unknown");
    let csr = env.write("moves.csr", &Request::device("press-7").csr);
    let by_operator = [
        "issue",
        "--profile",
        "device",
        "--id",
        "press-7",
        "--move",
        "--csr",
    ];
    env.run(&[&by_operator[..], &[csr.to_str().unwrap()]].concat());
    // A station that may move devices takes one that has no profile any more.
    station.obtain(&Request::device("pump-7"));
    assert!(!alarms().contains(stranded), "{}", alarms());
    env.configure(&with);
    env.run(&["reload"]);
    station.obtain(&Request::new("device-20s", "pump-7"));
}

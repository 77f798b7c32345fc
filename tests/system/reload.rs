//! Tests that the configuration is read again while the line is at work, as a whole or not at all.

use crate::configured::{device_profile, station_table};
use crate::keepalive::KeepAlive;
use crate::load::Load;
use crate::process::{SOON, pid_with_argument, signal, until};
use crate::request::Request;
use crate::test_env::TestEnv;
use dps_emulator::{Action, Fault};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

fn hourly() -> String {
    device_profile("hourly", "line-1", "1h") + &station_table("station-1", &["hourly"], &["pump-1"])
}

fn file(env: &TestEnv) -> String {
    fs::read_to_string(env.path("hallmark.toml")).unwrap()
}

fn change(table: &str, name: &str, change: &str) -> Value {
    json!({ "table": table, "name": name, "change": change })
}

fn reloads(env: &TestEnv) -> i64 {
    env.count("audit WHERE action = 'configuration.reloaded'")
}

/// Verifies: the next request on a kept-alive connection finds the new profile; the answer names
/// the changes; the journal names the operator; the reconciler works with the new configuration; a
/// listener with another name gets a certificate for it.
#[test]
fn a_new_configuration_is_in_force_for_the_next_request() {
    let env = TestEnv::running();
    let (station, mut kept) = (env.station(), KeepAlive::open(&env));
    let request = Request::new("hourly", "pump-1");
    assert_eq!(kept.get("/crl/root.crl").status(), 200);
    assert_eq!(station.ask(&request).code(), "profile_unknown");
    let names = "names = [\"localhost\", \"127.0.0.1\"]";
    let more = "names = [\"localhost\", \"127.0.0.1\", \"ca.line-1.example\"]";
    env.configure(&(file(&env).replace(names, more) + &hourly()));
    let answer = env.json(&["reload"]);
    assert_eq!(
        answer,
        json!({
            "changes": [
                change("listen", "names", "changed"),
                change("profile", "hourly", "added"),
                change("station", "station-1", "added"),
            ],
            "notices": [],
        })
    );
    station.obtain(&request);
    assert_eq!(kept.get("/crl/root.crl").status(), 200);
    let by_us = "audit WHERE action = 'configuration.reloaded' AND actor LIKE 'local uid %'";
    assert_eq!(env.count(by_us), 1);
    env.add_group("line-1", "line-1");
    env.wait_in_sync();
    until("the listener has the name", || {
        let mut openssl = Command::new("openssl");
        openssl.args(["x509", "-noout", "-ext", "subjectAltName", "-in"]);
        let output = openssl.arg(env.path("state/tls/server.pem")).output();
        let names = String::from_utf8(output.unwrap().stdout).unwrap();
        names.contains("ca.line-1.example").then_some(())
    });
    assert_eq!(
        env.json(&["reload"])["changes"],
        json!([]),
        "nothing is new"
    );
}

/// Verifies: a file that cannot be parsed, one that contradicts itself, and one with a setting that
/// only a start can apply are refused with the reason; nothing of them is in force, and nothing has
/// changed, for a restarted worker neither.
#[test]
fn a_configuration_that_is_refused_changes_nothing() {
    let env = TestEnv::running();
    let (good, station) = (file(&env), env.station());
    for (bad, reasons) in [
        (
            good.clone() + &hourly() + "nonsense = ",
            &["line 1", "column"][..],
        ),
        (
            good.clone() + &hourly().replace("line-1", "line-9"),
            &["line-9", "there is no such [[authority]]"],
        ),
        (
            good.replace("/state\"", "/elsewhere\"") + &hourly(),
            &["state_dir", "restart"],
        ),
        (
            good.replace("http = \"127.0.0.1:0\"", "http = \"127.0.0.1:1\"") + &hourly(),
            &["[listen] http", "restart"],
        ),
    ] {
        env.configure(&bad);
        let output = env.hallmark(&["reload"]);
        assert_eq!(output.code, Some(1), "{output:?}");
        for reason in reasons {
            assert!(output.error.contains(reason), "{reason}: {output:?}");
        }
        let unknown = station.ask(&Request::new("hourly", "pump-1"));
        assert_eq!(unknown.code(), "profile_unknown");
        station.obtain(&Request::device("pump-2"));
    }
    assert_eq!(reloads(&env), 0);
    let pin = fs::read_to_string(env.path("pin")).unwrap();
    let leaked = format!("[[token]]\npin = {:?}", pin.trim());
    env.configure(&good.replacen("[[token]]", &leaked, 1));
    let output = env.hallmark(&["reload"]);
    assert!(output.error.contains("`pin` is not known"), "{output:?}");
    let log = fs::read_to_string(env.path("hallmarkd.log")).unwrap();
    for text in [&output.error, &log, &env.run(&["audit", "export"])] {
        assert!(!text.contains(pin.trim()), "the PIN is shown");
    }
    let refused = "audit WHERE action = 'configuration.refused' AND actor LIKE 'local uid %' \
                   AND detail ->> 'code' <> ''";
    assert_eq!(env.count(refused), 5);
    env.configure("nonsense = ");
    let worker = env.worker().unwrap();
    signal(worker, Signal::KILL);
    until("another worker", || env.worker().filter(|it| *it != worker));
    env.wait_ready();
    env.configure(&good);
    assert_eq!(env.json(&["reload"])["changes"], json!([]));
}

/// Verifies: under load, reloads and SIGHUPs cost no client a request; both do the same; daemon and
/// worker are the same processes.
#[test]
fn reloads_under_load_refuse_no_client() {
    let env = TestEnv::running();
    let (without, worker) = (file(&env), env.worker());
    let with = without.replace("validity = \"90d\"", "validity = \"60d\"") + &hourly();
    Load::during(&env, |load| {
        for _ in 0..5 {
            env.configure(&with);
            let changes = env.json(&["reload"])["changes"].clone();
            assert_eq!(changes.as_array().unwrap().len(), 4, "{changes}");
            load.wait_for_status();
            env.configure(&without);
            let before = reloads(&env);
            signal(env.daemon(), Signal::HUP);
            until("SIGHUP is heard", || (reloads(&env) > before).then_some(()));
            load.wait_for_status();
        }
        assert_eq!(load.refused(), 0, "a client was refused");
    });
    let by_signal = "audit WHERE action = 'configuration.reloaded' AND actor = 'signal SIGHUP'";
    assert_eq!(env.count(by_signal), 5);
    assert_eq!(env.count("intent_state WHERE state = 'abandoned'"), 0);
    assert_eq!(env.worker(), worker);
}

/// Verifies: a new token gets a worker, a changed one another worker, a removed one loses its own;
/// the line goes on, refused with `Retry-After` at most between two workers.
#[test]
fn tokens_come_change_and_go() {
    let env = TestEnv::running();
    env.make_token("second");
    let before = file(&env);
    let token = before.split("[[token]]").nth(1).unwrap();
    let token = token.split("[[authority]]").next().unwrap();
    let second = format!("\n[[token]]{}", token.replace("\"factory\"", "\"second\""));
    let workers = |pattern: &str| pid_with_argument(&env.path(pattern));
    Load::during(&env, |load| {
        env.configure(&(before.clone() + &second));
        let answer = env.json(&["reload"]);
        assert_eq!(
            answer["changes"],
            json!([change("token", "second", "added")])
        );
        until("the second token is ready", || {
            let status = env.json(&["status"]);
            (status["tokens"]["second"]["state"] == "ready").then_some(())
        });
        assert_eq!(load.refused(), 0, "a client was refused");

        let changed = before.replacen(
            "label = \"factory\"",
            "label = \"factory\"\nsessions = 1",
            1,
        );
        env.configure(&changed);
        let first = env.worker().unwrap();
        let answer = env.json(&["reload"]);
        let changes = json!([
            change("token", "factory", "changed"),
            change("token", "second", "removed"),
        ]);
        assert_eq!(answer["changes"], changes);
        until("both workers are replaced or gone", || {
            let next = workers("state/next-factory.sock");
            let gone = workers("state/token-second.sock").is_none();
            (gone && env.worker() != Some(first)).then_some(())?;
            next
        });
        load.served_within(SOON);
    });
}

/// Verifies: a reload ends a call of the old reconciler; the new one reads back its result, and the
/// rollover goes on, without a second certificate.
#[test]
fn a_roll_under_way_goes_on_under_the_new_configuration() {
    let env = TestEnv::running();
    env.run(&["enrollment", "add", "--individual", "pump-7"]);
    let station = env.station();
    station.obtain(&Request::device("pump-7"));
    env.wait_in_sync();
    let unanswered = Fault::on("individual.put", Action::HangAfter);
    env.emulator.inject(unanswered).unwrap();
    station.obtain(&Request::device("pump-7"));
    until("the write is under way", || {
        env.emulator.faults().is_empty().then_some(())
    });
    env.configure(&(file(&env) + &hourly()));
    env.run(&["reload"]);
    env.wait_in_sync();
    until("the roll goes on", || {
        let rolls = env.json(&["roll", "list", "--open"]);
        (rolls[0]["state"] == "draining").then_some(())
    });
    assert_eq!(env.count("intent WHERE subject = 'pump-7'"), 2);
}

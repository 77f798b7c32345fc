//! Tests kills at every step of the issuance cycle, and a write that fails. `token_faults` kills
//! workers.

use crate::invariants;
use crate::process::until;
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use rusqlite::Connection;
use std::time::Duration;

/// A device requests a certificate, and the daemon is killed at `step`. The client gets a lost
/// connection.
fn killed_at(env: &mut TestEnv, step: u32, station: &Holder, request: &Request) {
    let point = format!("cycle-{step}");
    env.restart_to_stay_at(&point);
    let caller = env.caller(station);
    let asked = std::thread::scope(|scope| {
        let asked = scope.spawn(|| caller.try_ask(request));
        env.stays_at(&point);
        env.kill();
        asked.join().unwrap()
    });
    assert!(asked.is_err(), "step {step}: {asked:?}");
}

fn intents(env: &TestEnv, state: &str, device: &str) -> i64 {
    env.count(&format!(
        "intent_state WHERE state = '{state}' AND subject = '{device}'"
    ))
}

/// Nothing was recorded, so nothing was signed and nothing remains.
#[test]
fn killed_before_the_intent_is_on_record_nothing_remains() {
    let mut env = TestEnv::running();
    let station = env.enlist("station", "station-1");
    for step in 1..=6 {
        let request = Request::device(&format!("press-{step}"));
        killed_at(&mut env, step, &station, &request);
        let explained = (env.count("intent"), env.entries());
        env.start();
        env.wait_ready();
        assert_eq!(
            (env.count("intent"), env.entries()),
            explained,
            "step {step}"
        );
        env.caller(&station).obtain(&request);
        assert_eq!(intents(&env, "issued", &request.id), 1);
    }
}

/// The token may have signed: the intent is abandoned, and the device gets a certificate with
/// another serial number.
#[test]
fn killed_between_intent_and_certificate_the_intent_is_abandoned() {
    let mut env = TestEnv::running();
    let station = env.enlist("station", "station-1");
    for step in 7..=9 {
        let request = Request::device(&format!("press-{step}"));
        killed_at(&mut env, step, &station, &request);
        assert_eq!(intents(&env, "intended", &request.id), 1, "step {step}");
        env.start();
        assert_eq!(
            intents(&env, "intended", &request.id),
            0,
            "before it is ready"
        );
        assert_eq!(intents(&env, "abandoned", &request.id), 1);
        env.wait_ready();
        env.caller(&station).obtain(&request);
        assert_eq!(intents(&env, "issued", &request.id), 1);
        assert_eq!(intents(&env, "abandoned", &request.id), 1);
    }
    assert_eq!(env.json(&["status"])["abandoned"], 3);
}

/// The certificate is on record, and only the answer was lost: the repeated request gets it.
#[test]
fn killed_before_the_answer_the_repeat_gets_the_same_certificate() {
    let mut env = TestEnv::running();
    let station = env.enlist("station", "station-1");
    let request = Request::device("press-10");
    killed_at(&mut env, 10, &station, &request);
    assert_eq!(intents(&env, "issued", &request.id), 1);
    env.start();
    env.wait_ready();
    let device = env.caller(&station).obtain(&request);
    assert_eq!(
        env.json(&["device", "show", "press-10"])["serial"],
        device.serial
    );
    assert_eq!(env.count("intent WHERE subject = 'press-10'"), 1);
}

/// Makes one INSERT fail; the product has no hook for that.
fn broken(env: &TestEnv, table: &str) -> Connection {
    let connection = Connection::open(env.database()).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    let trigger = format!(
        "CREATE TRIGGER broken_by_test BEFORE INSERT ON {table}
         BEGIN SELECT RAISE(FAIL, 'broken by the test'); END"
    );
    connection.execute_batch(&trigger).unwrap();
    connection
}

fn fixed(connection: &Connection) {
    connection
        .execute_batch("DROP TRIGGER broken_by_test")
        .unwrap();
}

/// Step 10 fails: no client gets a certificate that is not on record, and the intent is abandoned.
#[test]
fn a_certificate_that_cannot_be_recorded_is_withheld_and_abandoned() {
    let env = TestEnv::running();
    let station = env.station();
    let request = Request::device("press-7");
    let connection = broken(&env, "certificate");
    let answer = station.ask(&request);
    assert!(
        answer.status == 503 && answer.body["certificate"].is_null(),
        "{answer:?}"
    );
    assert_eq!(intents(&env, "abandoned", "press-7"), 1);
    assert_eq!(env.count("device"), 0);
    fixed(&connection);
    station.obtain(&request);
    assert_eq!(intents(&env, "issued", "press-7"), 1);
}

/// The abandonment cannot be recorded either, as on a full disk: the daemon records it when the
/// disk has room, without a restart.
#[test]
fn an_intent_that_could_not_be_abandoned_is_abandoned_later() {
    let env = TestEnv::running();
    let station = env.station();
    let request = Request::device("press-7");
    let connection = broken(&env, "audit");
    let answer = station.ask(&request);
    assert!(
        answer.status == 503 && answer.body["certificate"].is_null(),
        "{answer:?}"
    );
    assert_eq!(intents(&env, "intended", "press-7"), 1);
    fixed(&connection);
    let device = until("the device gets its certificate", || {
        let answer = station.ask(&request);
        (answer.status == 201).then(|| request.holder(&answer.body))
    });
    assert_eq!(intents(&env, "abandoned", "press-7"), 1);
    let store = invariants::open(&env.database());
    assert_eq!(
        invariants::count(
            &store,
            "certificate c JOIN device d ON d.certificate = c.intent"
        ),
        1
    );
    assert_eq!(
        env.json(&["device", "show", "press-7"])["serial"],
        device.serial
    );
}

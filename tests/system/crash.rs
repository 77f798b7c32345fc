//! Killed at every step of the issuance cycle; a write that fails. Workers that die: `weather`.

use crate::invariants;
use crate::process::until;
use crate::request::{Holder, Request};
use crate::stage::Stage;
use rusqlite::Connection;
use std::time::Duration;

/// A device asks, and the daemon is killed at `step`. What the client saw was a lost connection.
fn killed_at(stage: &mut Stage, step: u32, station: &Holder, request: &Request) {
    let point = format!("cycle-{step}");
    stage.restart_to_stay_at(&point);
    let caller = stage.caller(station);
    let asked = std::thread::scope(|scope| {
        let asked = scope.spawn(|| caller.try_ask(request));
        stage.stays_at(&point);
        stage.kill();
        asked.join().unwrap()
    });
    assert!(asked.is_err(), "step {step}: {asked:?}");
}

fn intents(stage: &Stage, state: &str, device: &str) -> i64 {
    stage.count(&format!(
        "intent WHERE state = '{state}' AND subject = '{device}'"
    ))
}

/// Nothing was recorded, so nothing was signed: it never happened.
#[test]
fn killed_before_the_intent_is_on_record_nothing_remains() {
    let mut stage = Stage::up();
    let station = stage.enlist("station", "station-1");
    for step in 1..=6 {
        let request = Request::device(&format!("press-{step}"));
        killed_at(&mut stage, step, &station, &request);
        let explained = (stage.count("intent"), stage.entries());
        stage.start();
        stage.is_ready();
        assert_eq!(
            (stage.count("intent"), stage.entries()),
            explained,
            "step {step}"
        );
        stage.caller(&station).obtain(&request);
        assert_eq!(intents(&stage, "issued", &request.id), 1);
    }
}

/// The token may have signed: the serial number is burned, and the device gets another one.
#[test]
fn killed_between_intent_and_certificate_the_serial_number_is_burned() {
    let mut stage = Stage::up();
    let station = stage.enlist("station", "station-1");
    for step in 7..=9 {
        let request = Request::device(&format!("press-{step}"));
        killed_at(&mut stage, step, &station, &request);
        assert_eq!(intents(&stage, "intended", &request.id), 1, "step {step}");
        stage.start();
        assert_eq!(
            intents(&stage, "intended", &request.id),
            0,
            "before it is ready"
        );
        assert_eq!(intents(&stage, "abandoned", &request.id), 1);
        stage.is_ready();
        stage.caller(&station).obtain(&request);
        assert_eq!(intents(&stage, "issued", &request.id), 1);
        assert_eq!(intents(&stage, "abandoned", &request.id), 1);
    }
    assert_eq!(stage.json(&["status"])["abandoned"], 3);
}

/// The certificate is on record, and only the answer was lost: the repeat fetches it.
#[test]
fn killed_before_the_answer_the_repeat_gets_the_same_certificate() {
    let mut stage = Stage::up();
    let station = stage.enlist("station", "station-1");
    let request = Request::device("press-10");
    killed_at(&mut stage, 10, &station, &request);
    assert_eq!(intents(&stage, "issued", &request.id), 1);
    stage.start();
    stage.is_ready();
    let device = stage.caller(&station).obtain(&request);
    assert_eq!(
        stage.json(&["device", "show", "press-10"])["serial"],
        device.serial
    );
    assert_eq!(stage.count("intent WHERE subject = 'press-10'"), 1);
}

/// Makes one INSERT fail: the product needs no hook for that.
fn broken(stage: &Stage, table: &str) -> Connection {
    let connection = Connection::open(stage.database()).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    let trigger = format!(
        "CREATE TRIGGER broken_by_test BEFORE INSERT ON {table}
         BEGIN SELECT RAISE(FAIL, 'broken by the test'); END"
    );
    connection.execute_batch(&trigger).unwrap();
    connection
}

fn mended(connection: &Connection) {
    connection
        .execute_batch("DROP TRIGGER broken_by_test")
        .unwrap();
}

/// Step 10 fails: nobody gets a certificate that is not on record, and its serial number is burned.
#[test]
fn a_certificate_that_cannot_be_recorded_is_withheld_and_burned() {
    let stage = Stage::up();
    let station = stage.station();
    let request = Request::device("press-7");
    let connection = broken(&stage, "certificate");
    let answer = station.ask(&request);
    assert!(
        answer.status == 503 && answer.body["certificate"].is_null(),
        "{answer:?}"
    );
    assert_eq!(intents(&stage, "abandoned", "press-7"), 1);
    assert_eq!(stage.count("device"), 0);
    mended(&connection);
    station.obtain(&request);
    assert_eq!(intents(&stage, "issued", "press-7"), 1);
}

/// Not even the burning can be recorded, as on a full disk: it is made up for when it can be, and
/// nobody has to restart anything.
#[test]
fn an_intent_that_could_not_be_burned_is_burned_later() {
    let stage = Stage::up();
    let station = stage.station();
    let request = Request::device("press-7");
    let connection = broken(&stage, "audit");
    let answer = station.ask(&request);
    assert!(
        answer.status == 503 && answer.body["certificate"].is_null(),
        "{answer:?}"
    );
    assert_eq!(intents(&stage, "intended", "press-7"), 1);
    mended(&connection);
    let device = until("the device gets its certificate", || {
        let answer = station.ask(&request);
        (answer.status == 201).then(|| request.holder(&answer.body))
    });
    assert_eq!(intents(&stage, "abandoned", "press-7"), 1);
    let store = invariants::open(&stage.database());
    assert_eq!(
        invariants::count(
            &store,
            "certificate c JOIN device d ON d.certificate = c.intent"
        ),
        1
    );
    assert_eq!(
        stage.json(&["device", "show", "press-7"])["serial"],
        device.serial
    );
}

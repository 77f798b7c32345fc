//! Authorities are rolled, and no honest device is ever refused; a compromised one is, from the first
//! answer on.

use crate::device::{is_assigned, register};
use crate::invariants::{self, held};
use crate::prober::Prober;
use crate::process::{SOON, until};
use crate::request::{Holder, Request};
use crate::stage::{CEREMONY, Stage};
use dps_emulator::{Action, Fault};
use rusqlite::Connection;
use serde_json::Value;
use std::time::{Duration, Instant};

const LINE: &str = "Example Works Line 1\" }\nvalidity = \"5y\"";

/// A stage whose line is valid for `validity` only, with the line's group, and clocks that move.
fn with_line_of(validity: &str) -> Stage {
    let stage = Stage::set().with_a_movable_clock();
    let ceremony = CEREMONY.replace(LINE, &LINE.replace("5y", validity));
    assert_ne!(ceremony, CEREMONY);
    stage.write("ceremony.toml", &ceremony);
    begun(stage)
}

pub(crate) fn begun(mut stage: Stage) -> Stage {
    stage.start();
    stage.run_ceremony();
    stage.add_group("line-1", "line-1");
    stage.is_in_step();
    stage
}

pub(crate) fn start(stage: &Stage, authority: &str, reason: &str, more: &[&str]) -> String {
    let command = [
        "roll",
        "start",
        "--authority",
        authority,
        "--reason",
        reason,
    ];
    stage.json(&[&command, more].concat())["rolls"][0]["id"].to_string()
}

pub(crate) fn shown(stage: &Stage, roll: &str) -> Value {
    stage.json(&["roll", "show", roll])
}

/// Waits until the roll is in this state.
pub(crate) fn comes_to(stage: &Stage, roll: &str, state: &str) -> Value {
    let begun = Instant::now();
    loop {
        let seen = shown(stage, roll);
        if seen["state"] == state {
            return seen;
        }
        assert!(
            begun.elapsed() < SOON,
            "it does not become {state}: {seen:#}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The thumbprint of a generation.
pub(crate) fn thumbprint(stage: &Stage, authority: &str, number: i64) -> Option<String> {
    let generations = stage.json(&["authority", "show", authority]);
    let mut generations = generations.as_array().unwrap().iter();
    let found = generations.find(|it| it["generation"] == number)?;
    Some(found["thumbprint"].as_str().unwrap().to_owned())
}

/// Whether the second generation of an authority signs.
pub(crate) fn second_signs(stage: &Stage, authority: &str) -> bool {
    let second =
        format!("generation WHERE authority = '{authority}' AND number = 2 AND state = 'serving'");
    stage.count(&second) == 1
}

/// What the service has in the slots of a group.
pub(crate) fn slots(stage: &Stage, group: &str) -> [Option<String>; 2] {
    let record = stage.emulator.group(group).unwrap();
    ["primary", "secondary"].map(|slot| held(&record, slot))
}

/// Four months, by moved clocks. Verifies: the next generation is staged in the other slot, tried by a
/// canary that leaves no trace, and signs only then; a device with a leaf under the old generation is
/// let in until that leaf ends, one under the new from its first leaf on; when the old certificate has
/// expired it leaves its slot.
#[test]
fn an_intermediate_is_rolled_and_no_device_is_refused() {
    let stage = with_line_of("120d");
    let old = stage.enlist("device", "press-1");
    let old_prober = Prober::honest(&stage, std::slice::from_ref(&old));
    stage.passes(time::Duration::days(20));
    let roll = start(&stage, "line-1", "expiry", &["--validity", "5y"]);
    let draining = comes_to(&stage, &roll, "draining");
    assert_eq!(draining["report"]["devices_on_the_old"], 1, "{draining}");
    let new = stage.enlist("device", "press-2");
    let new_prober = Prober::honest(&stage, std::slice::from_ref(&new));
    let [first, second] = [1, 2].map(|number| thumbprint(&stage, "line-1", number));
    assert_eq!(slots(&stage, "line-1"), [first.clone(), second.clone()]);
    let canaries = "intent WHERE subject LIKE 'hallmark-canary-line-1-%'";
    assert_eq!(stage.count(canaries), 1);
    let canary = "SELECT subject FROM intent WHERE subject LIKE 'hallmark-canary-%'";
    let canary: String = invariants::open(&stage.database())
        .query_row(canary, [], |row| row.get(0))
        .unwrap();
    assert!(stage.emulator.registration(&canary).is_none());
    assert!(stage.emulator.hub_identity(&canary).is_none());
    assert_eq!(
        stage.count("device WHERE registration_id LIKE 'hallmark%'"),
        0
    );

    // The old leaf ends on day 90, the new one on day 110.
    stage.passes(time::Duration::days(69));
    is_assigned(&stage.emulator, &old);
    is_assigned(&stage.emulator, &new);
    assert_eq!(shown(&stage, &roll)["state"], "draining");
    old_prober.ends();
    stage.passes(time::Duration::days(16));
    assert!(register(&stage.emulator, &old).is_err());
    let renewed = stage.enlist("device", "press-2");
    let renewed_prober = Prober::honest(&stage, std::slice::from_ref(&renewed));
    new_prober.ends();
    assert_eq!(slots(&stage, "line-1"), [first, second.clone()]);
    stage.passes(time::Duration::days(16));
    comes_to(&stage, &roll, "done");
    assert_eq!(slots(&stage, "line-1"), [None, second]);
    renewed_prober.ends();
    is_assigned(&stage.emulator, &renewed);
}

/// A stage that retires certificates when all devices are proven on the next.
pub(crate) fn retiring_when_proven() -> Stage {
    let stage = Stage::set();
    let policy = "\n[policy]\nretire_proven = true\nproof_interval = \"1s\"\n";
    stage.configure(&(stage.configuration() + policy));
    stage
}

/// The roll that another one brought about.
fn roll_below(stage: &Stage, authority: &str) -> String {
    until(&format!("{authority} is rolled"), || {
        let rolls = stage.json(&["roll", "list"]);
        let mut rolls = rolls.as_array().unwrap().iter();
        let found = rolls.find(|it| it["authority"] == authority)?;
        Some(found["id"].to_string())
    })
}

/// Where in the journal something happened to an authority.
pub(crate) fn told_at(stage: &Stage, action: &str, authority: &str) -> i64 {
    let sql = format!("audit WHERE action = '{action}' AND subject = '{authority}'");
    assert!(stage.count(&sql) > 0, "{action} of {authority}");
    let first = stage.count(&format!(
        "audit WHERE sequence < (SELECT min(sequence) FROM {sql})"
    ));
    first + 1
}

/// Three levels. Verifies: the line follows when the plant has cut over, by a roll of its own; each
/// is published and tried before it signs; a device of the line gets in throughout; both old
/// certificates are retired before they expire, once the device is proven on its new leaf.
#[test]
fn an_intermediate_above_a_line_is_rolled_and_the_line_follows() {
    let stage = begun(retiring_when_proven());
    stage.add_group("plant", "plant");
    stage.is_in_step();
    let station = stage.station();
    let old = station.obtain(&Request::device("press-1"));
    is_assigned(&stage.emulator, &old);

    let prober = Prober::honest(&stage, std::slice::from_ref(&old));
    let plant = start(&stage, "plant", "expiry", &[]);
    comes_to(&stage, &plant, "draining");
    comes_to(&stage, &roll_below(&stage, "line-1"), "draining");
    let line = roll_below(&stage, "line-1");
    let parent = stage.count(&format!("roll WHERE id = {line} AND parent = {plant}"));
    assert_eq!(parent, 1);
    assert!(
        told_at(&stage, "roll.cut_over", "plant") < told_at(&stage, "roll.staged", "line-1"),
        "the line was staged before the plant had cut over"
    );
    assert_eq!(shown(&stage, &plant)["report"]["devices_on_the_old"], 1);

    let other = station.obtain(&Request::device("press-2"));
    assert_eq!(other.chain.len(), 3);
    assert_ne!(other.chain, old.chain);
    // Nothing is retired before press-1 has moved, however long it takes.
    let other_prober = Prober::honest(&stage, std::slice::from_ref(&other));
    // Three rounds of proofs.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(shown(&stage, &line)["state"], "draining");
    other_prober.ends();
    prober.ends();
    let new = station.obtain(&Request::device("press-1"));
    is_assigned(&stage.emulator, &new);
    comes_to(&stage, &line, "done");
    let done = comes_to(&stage, &plant, "done");
    assert_eq!(done["report"]["devices_seen_on_the_new"], 1, "{done}");
    for group in ["plant", "line-1"] {
        assert_eq!(slots(&stage, group), [None, thumbprint(&stage, group, 2)]);
    }
    is_assigned(&stage.emulator, &new);
}

pub(crate) fn ca_certificates(stage: &Stage) -> Vec<String> {
    let held = stage.emulator.authorities();
    let names = held
        .iter()
        .map(|it| it["name"].as_str().unwrap().to_owned());
    names.collect()
}

pub(crate) fn references(stage: &Stage, group: &str) -> Value {
    let record = stage.emulator.group(group).unwrap();
    record["attestation"]["x509"]["caReferences"].clone()
}

/// A group by reference to the verified root, and a device of the line under it.
pub(crate) fn under_the_root(stage: &mut Stage) -> Holder {
    stage.start();
    stage.run_ceremony();
    stage.add_group("works", "root");
    stage.is_in_step();
    assert_eq!(references(stage, "works")["primary"], "root-1");
    let device = stage.station().obtain(&Request::device("press-1"));
    is_assigned(&stage.emulator, &device);
    device
}

/// The tree below the root has moved, and the device with it; then the old root goes.
fn root_is_rolled(stage: &Stage, roll: &str, old: &Holder) {
    let line = roll_below(stage, "line-1");
    until("the line is rolled", || {
        let state = shown(stage, &line)["state"].clone();
        (state == "done" || state == "draining").then_some(())
    });
    let new = until("a new leaf", || {
        let request = Request::device("press-1");
        let answer = stage.station_called("station-2").ask(&request);
        (answer.status == 201).then(|| request.holder(&answer.body))
    });
    is_assigned(&stage.emulator, &new);
    comes_to(stage, roll, "done");
    assert_eq!(ca_certificates(stage), ["root-2"]);
    assert_eq!(references(stage, "works")["secondary"], "root-2");
    assert!(references(stage, "works")["primary"].is_null());
    assert!(register(&stage.emulator, old).is_err());
    is_assigned(&stage.emulator, &new);
    assert_eq!(stage.count("generation WHERE authority = 'root'"), 2);
    assert_eq!(
        stage.count("roll WHERE authority IS NOT NULL AND state = 'aborted'"),
        0
    );
}

/// Verifies: the new root is proven to be ours and referenced beside the old one, a canary under it
/// gets in, everything below is rolled in order; and only then the old one is let go and deleted.
#[test]
fn a_root_by_reference_is_rolled_with_the_whole_tree() {
    let mut stage = retiring_when_proven();
    let old = under_the_root(&mut stage);
    let prober = Prober::honest(&stage, std::slice::from_ref(&old));
    let roll = start(&stage, "root", "expiry", &[]);
    comes_to(&stage, &roll, "draining");
    until("the line signs under the new root", || {
        let told = "audit WHERE action = 'roll.cut_over' AND subject = 'line-1'";
        (stage.count(told) == 1).then_some(())
    });
    prober.ends();
    root_is_rolled(&stage, &roll, &old);
    let places: Vec<i64> = ["root", "plant", "line-1"]
        .iter()
        .map(|it| told_at(&stage, "roll.cut_over", it))
        .collect();
    assert!(places.is_sorted(), "{places:?}");
}

/// Given up before its cut-over, a roll leaves nothing behind.
#[test]
fn a_roll_is_given_up_before_its_cut_over() {
    let stage = Stage::set();
    let policy = "\n[policy]\napprove = [\"cut_over\"]\n";
    stage.configure(&(stage.configuration() + policy));
    let stage = begun(stage);
    let first = thumbprint(&stage, "line-1", 1);
    let roll = start(&stage, "line-1", "expiry", &[]);
    until("it waits for somebody's word", || {
        let waits_for = shown(&stage, &roll)["waits_for"].clone();
        waits_for.as_str().unwrap().contains("word").then_some(())
    });
    stage.told(&["roll", "abort", &roll]);
    stage.is_in_step();
    assert_eq!(slots(&stage, "line-1"), [first, None]);

    let roll = start(&stage, "line-1", "expiry", &[]);
    comes_to(&stage, &roll, "staged");
    stage.told(&["roll", "approve", &roll]);
    comes_to(&stage, &roll, "draining");
    assert_eq!(slots(&stage, "line-1")[1], thumbprint(&stage, "line-1", 3));
}

/// A group that is blocked in the middle of a roll lets no canary in. Verifies: the roll says in words
/// that it waits for the block, nobody is alarmed, and it goes on when the block is lifted.
#[test]
fn a_roll_whose_group_is_blocked_waits_and_says_so() {
    let stage = begun(Stage::set());
    let unseen = Fault::on("device.register", Action::status(500));
    for _ in 0..20 {
        stage.emulator.inject(unseen.clone()).unwrap();
    }
    let roll = start(&stage, "line-1", "expiry", &[]);
    comes_to(&stage, &roll, "staged");
    stage.is_in_step();
    stage.told(&["enrollment", "block", "--group", "line-1"]);
    stage.emulator.clear_faults();
    let waits_for = shown(&stage, &roll)["waits_for"].clone();
    let waits_for = waits_for.as_str().unwrap();
    assert!(
        waits_for.contains("until the block of group line-1 is lifted"),
        "{waits_for}"
    );
    let alarms = stage.json(&["status"])["alarms"].to_string();
    assert!(!alarms.contains("canary"), "{alarms}");
    stage.told(&["enrollment", "unblock", "--group", "line-1"]);
    comes_to(&stage, &roll, "draining");
}

/// What is on record of one roll cannot be read. Verifies: that is an alarm, the others are told all
/// the same, the list of rolls has all of them, and the roll can be given up.
#[test]
fn a_roll_that_cannot_be_read_is_an_alarm_among_the_others() {
    let stage = Stage::set();
    let policy = "\n[policy]\napprove = [\"cut_over\"]\n";
    stage.configure(&(stage.configuration() + policy));
    let stage = begun(stage);
    let roll = start(&stage, "line-1", "expiry", &[]);
    let other = start(&stage, "operations", "expiry", &[]);
    until("both wait for somebody's word", || {
        let waits = |roll| {
            shown(&stage, roll)["waits_for"]
                .to_string()
                .contains("word")
        };
        (waits(&roll) && waits(&other)).then_some(())
    });
    let raw = Connection::open(stage.database()).unwrap();
    raw.busy_timeout(SOON).unwrap();
    let write = |detail: &str, roll: &str| {
        let sql = "UPDATE roll SET detail = ?1 WHERE id = ?2";
        assert_eq!(raw.execute(sql, [detail, roll]), Ok(1));
    };
    write(r#"{"from_the_future":1}"#, &roll);
    write(r#"{"failure":"no such luck"}"#, &other);
    let alarms = stage.json(&["status"])["alarms"].to_string();
    assert!(
        alarms.contains(&format!("roll {roll} of line-1 goes no further")),
        "{alarms}"
    );
    assert!(alarms.contains("no such luck"), "{alarms}");
    let listed = stage.json(&["roll", "list", "--open"]);
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    stage.told(&["roll", "abort", &roll]);
    stage.told(&["roll", "abort", &other]);
    let alarms = stage.json(&["status"])["alarms"].clone();
    assert_eq!(alarms, serde_json::json!([]));
}

/// A short signing window. Verifies: by policy the daemon rolls the authority by itself before the
/// window closes, and the new generation signs.
#[test]
fn a_window_that_nears_its_end_starts_the_roll() {
    let stage = Stage::set();
    let policy = "\n[policy]\nroll_authorities = \"start\"\n";
    let line = "name = \"line-1\"\ntoken = \"factory\"";
    let window = format!("{line}\nsigning_window = \"20s\"");
    let configuration = stage.configuration().replace(line, &window);
    stage.configure(&(configuration + policy));
    let stage = begun(stage);
    let rolled = until("the line is rolled", || {
        let rolls = stage.json(&["roll", "list"]);
        let rolls = rolls.as_array().unwrap();
        rolls.iter().find(|it| it["authority"] == "line-1").cloned()
    });
    assert_eq!(rolled["started_by"], "hallmarkd");
    comes_to(&stage, &rolled["id"].to_string(), "draining");
    assert!(thumbprint(&stage, "line-1", 2).is_some());
}

/// A service that is full is told of before the roll starts, and nothing has begun.
#[test]
fn a_full_service_is_told_of_before_the_roll_starts() {
    let stage = Stage::set();
    let limit = "ca_certificates_max = 1\nverified = [\"root\"]";
    let configuration = stage.configuration();
    stage.configure(&configuration.replace("verified = [\"root\"]", limit));
    let stage = begun(stage);
    let command = ["roll", "start", "--authority", "root", "--reason", "expiry"];
    let told = stage.hallmark(&command);
    assert_eq!(told.code, Some(1));
    assert!(told.error.contains("at most 1 CA certificates"), "{told:?}");
    assert_eq!(stage.count("roll"), 0);
    assert_eq!(stage.count("generation WHERE number > 1"), 0);
}

//! Tests rollovers of authorities: no honest device is ever refused, and a compromised one is
//! refused from the first answer on.

use crate::configured::station_table;
use crate::device::{is_assigned, register};
use crate::est_client;
use crate::invariants::{self, held};
use crate::prober::Prober;
use crate::process::{SOON, until};
use crate::request::{Holder, Request, der};
use crate::test_env::{CEREMONY, TestEnv};
use dps_emulator::{Action, Fault};
use rusqlite::Connection;
use serde_json::Value;
use std::time::{Duration, Instant};

const LINE: &str = "Example Works Line 1\" }\nvalidity = \"5y\"";

/// An environment whose line is valid for `validity` only, with the line's group, and clocks that
/// move.
pub(crate) fn with_line_of(validity: &str) -> TestEnv {
    let env = TestEnv::new().with_a_movable_clock();
    let ceremony = CEREMONY.replace(LINE, &LINE.replace("5y", validity));
    assert_ne!(ceremony, CEREMONY);
    env.write("ceremony.toml", &ceremony);
    begun(env)
}

pub(crate) fn begun(mut env: TestEnv) -> TestEnv {
    env.start();
    env.run_ceremony();
    env.add_group("line-1", "line-1");
    env.wait_in_sync();
    env
}

pub(crate) fn start(env: &TestEnv, authority: &str, reason: &str, more: &[&str]) -> String {
    let command = [
        "roll",
        "start",
        "--authority",
        authority,
        "--reason",
        reason,
    ];
    env.json(&[&command, more].concat())["rolls"][0]["id"].to_string()
}

pub(crate) fn shown(env: &TestEnv, roll: &str) -> Value {
    env.json(&["roll", "show", roll])
}

/// Waits until the roll is in this state.
pub(crate) fn comes_to(env: &TestEnv, roll: &str, state: &str) -> Value {
    let begun = Instant::now();
    loop {
        let seen = shown(env, roll);
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
pub(crate) fn thumbprint(env: &TestEnv, authority: &str, number: i64) -> Option<String> {
    let generations = env.json(&["authority", "show", authority]);
    let mut generations = generations.as_array().unwrap().iter();
    let found = generations.find(|it| it["generation"] == number)?;
    Some(found["thumbprint"].as_str().unwrap().to_owned())
}

/// Returns true if the second generation of an authority signs.
pub(crate) fn second_signs(env: &TestEnv, authority: &str) -> bool {
    let second =
        format!("generation WHERE authority = '{authority}' AND number = 2 AND state = 'serving'");
    env.count(&second) == 1
}

/// The thumbprints in the slots of a group at DPS.
pub(crate) fn slots(env: &TestEnv, group: &str) -> [Option<String>; 2] {
    let record = env.emulator.group(group).unwrap();
    ["primary", "secondary"].map(|slot| held(&record, slot))
}

/// Four months, by moved clocks. Verifies: the next generation is staged in the other slot, tested
/// by a canary that leaves no trace, and signs only then; DPS accepts a device with a leaf under
/// the old generation until the leaf ends, and one under the new generation from its first leaf on;
/// when the old certificate has expired it leaves its slot.
#[test]
fn an_intermediate_is_rolled_and_no_device_is_refused() {
    let env = with_line_of("120d");
    let old = env.enlist("device", "press-1");
    let old_prober = Prober::honest(&env, std::slice::from_ref(&old));
    env.passes(time::Duration::days(20));
    let roll = start(&env, "line-1", "expiry", &["--validity", "5y"]);
    let draining = comes_to(&env, &roll, "draining");
    assert_eq!(draining["report"]["devices_on_the_old"], 1, "{draining}");
    let new = env.enlist("device", "press-2");
    let new_prober = Prober::honest(&env, std::slice::from_ref(&new));
    let [first, second] = [1, 2].map(|number| thumbprint(&env, "line-1", number));
    assert_eq!(slots(&env, "line-1"), [first.clone(), second.clone()]);
    let canaries = "intent WHERE subject LIKE 'hallmark-canary-line-1-%'";
    assert_eq!(env.count(canaries), 1);
    let canary = "SELECT subject FROM intent WHERE subject LIKE 'hallmark-canary-%'";
    let canary: String = invariants::open(&env.database())
        .query_row(canary, [], |row| row.get(0))
        .unwrap();
    assert!(env.emulator.registration(&canary).is_none());
    assert!(env.emulator.hub_identity(&canary).is_none());
    assert_eq!(
        env.count("device WHERE registration_id LIKE 'hallmark%'"),
        0
    );

    // The old leaf ends on day 90, the new one on day 110.
    env.passes(time::Duration::days(69));
    is_assigned(&env.emulator, &old);
    is_assigned(&env.emulator, &new);
    assert_eq!(shown(&env, &roll)["state"], "draining");
    old_prober.ends();
    env.passes(time::Duration::days(16));
    assert!(register(&env.emulator, &old).is_err());
    let renewed = env.enlist("device", "press-2");
    let renewed_prober = Prober::honest(&env, std::slice::from_ref(&renewed));
    new_prober.ends();
    assert_eq!(slots(&env, "line-1"), [first, second.clone()]);
    env.passes(time::Duration::days(16));
    comes_to(&env, &roll, "done");
    assert_eq!(slots(&env, "line-1"), [None, second]);
    renewed_prober.ends();
    is_assigned(&env.emulator, &renewed);
}

/// An environment that retires certificates when all devices are proven on the next.
pub(crate) fn retiring_when_proven() -> TestEnv {
    retiring(TestEnv::new())
}

/// The same in this environment.
pub(crate) fn retiring(env: TestEnv) -> TestEnv {
    let policy = "\n[policy]\nretire_proven = true\nproof_interval = \"1s\"\n";
    env.configure(&(env.configuration() + policy));
    env
}

/// The rollover that another rollover started.
pub(crate) fn roll_below(env: &TestEnv, authority: &str) -> String {
    until(&format!("{authority} is rolled"), || {
        let rolls = env.json(&["roll", "list"]);
        let mut rolls = rolls.as_array().unwrap().iter();
        let found = rolls.find(|it| it["authority"] == authority)?;
        Some(found["id"].to_string())
    })
}

/// The position in the journal of an action on an authority.
pub(crate) fn entry_of(env: &TestEnv, action: &str, authority: &str) -> i64 {
    let sql = format!("audit WHERE action = '{action}' AND subject = '{authority}'");
    assert!(env.count(&sql) > 0, "{action} of {authority}");
    let first = env.count(&format!(
        "audit WHERE sequence < (SELECT min(sequence) FROM {sql})"
    ));
    first + 1
}

/// Three levels. Verifies: the line rolls after the plant's cut-over, by a rollover of its own;
/// each generation is published and tested before it signs; DPS accepts a device of the line
/// throughout; both old certificates are retired before they expire, once the device is proven on
/// its new leaf.
#[test]
fn an_intermediate_above_a_line_is_rolled_and_the_line_follows() {
    let env = begun(retiring_when_proven());
    env.add_group("plant", "plant");
    env.wait_in_sync();
    let station = env.station();
    let old = station.obtain(&Request::device("press-1"));
    is_assigned(&env.emulator, &old);

    let prober = Prober::honest(&env, std::slice::from_ref(&old));
    let plant = start(&env, "plant", "expiry", &[]);
    comes_to(&env, &plant, "draining");
    comes_to(&env, &roll_below(&env, "line-1"), "draining");
    let line = roll_below(&env, "line-1");
    let parent = env.count(&format!("roll WHERE id = {line} AND parent = {plant}"));
    assert_eq!(parent, 1);
    assert!(
        entry_of(&env, "roll.cut_over", "plant") < entry_of(&env, "roll.staged", "line-1"),
        "the line was staged before the plant had cut over"
    );
    assert_eq!(shown(&env, &plant)["report"]["devices_on_the_old"], 1);

    let other = station.obtain(&Request::device("press-2"));
    assert_eq!(other.chain.len(), 3);
    assert_ne!(other.chain, old.chain);
    let above = est_client::authorities(&env, "device");
    assert_eq!(above.len(), 5, "two of line-1 and of plant, and the root");
    assert_eq!(
        der(&above[0]),
        der(&other.chain[0]),
        "the one that signs now"
    );
    est_client::is_in_chain_order(&above);
    // Nothing is retired before press-1 has a new leaf, however long that takes.
    let other_prober = Prober::honest(&env, std::slice::from_ref(&other));
    // Three rounds of proofs.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(shown(&env, &line)["state"], "draining");
    other_prober.ends();
    prober.ends();
    let new = station.obtain(&Request::device("press-1"));
    is_assigned(&env.emulator, &new);
    comes_to(&env, &line, "done");
    let done = comes_to(&env, &plant, "done");
    assert_eq!(done["report"]["devices_seen_on_the_new"], 1, "{done}");
    for group in ["plant", "line-1"] {
        assert_eq!(slots(&env, group), [None, thumbprint(&env, group, 2)]);
    }
    is_assigned(&env.emulator, &new);
}

pub(crate) fn ca_certificates(env: &TestEnv) -> Vec<String> {
    let held = env.emulator.authorities();
    let names = held
        .iter()
        .map(|it| it["name"].as_str().unwrap().to_owned());
    names.collect()
}

pub(crate) fn references(env: &TestEnv, group: &str) -> Value {
    let record = env.emulator.group(group).unwrap();
    record["attestation"]["x509"]["caReferences"].clone()
}

/// A group by reference to the verified root, and a device of the line under it.
pub(crate) fn under_the_root(env: &mut TestEnv) -> Holder {
    env.start();
    env.run_ceremony();
    env.add_group("works", "root");
    env.wait_in_sync();
    assert_eq!(references(env, "works")["primary"], "root-1");
    let device = env.station().obtain(&Request::device("press-1"));
    is_assigned(&env.emulator, &device);
    device
}

/// The hierarchy below the root has rolled, and the device has a new leaf; then the old root is
/// retired.
fn root_is_rolled(env: &TestEnv, roll: &str, old: &Holder) {
    let line = roll_below(env, "line-1");
    until("the line is rolled", || {
        let state = shown(env, &line)["state"].clone();
        (state == "done" || state == "draining").then_some(())
    });
    let new = until("a new leaf", || {
        let request = Request::device("press-1");
        let answer = env.station_called("station-2").ask(&request);
        (answer.status == 201).then(|| request.holder(&answer.body))
    });
    is_assigned(&env.emulator, &new);
    comes_to(env, roll, "done");
    assert_eq!(ca_certificates(env), ["root-2"]);
    assert_eq!(references(env, "works")["secondary"], "root-2");
    assert!(references(env, "works")["primary"].is_null());
    assert!(register(&env.emulator, old).is_err());
    is_assigned(&env.emulator, &new);
    assert_eq!(env.count("generation WHERE authority = 'root'"), 2);
    assert_eq!(
        env.count("roll WHERE authority IS NOT NULL AND state = 'aborted'"),
        0
    );
}

/// Verifies: the new root is verified and referenced beside the old one, DPS accepts a canary under
/// it, every authority below is rolled in order; only then the old root is retired and deleted.
#[test]
fn a_root_by_reference_is_rolled_with_the_whole_hierarchy() {
    let mut env = retiring_when_proven();
    let old = under_the_root(&mut env);
    let prober = Prober::honest(&env, std::slice::from_ref(&old));
    let roll = start(&env, "root", "expiry", &[]);
    comes_to(&env, &roll, "draining");
    until("the line signs under the new root", || {
        let output = "audit WHERE action = 'roll.cut_over' AND subject = 'line-1'";
        (env.count(output) == 1).then_some(())
    });
    prober.ends();
    root_is_rolled(&env, &roll, &old);
    let places: Vec<i64> = ["root", "plant", "line-1"]
        .iter()
        .map(|it| entry_of(&env, "roll.cut_over", it))
        .collect();
    assert!(places.is_sorted(), "{places:?}");
}

/// A rollover that is aborted before its cut-over leaves nothing behind.
#[test]
fn a_roll_is_given_up_before_its_cut_over() {
    let env = TestEnv::new();
    let policy = "\n[policy]\napprove = [\"cut_over\"]\n";
    env.configure(&(env.configuration() + policy));
    let env = begun(env);
    let first = thumbprint(&env, "line-1", 1);
    let roll = start(&env, "line-1", "expiry", &[]);
    until("it waits for an approval", || {
        let waits_for = shown(&env, &roll)["waits_for"].clone();
        waits_for.as_str().unwrap().contains("word").then_some(())
    });
    let waits = shown(&env, &roll)["waits_for_detail"].clone();
    assert_eq!(waits["code"], "approval", "{waits}");
    assert_eq!(waits["parameters"]["step"], "cut-over", "{waits}");
    env.run(&["roll", "abort", &roll]);
    env.wait_in_sync();
    assert_eq!(slots(&env, "line-1"), [first, None]);

    let roll = start(&env, "line-1", "expiry", &[]);
    comes_to(&env, &roll, "staged");
    env.run(&["roll", "approve", &roll]);
    comes_to(&env, &roll, "draining");
    assert_eq!(slots(&env, "line-1")[1], thumbprint(&env, "line-1", 3));
}

/// A group that is blocked during a rollover accepts no canary. Verifies: the rollover says that it
/// waits for the block, there is no alarm, and it goes on when the block is lifted.
#[test]
fn a_roll_whose_group_is_blocked_waits_and_says_so() {
    let env = begun(TestEnv::new());
    let unseen = Fault::on("device.register", Action::status(500));
    for _ in 0..20 {
        env.emulator.inject(unseen.clone()).unwrap();
    }
    let roll = start(&env, "line-1", "expiry", &[]);
    comes_to(&env, &roll, "staged");
    env.wait_in_sync();
    env.run(&["enrollment", "block", "--group", "line-1"]);
    env.emulator.clear_faults();
    let waits_for = shown(&env, &roll)["waits_for"].clone();
    let waits_for = waits_for.as_str().unwrap();
    assert!(
        waits_for.contains("until the block of group line-1 is lifted"),
        "{waits_for}"
    );
    let waits = shown(&env, &roll)["waits_for_detail"].clone();
    assert_eq!(waits["parameters"]["blocks"][0]["kind"], "group", "{waits}");
    assert_eq!(
        waits["parameters"]["blocks"][0]["name"], "line-1",
        "{waits}"
    );
    let alarms = env.json(&["status"])["alarms"].to_string();
    assert!(!alarms.contains("canary"), "{alarms}");
    env.run(&["enrollment", "unblock", "--group", "line-1"]);
    comes_to(&env, &roll, "draining");
}

/// The record of one rollover is unreadable. Verifies: an alarm says so, the other rollovers are
/// shown all the same, the list of rollovers has all of them, and the unreadable one can be
/// aborted.
#[test]
fn a_roll_that_cannot_be_read_is_an_alarm_among_the_others() {
    let env = TestEnv::new();
    let policy = "\n[policy]\napprove = [\"cut_over\"]\n";
    env.configure(&(env.configuration() + policy));
    let env = begun(env);
    let roll = start(&env, "line-1", "expiry", &[]);
    let other = start(&env, "operations", "expiry", &[]);
    until("both wait for an approval", || {
        let waits = |roll| shown(&env, roll)["waits_for"].to_string().contains("word");
        (waits(&roll) && waits(&other)).then_some(())
    });
    let raw = Connection::open(env.database()).unwrap();
    raw.busy_timeout(SOON).unwrap();
    let write = |detail: &str, roll: &str| {
        let sql = "UPDATE roll SET detail = ?1 WHERE id = ?2";
        assert_eq!(raw.execute(sql, [detail, roll]), Ok(1));
    };
    write(r#"{"from_the_future":1}"#, &roll);
    write(r#"{"failure":"no such luck"}"#, &other);
    let alarms = env.json(&["status"])["alarms"].to_string();
    assert!(
        alarms.contains(&format!("roll {roll} of line-1 goes no further")),
        "{alarms}"
    );
    assert!(alarms.contains("no such luck"), "{alarms}");
    let listed = env.json(&["roll", "list", "--open"]);
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    env.run(&["roll", "abort", &roll]);
    env.run(&["roll", "abort", &other]);
    let alarms = env.json(&["status"])["alarms"].clone();
    assert_eq!(alarms, serde_json::json!([]));
}

/// A short signing window. Verifies: by policy the daemon rolls the authority before the window
/// closes, and the new generation signs.
#[test]
fn a_window_that_nears_its_end_starts_the_roll() {
    let env = TestEnv::new();
    let policy = "\n[policy]\nroll_authorities = \"start\"\n";
    let line = "name = \"line-1\"\ntoken = \"factory\"";
    let window = format!("{line}\nsigning_window = \"20s\"");
    let configuration = env.configuration().replace(line, &window);
    env.configure(&(configuration + policy));
    let env = begun(env);
    let rolled = until("the line is rolled", || {
        let rolls = env.json(&["roll", "list"]);
        let rolls = rolls.as_array().unwrap();
        rolls.iter().find(|it| it["authority"] == "line-1").cloned()
    });
    assert_eq!(rolled["started_by"], "hallmarkd");
    comes_to(&env, &rolled["id"].to_string(), "draining");
    assert!(thumbprint(&env, "line-1", 2).is_some());
}

/// A profile has a fixed end later than that of its authority, which has other profiles. Verifies:
/// requests by it are refused and it is an alarm; the signing window stays open, so that no
/// rollover begins, by which nothing would change.
#[test]
fn a_fixed_end_beyond_the_authority_starts_no_roll() {
    let env = TestEnv::new();
    let policy = "\n[policy]\nroll_authorities = \"start\"\n";
    let profile = "\n[[profile]]\nname = \"late\"\nauthority = \"line-1\"\nrole = \"device\"\n\
                   [profile.certificate]\npreset = \"device\"\n\
                   not_after = \"2099-01-01T00:00:00Z\"\n";
    let station = station_table("station-?", &["late"], &["*"]);
    env.configure(&(env.configuration() + policy + profile + &station));
    let env = begun(env);
    let refused = env.station().ask(&Request::new("late", "press-1"));
    assert_eq!(refused.code(), "outlives_issuer");
    env.station().obtain(&Request::device("press-2"));
    let status = env.json(&["status", "--verbose"]);
    let alarms = status["alarm_details"].as_array().unwrap().iter();
    let codes: Vec<_> = alarms.map(|it| it["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["profile_outlives_authority"], "{status}");
    assert_eq!(env.count("roll"), 0);
}

/// A full service is reported before the rollover starts, and nothing has begun.
#[test]
fn a_full_service_is_reported_before_the_roll_starts() {
    let env = TestEnv::new();
    let limit = "ca_certificates_max = 1\nverified = [\"root\"]";
    let configuration = env.configuration();
    env.configure(&configuration.replace("verified = [\"root\"]", limit));
    let env = begun(env);
    let command = ["roll", "start", "--authority", "root", "--reason", "expiry"];
    let output = env.hallmark(&command);
    assert_eq!(output.code, Some(1));
    assert!(
        output.error.contains("at most 1 CA certificates"),
        "{output:?}"
    );
    assert_eq!(env.count("roll"), 0);
    assert_eq!(env.count("generation WHERE number > 1"), 0);
}

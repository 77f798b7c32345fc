//! Tests that excluded means excluded by every access path: an individual enrollment, an enrollment
//! beside a group, a group that is added later, a service that has left the configuration.

use crate::authority_roll::{
    begun, comes_to, second_signs, slots, start, thumbprint, with_line_of,
};
use crate::ca_drift::has_drifted;
use crate::device::{is_assigned, register};
use crate::invariants::held;
use crate::process::until;
use crate::provisioned::{below_line_1, below_plant_and_line, individually};
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use serde_json::{Value, json};

pub(crate) const BLOCK_LINE: [&str; 5] = ["authority", "block", "line-1", "--generation", "1"];
pub(crate) const UNBLOCK_LINE: [&str; 5] = ["authority", "unblock", "line-1", "--generation", "1"];
const COMPROMISE_LINE: [&str; 6] = [
    "roll",
    "start",
    "--authority",
    "line-1",
    "--reason",
    "compromise",
];

/// Asserts that DPS refuses the device.
pub(crate) fn is_out(env: &TestEnv, device: &Holder) {
    let end = register(&env.emulator, device);
    assert_ne!(end.as_deref(), Ok("assigned"), "{}", device.id);
}

/// Runs the command, whose receipt must be complete, and returns its answer.
fn completely(env: &TestEnv, command: &[&str]) -> Value {
    let answer = env.json(command);
    assert_eq!(answer["receipt"]["complete"], true, "{answer}");
    answer
}

/// Returns the thumbprints in the slots of an individual enrollment at DPS.
fn own_slots(env: &TestEnv, device: &str) -> [Option<String>; 2] {
    let record = env.emulator.individual(device).unwrap();
    ["primary", "secondary"].map(|slot| held(&record, slot))
}

fn is_refused(env: &TestEnv, command: &[&str], with: &str) {
    let refused = env.hallmark(command);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.error.contains(with), "{refused:?}");
}

/// The device has an enrollment of its own below a compromised intermediate. Verifies: DPS refuses
/// its leaf and the hub has no identity when the command answers; its renewal takes the place of
/// the excluded leaf at once.
#[test]
fn an_individually_enrolled_device_is_excluded_with_its_authority() {
    let (env, devices) = individually(&["press-7"]);
    let device = &devices[0];
    let started = completely(&env, &COMPROMISE_LINE);
    is_out(&env, device);
    assert!(env.emulator.hub_identity("press-7").is_none());
    let record = env.emulator.individual("press-7").unwrap();
    assert_eq!(record["provisioningStatus"], "disabled");
    until("the successor signs", || {
        second_signs(&env, "line-1").then_some(())
    });
    let renewed = env.enlist_when_possible("device", "press-7");
    env.wait_in_sync();
    is_assigned(&env.emulator, &renewed);
    is_out(&env, device);
    let slots = own_slots(&env, "press-7");
    assert_eq!(slots, [Some(renewed.thumbprint.clone()), None]);
    comes_to(&env, &started["rolls"][0]["id"].to_string(), "done");
    let open = env.json(&["roll", "list", "--open"]);
    assert_eq!(open, Value::Array(Vec::new()), "no leaf is rolled");
}

/// Verifies: a block of a generation reaches a device with an enrollment of its own and can be
/// lifted; an enrollment that would get round the block is refused.
#[test]
fn an_individually_enrolled_device_is_blocked_with_its_generation() {
    let (env, devices) = individually(&["press-7"]);
    let other = env.station().obtain(&Request::device("press-8"));
    completely(&env, &BLOCK_LINE);
    is_out(&env, &devices[0]);
    assert!(env.emulator.hub_identity("press-7").is_none());
    let shown = env.json(&["enrollment", "show", "press-7"]);
    assert_eq!(shown[0]["blocks"][0]["name"], "line-1", "{shown}");
    let add = ["enrollment", "add", "--individual", "press-8"];
    is_refused(&env, &add, "issuer_revoked");
    is_out(&env, &other);
    let lifted = completely(&env, &UNBLOCK_LINE);
    assert_eq!(lifted["receipt"]["complete"], true, "{lifted}");
    is_assigned(&env.emulator, &devices[0]);
    env.run(&add);
    env.wait_in_sync();
    is_assigned(&env.emulator, &other);
}

/// A device was compromised once, and registers by an enrollment beside its group. Verifies: a
/// block of the group reaches it, too; it gets no leaf until the block is lifted.
#[test]
fn a_device_that_was_compromised_once_is_blocked_with_its_group() {
    let (env, _) = below_line_1(&["press-7"]);
    let report = ["roll", "start", "press-7", "--reason", "compromise"];
    completely(&env, &report);
    let renewed = env.station().obtain(&Request::device("press-7"));
    env.wait_in_sync();
    is_assigned(&env.emulator, &renewed);

    completely(&env, &["enrollment", "block", "--group", "line-1"]);
    is_out(&env, &renewed);
    assert!(env.emulator.hub_identity("press-7").is_none());
    let refused = env.station().ask(&Request::device("press-7"));
    assert_eq!((refused.status, refused.code()), (403, "group_blocked"));
    let shown = env.json(&["device", "show", "press-7"]);
    assert!(!shown["certificates"][0]["revoked_at"].is_null(), "{shown}");

    completely(&env, &["enrollment", "unblock", "--group", "line-1"]);
    is_assigned(&env.emulator, &renewed);
}

/// A line below the blocked group of the plant has a group of its own, which DPS finds first.
/// Verifies: both are disabled; a group that would get round the block is refused.
#[test]
fn a_block_of_a_group_reaches_the_groups_below_it() {
    let (env, device) = below_plant_and_line();
    completely(&env, &["enrollment", "block", "--group", "plant"]);
    is_out(&env, &device);
    assert!(env.emulator.hub_identity("press-7").is_none());
    completely(&env, &["enrollment", "unblock", "--group", "plant"]);
    is_assigned(&env.emulator, &device);
    env.run(&["enrollment", "remove", "--group", "line-1"]);
    env.wait_in_sync();
    completely(&env, &["enrollment", "block", "--group", "plant"]);
    let add = [
        "enrollment",
        "add",
        "--group",
        "late",
        "--authority",
        "line-1",
    ];
    is_refused(&env, &add, "group_blocked");
    is_out(&env, &device);
}

/// Verifies: the old generation can be blocked while its roll drains; the roll waits, and goes on
/// with both certificates when the block is lifted; blocked to its end, the drain ends as without
/// the block, and lifting it later gives nothing back.
#[test]
fn a_draining_generation_is_blocked_and_its_roll_ends() {
    let env = with_line_of("120d");
    let old = env.enlist("device", "press-1");
    let roll = start(&env, "line-1", "expiry", &["--validity", "5y"]);
    comes_to(&env, &roll, "draining");
    let new = env.enlist("device", "press-2");
    let [first, second] = [1, 2].map(|number| thumbprint(&env, "line-1", number));

    completely(&env, &BLOCK_LINE);
    is_out(&env, &old);
    is_assigned(&env.emulator, &new);
    assert_eq!(slots(&env, "line-1"), [None, second.clone()]);
    comes_to(&env, &roll, "draining");

    completely(&env, &UNBLOCK_LINE);
    is_assigned(&env.emulator, &old);
    is_assigned(&env.emulator, &new);
    assert_eq!(slots(&env, "line-1"), [first, second.clone()]);

    completely(&env, &BLOCK_LINE);
    env.passes(time::Duration::days(121));
    comes_to(&env, &roll, "done");
    completely(&env, &UNBLOCK_LINE);
    env.wait_in_sync();
    assert_eq!(slots(&env, "line-1"), [None, second]);
}

/// The new generation is blocked after the cut-over. Verifies: the devices below the old one are
/// accepted, and the roll says that it waits for the block.
#[test]
fn a_new_generation_is_blocked_after_the_cut_over() {
    let env = begun(TestEnv::new());
    let old = env.station().obtain(&Request::device("press-1"));
    let roll = start(&env, "line-1", "expiry", &[]);
    comes_to(&env, &roll, "draining");
    let new = env.station().obtain(&Request::device("press-2"));
    let verb = |verb| ["authority", verb, "line-1", "--generation", "2"];
    completely(&env, &verb("block"));
    is_assigned(&env.emulator, &old);
    is_out(&env, &new);
    let shown = env.json(&["roll", "show", &roll]);
    assert_eq!(shown["state"], "draining");
    assert!(shown["waits_for"].to_string().contains("block"), "{shown}");
    completely(&env, &verb("unblock"));
    is_assigned(&env.emulator, &old);
    is_assigned(&env.emulator, &new);
}

/// A plant is compromised by its old generation, after it was rolled with the line below it, whose
/// old generation drains. Verifies: DPS refuses the devices below that one, too; the roll lists
/// them, and is done when they have new leaves; the drain of the line ends.
#[test]
fn a_generation_that_drains_is_excluded_with_its_issuer() {
    let env = begun(TestEnv::new());
    let old = env.station().obtain(&Request::device("press-1"));
    let plant = start(&env, "plant", "expiry", &[]);
    comes_to(&env, &plant, "draining");
    let rolls = until("the line follows", || {
        let rolls = env.json(&["roll", "list", "--open"]);
        let rolls = rolls.as_array().unwrap().clone();
        let drains = |it: &&Value| it["authority"] == "line-1" && it["state"] == "draining";
        rolls.iter().find(drains).cloned()
    });
    let new = env.station().obtain(&Request::device("press-2"));
    env.wait_in_sync();
    is_assigned(&env.emulator, &old);

    let more = ["--generation", "1", "--reason", "compromise"];
    let command = [&["roll", "start", "--authority", "plant"][..], &more[..]].concat();
    let started = completely(&env, &command);
    is_out(&env, &old);
    assert!(env.emulator.hub_identity("press-1").is_none());
    is_assigned(&env.emulator, &new);
    comes_to(&env, &rolls["id"].to_string(), "done");
    let compromise = started["rolls"][0]["id"].to_string();
    let shown = comes_to(&env, &compromise, "reissuing");
    let listed = &shown["report"]["reissue"][0]["registration_id"];
    assert_eq!(listed, "press-1", "{shown}");
    let renewed = env.station().obtain(&Request::device("press-1"));
    is_assigned(&env.emulator, &renewed);
    comes_to(&env, &compromise, "done");
    is_out(&env, &old);
}

/// The root gets its first group after a generation and a device below it were excluded. Verifies:
/// DPS holds the blocking group and the device's own enrollment before it holds the group.
#[test]
fn a_group_that_is_added_later_admits_nothing_that_is_excluded() {
    let mut env = TestEnv::new();
    env.start();
    env.run_ceremony();
    let blocked = env.station().obtain(&Request::device("press-7"));
    completely(&env, &["device", "block", "press-7"]);
    env.add_group("everybody", "root");
    env.wait_in_sync();
    is_out(&env, &blocked);
    completely(&env, &["device", "unblock", "press-7"]);
    env.wait_in_sync();
    is_assigned(&env.emulator, &blocked);
    env.run(&["enrollment", "remove", "--group", "everybody"]);
    env.wait_in_sync();

    completely(&env, &BLOCK_LINE);
    env.add_group("everybody", "root");
    env.wait_in_sync();
    is_out(&env, &blocked);
    let written = env.emulator.requests_of("group.put");
    let last = &written[written.len() - 2..];
    assert!(last[0].path.contains("line-1-blocked-1"), "{last:?}");
    let removal = ["enrollment", "remove", "--group", "line-1-blocked-1"];
    is_refused(
        &env,
        &removal,
        "hallmark authority unblock line-1 --generation 1",
    );
    completely(&env, &UNBLOCK_LINE);
    env.wait_in_sync();
    is_assigned(&env.emulator, &blocked);
    assert!(env.emulator.group("line-1-blocked-1").is_none());
}

/// The same after a compromise, whose successor is good.
#[test]
fn a_group_that_is_added_after_a_compromise_admits_the_successor_alone() {
    let mut env = TestEnv::new();
    env.start();
    env.run_ceremony();
    let old = env.station().obtain(&Request::device("press-7"));
    completely(&env, &COMPROMISE_LINE);
    until("the successor signs", || {
        second_signs(&env, "line-1").then_some(())
    });
    let new = env.enlist_when_possible("device", "press-7");
    env.add_group("everybody", "root");
    env.wait_in_sync();
    is_out(&env, &old);
    is_assigned(&env.emulator, &new);
}

/// Verifies: a group that carries the block of a generation is not removed, and the answer names
/// the command that lifts the block.
#[test]
fn a_group_that_carries_a_block_is_not_removed() {
    let (env, devices) = below_line_1(&["press-7"]);
    completely(&env, &BLOCK_LINE);
    let removal = ["enrollment", "remove", "--group", "line-1"];
    is_refused(&env, &removal, "group_blocked");
    is_refused(
        &env,
        &removal,
        "hallmark authority unblock line-1 --generation 1",
    );
    completely(&env, &UNBLOCK_LINE);
    is_assigned(&env.emulator, &devices[0]);
    env.run(&removal);
}

/// A service leaves the configuration, and an authority with a group there is compromised.
/// Verifies: the receipt says that this place is open; the roll does not wait for it; the service
/// excludes the authority when it is configured again.
#[test]
fn a_service_that_has_left_the_configuration_is_open() {
    let (mut env, devices) = below_line_1(&["press-7"]);
    let configuration = env.configuration();
    let moved = configuration.replace("name = \"dps\"", "name = \"other\"");
    assert_ne!(moved, configuration);
    env.configure(&moved);
    env.restart();
    let started = env.json(&COMPROMISE_LINE);
    let places = started["receipt"]["places"].as_array().unwrap();
    let gone = places.iter().find(|it| it["place"] == "dps: dps");
    let gone = gone.unwrap_or_else(|| panic!("{started}"));
    assert_eq!(gone["state"], "open", "{started}");
    let roll = started["rolls"][0]["id"].to_string();
    until("the successor signs", || {
        second_signs(&env, "line-1").then_some(())
    });
    let renewed = env.enlist_when_possible("device", "press-7");
    comes_to(&env, &roll, "done");

    env.configure(&configuration);
    env.restart();
    env.wait_in_sync();
    is_out(&env, &devices[0]);
    is_assigned(&env.emulator, &renewed);
}

/// The line has a group by reference below the group of the root; scans are frequent.
pub(crate) fn line_by_reference() -> (TestEnv, Holder) {
    let env = TestEnv::new();
    let configuration = env
        .configuration()
        .replace("[\"root\"]", "[\"root\", \"line-1\"]");
    env.configure(&(configuration + "\n[policy]\nscan_interval = \"1s\"\n"));
    let env = env.started();
    env.add_group("works", "root");
    env.add_group("line", "line-1");
    let mut device = env.station().obtain(&Request::device("press-7"));
    // The issued chain ends at the line, which is verified.
    let above = ["plant", "root"].map(|it| env.authority(it));
    device.chain.extend(above);
    env.wait_in_sync();
    is_assigned(&env.emulator, &device);
    (env, device)
}

/// Waits until a disabled group of its own excludes the line.
pub(crate) fn has_blocking_group(env: &TestEnv) {
    until("the line has a blocking group", || {
        let own = env.emulator.group("line-1-blocked-1")?;
        (own["provisioningStatus"] == "disabled").then_some(())
    });
}

pub(crate) fn has_no_blocking_group(env: &TestEnv) {
    until("the blocking group is gone", || {
        let own = env.emulator.group("line-1-blocked-1");
        own.is_none().then_some(())
    });
}

/// Asserts that the receipt has one open place: the group that the service does not take.
pub(crate) fn the_group_alone_is_parked(blocked: &Value) {
    let places = blocked["receipt"]["places"].as_array().unwrap();
    let open: Vec<_> = places.iter().filter(|it| it["state"] != "done").collect();
    assert_eq!(open.len(), 1, "{blocked}");
    assert_eq!(open[0]["code"], "enrollment_parked", "{blocked}");
    assert_eq!(open[0]["parameters"]["name"], "line", "{blocked}");
}

/// Another program has deleted the CA certificate of the line's group by reference, so DPS finds
/// the group of the root. Verifies: a block adds a blocking group, and its receipt names the group
/// that the service does not take; when the block is lifted, the device comes back.
#[test]
fn a_block_reaches_a_group_whose_ca_certificate_was_deleted() {
    let (env, device) = line_by_reference();
    assert!(env.emulator.delete_authority("line-1-1"));
    has_drifted(&env, "line-1-1", "deleted");
    is_assigned(&env.emulator, &device);
    let blocked = env.json(&BLOCK_LINE);
    is_out(&env, &device);
    has_blocking_group(&env);
    assert!(env.emulator.hub_identity("press-7").is_none(), "{blocked}");
    the_group_alone_is_parked(&blocked);
    env.json(&UNBLOCK_LINE);
    has_no_blocking_group(&env);
    is_assigned(&env.emulator, &device);
}

/// The same happens while the block is in force. Verifies: the next scan adds a blocking group, so
/// the group of the root admits nothing; the end of the block removes it.
#[test]
fn a_ca_certificate_that_is_deleted_during_a_block_readmits_nothing() {
    let (env, device) = line_by_reference();
    completely(&env, &BLOCK_LINE);
    is_out(&env, &device);
    assert!(env.emulator.group("line-1-blocked-1").is_none());
    assert!(env.emulator.delete_authority("line-1-1"));
    has_blocking_group(&env);
    is_out(&env, &device);
    env.json(&UNBLOCK_LINE);
    has_no_blocking_group(&env);
    is_assigned(&env.emulator, &device);
}

/// A device was compromised and has a new leaf, in an enrollment beside its group. Verifies: when
/// the group is removed, the command names that enrollment, which goes on admitting the device;
/// when it is removed too, DPS refuses the device.
#[test]
fn the_enrollments_that_stay_beside_a_removed_group_are_named() {
    let (env, _) = below_line_1(&["press-7", "press-8"]);
    completely(
        &env,
        &["roll", "start", "press-7", "--reason", "compromise"],
    );
    let renewed = env.station().obtain(&Request::device("press-7"));
    env.wait_in_sync();
    let removed = env.json(&["enrollment", "remove", "--group", "line-1"]);
    assert_eq!(removed["stay"], json!(["press-7"]), "{removed}");
    env.wait_in_sync();
    is_assigned(&env.emulator, &renewed);
    env.run(&["enrollment", "remove", "--individual", "press-7"]);
    env.wait_in_sync();
    is_out(&env, &renewed);
}

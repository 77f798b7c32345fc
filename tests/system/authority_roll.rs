//! Authorities are rolled, and no honest device is ever refused; a breached one is, from the first
//! answer on.

use crate::device::{is_assigned, register};
use crate::invariants::held;
use crate::process::until;
use crate::request::{Holder, Request};
use crate::stage::{CEREMONY, Stage};
use dps_emulator::Emulator;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const LINE: &str = "Example Works Line 1\" }\nvalidity = \"5y\"";

/// A stage whose line is valid for `validity` only, with the line's group.
fn with_line_of(validity: &str) -> Stage {
    let stage = Stage::set();
    let ceremony = CEREMONY.replace(LINE, &LINE.replace("5y", validity));
    assert_ne!(ceremony, CEREMONY);
    stage.write("ceremony.toml", &ceremony);
    begun(stage)
}

fn begun(mut stage: Stage) -> Stage {
    stage.start();
    stage.run_ceremony();
    add_group(&stage, "line-1", "line-1");
    stage.is_in_step();
    stage
}

fn add_group(stage: &Stage, name: &str, authority: &str) {
    let add = [
        "enrollment",
        "add",
        "--group",
        name,
        "--authority",
        authority,
    ];
    stage.told(&add);
}

fn start(stage: &Stage, authority: &str, reason: &str, more: &[&str]) -> String {
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

fn shown(stage: &Stage, roll: &str) -> Value {
    stage.json(&["roll", "show", roll])
}

/// Waits until the roll is in this state.
fn comes_to(stage: &Stage, roll: &str, state: &str) -> Value {
    until(&format!("roll {roll} is {state}"), || {
        let seen = shown(stage, roll);
        (seen["state"] == state).then_some(seen)
    })
}

/// The thumbprint of a generation.
fn thumbprint(stage: &Stage, authority: &str, number: i64) -> Option<String> {
    let generations = stage.json(&["authority", "show", authority]);
    let mut generations = generations.as_array().unwrap().iter();
    let found = generations.find(|it| it["generation"] == number)?;
    Some(found["thumbprint"].as_str().unwrap().to_owned())
}

/// What the service has in the slots of a group.
fn slots(stage: &Stage, group: &str) -> [Option<String>; 2] {
    let record = stage.emulator.group(group).unwrap();
    ["primary", "secondary"].map(|slot| held(&record, slot))
}

/// Registers these devices over and over while `story` is told; none is ever refused.
fn probed<T>(emulator: &Emulator, devices: &[&Holder], story: impl FnOnce() -> T) -> T {
    let (over, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (told, refused) = std::thread::scope(|scope| {
        let prober = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for device in devices {
                    let end = register(emulator, device);
                    if end.as_deref() != Ok("assigned") {
                        return Some(format!("{}: {end:?}", device.id));
                    }
                }
                rounds.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(100));
            }
            None
        });
        let told = story();
        over.store(true, Ordering::Relaxed);
        (told, prober.join().unwrap())
    });
    assert_eq!(refused, None, "an honest device was refused");
    assert!(rounds.into_inner() > 1, "nobody was probing");
    told
}

/// Verifies: the next generation is staged in the other slot, tried by a canary that leaves no trace,
/// and signs only then; a device with a leaf under the old generation gets in throughout, and one
/// under the new from its first leaf on; when the old certificate has expired it leaves its slot.
#[test]
fn an_intermediate_is_rolled_and_no_device_is_refused() {
    let stage = with_line_of("60s");
    let station = stage.station();
    let old = station.obtain(&Request::new("device-20s", "press-1"));
    is_assigned(&stage.emulator, &old);

    let (roll, new) = probed(&stage.emulator, &[&old], || {
        let roll = start(&stage, "line-1", "expiry", &["--validity", "5y"]);
        let draining = comes_to(&stage, &roll, "draining");
        assert_eq!(draining["report"]["devices_on_the_old"], 1, "{draining}");
        let new = station.obtain(&Request::device("press-2"));
        (roll, new)
    });
    is_assigned(&stage.emulator, &new);
    let [first, second] = [1, 2].map(|number| thumbprint(&stage, "line-1", number));
    assert_eq!(slots(&stage, "line-1"), [first, second.clone()]);
    let canary = "hallmark-canary-line-1-2";
    assert_eq!(
        stage.count(&format!("intent WHERE subject = '{canary}'")),
        1
    );
    assert!(stage.emulator.registration(canary).is_none());
    assert!(stage.emulator.hub_identity(canary).is_none());
    assert_eq!(
        stage.count("device WHERE registration_id LIKE 'hallmark%'"),
        0
    );

    comes_to(&stage, &roll, "done");
    assert_eq!(slots(&stage, "line-1"), [None, second]);
    is_assigned(&stage.emulator, &new);
    assert!(register(&stage.emulator, &old).is_err());
}

//! The machine's clock is wrong: nothing is signed by it, nothing expires by it, and it is over when
//! the clock is right.

use crate::caller::{Answer, Caller};
use crate::process::until;
use crate::request::Request;
use crate::stage::Stage;
use std::fs::File;
use std::time::SystemTime;
use time::Duration;

const YEARS_40: Duration = Duration::days(40 * 365);
const HOURS_2: Duration = Duration::hours(2);

/// Everything up, with this in `[policy]`, and a clock that the story sets.
fn stage_with(policy: &str) -> Stage {
    let stage = Stage::set().with_a_clock_set_by(Duration::ZERO);
    stage.configure(&format!("{}\n[policy]\n{policy}\n", stage.configuration()));
    stage.raised()
}

fn is_not_signed(answer: &Answer) {
    assert_eq!(
        (answer.status, answer.code()),
        (503, "clock_not_sane"),
        "{answer:?}"
    );
    assert!(answer.retry_after.is_some_and(|seconds| seconds > 0));
}

/// Status, metrics, lists and devices are there; the alarm tells why nothing is signed.
fn is_told(stage: &Stage, why: &str) {
    let status = stage.json(&["status"]);
    assert_eq!(status["ready"], false);
    assert!(status["alarms"].to_string().contains(why), "{status}");
    let lists = status["crls"].as_array().unwrap();
    assert!(!lists.is_empty());
    assert_eq!(stage.plain_http().get("/crl/line-1.crl").status, 200);
}

fn dates(stage: &Stage) -> (i64, i64) {
    let intents = stage.count("intent");
    (intents, stage.count("crl"))
}

/// Verifies: a clock that falls back to before what is on record, while the daemon runs and before it
/// starts, has it sign nothing, say why, and serve what needs no signature; when the clock is right,
/// the same request is answered.
#[test]
fn a_clock_that_has_fallen_back_signs_nothing_until_it_is_right() {
    let mut stage = stage_with("");
    let station = stage.enlist("station", "station-1");
    for restarted in [false, true] {
        if restarted {
            stage.stop();
        }
        let before = dates(&stage);
        stage.sets_clock_by(-YEARS_40);
        if restarted {
            stage.start();
        }
        let line = stage.caller(&station);
        let request = Request::device(&format!("press-{restarted}"));
        is_not_signed(&line.ask(&request));
        is_told(&stage, "set the clock");
        assert_eq!(
            dates(&stage),
            before,
            "nothing is on record with such a date"
        );

        stage.sets_clock_by(Duration::ZERO);
        stage.is_ready();
        line.obtain(&request);
    }
}

/// Verifies: a clock that is far ahead retires nothing, rolls nothing and signs nothing; the old leaf
/// of a device in the middle of its roll is still let in when the clock is right again.
#[test]
fn a_clock_far_ahead_expires_nothing() {
    let stage = stage_with("renew_before = \"30d\"\nrenew_jitter = \"1d\"");
    stage.told(&["enrollment", "add", "--individual", "pump-7"]);
    let line = stage.station();
    for _ in 0..2 {
        line.obtain(&Request::device("pump-7"));
        stage.is_in_step();
    }
    let enrollment = || stage.json(&["enrollment", "show", "pump-7"])[0]["slots"].clone();
    until("both leaves are valid", || {
        (enrollment()["state"] == "draining").then_some(())
    });
    let (slots, before) = (enrollment(), dates(&stage));

    stage.sets_clock_by(YEARS_40);
    is_not_signed(&line.ask(&Request::device("pump-8")));
    is_told(&stage, "clock_jump_max");
    stage.told(&["push", "retry"]);
    stage.is_in_step();
    assert_eq!(enrollment(), slots);
    assert_eq!(dates(&stage), before);

    stage.sets_clock_by(Duration::ZERO);
    stage.is_ready();
    line.obtain(&Request::device("pump-8"));
    assert_eq!(enrollment(), slots);
}

/// Verifies: an operator's word is enough, both ways and over a restart: for a clock that is rightly
/// ahead, and for one that is rightly behind what was signed meanwhile.
#[test]
fn an_operator_vouches_for_the_clock() {
    let mut stage = stage_with("clock_jump_max = \"1h\"");
    let station = stage.enlist("station", "station-1");
    let obtains = |line: &Caller, id: &str| drop(line.obtain(&Request::device(id)));
    for (set_by, id) in [(HOURS_2, "press-1"), (Duration::ZERO, "press-2")] {
        stage.sets_clock_by(set_by);
        is_not_signed(&stage.caller(&station).ask(&Request::device(id)));
        stage.told(&["clock", "accept"]);
        obtains(&stage.caller(&station), id);
        stage.restart();
    }
    obtains(&stage.caller(&station), "press-3");
    assert_eq!(stage.count("audit WHERE action = 'clock.accepted'"), 2);
}

/// Verifies: where policy wants it, nothing is signed before the clock was synchronised; and a clock
/// that jumps because it was synchronised is believed.
#[test]
fn a_clock_that_was_synchronised_is_believed() {
    let mut stage = Stage::set().with_a_clock_set_by(Duration::ZERO);
    let file = stage.path("synchronized");
    stage.configure(&format!(
        "{}\n[policy]\nclock = \"synchronised\"\nclock_synchronised_file = {file:?}\n\
         clock_jump_max = \"1h\"\n",
        stage.configuration()
    ));
    let synchronised = File::create(&file).unwrap();
    stage = stage.raised();
    let station = stage.enlist("station", "station-1");

    stage.stop();
    std::fs::remove_file(&file).unwrap();
    stage.start();
    let request = Request::device("press-1");
    is_not_signed(&stage.caller(&station).ask(&request));
    is_told(&stage, "not synchronised");
    drop(synchronised);
    let synchronised = File::create(&file).unwrap();
    stage.is_ready();
    stage.caller(&station).obtain(&request);

    let request = Request::device("press-2");
    stage.sets_clock_by(HOURS_2);
    is_not_signed(&stage.caller(&station).ask(&request));
    let set = SystemTime::now() + HOURS_2.unsigned_abs();
    synchronised.set_modified(set).unwrap();
    stage.is_ready();
    stage.caller(&station).obtain(&request);
}

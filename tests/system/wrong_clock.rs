//! Tests a wrong clock of the machine: nothing is signed by it, nothing expires by it, and all
//! works again when the clock is right.

use crate::caller::{Answer, Caller};
use crate::process::until;
use crate::request::Request;
use crate::test_env::TestEnv;
use std::fs::File;
use std::time::SystemTime;
use time::Duration;

const YEARS_40: Duration = Duration::days(40 * 365);
const HOURS_2: Duration = Duration::hours(2);

/// Starts everything, with this in `[policy]`, and a clock that the test sets.
fn env_with(policy: &str) -> TestEnv {
    let env = TestEnv::new().with_a_clock_set_by(Duration::ZERO);
    env.configure(&format!("{}\n[policy]\n{policy}\n", env.configuration()));
    env.started()
}

fn is_not_signed(answer: &Answer) {
    assert_eq!(
        (answer.status, answer.code()),
        (503, "clock_not_sane"),
        "{answer:?}"
    );
    assert!(answer.retry_after.is_some_and(|seconds| seconds > 0));
}

/// Asserts that status, metrics, lists and devices are served; the alarm says why nothing is
/// signed.
fn is_reported(env: &TestEnv, why: &str) {
    let status = env.json(&["status"]);
    assert_eq!(status["ready"], false);
    assert!(status["alarms"].to_string().contains(why), "{status}");
    let lists = status["crls"].as_array().unwrap();
    assert!(!lists.is_empty());
    assert_eq!(env.plain_http().get("/crl/line-1.crl").status, 200);
}

fn dates(env: &TestEnv) -> (i64, i64) {
    let intents = env.count("intent");
    (intents, env.count("crl"))
}

/// Verifies: when the clock falls behind the records, while the daemon runs and before it starts,
/// the daemon signs nothing, says why, and serves what needs no signature; when the clock is right,
/// the same request is answered.
#[test]
fn a_clock_that_has_fallen_back_signs_nothing_until_it_is_right() {
    let mut env = env_with("");
    let station = env.enlist("station", "station-1");
    for restarted in [false, true] {
        if restarted {
            env.stop();
        }
        let before = dates(&env);
        env.sets_clock_by(-YEARS_40);
        if restarted {
            env.start();
        }
        let line = env.caller(&station);
        let request = Request::device(&format!("press-{restarted}"));
        is_not_signed(&line.ask(&request));
        is_reported(&env, "set the clock");
        assert_eq!(dates(&env), before, "nothing is on record with such a date");

        env.sets_clock_by(Duration::ZERO);
        env.wait_ready();
        line.obtain(&request);
    }
}

/// Verifies: a clock that is far ahead retires nothing, rolls nothing and signs nothing; DPS still
/// accepts the old leaf of a device amid its rollover when the clock is right again.
#[test]
fn a_clock_far_ahead_expires_nothing() {
    let env = env_with("renew_before = \"30d\"\nrenew_jitter = \"1d\"");
    env.run(&["enrollment", "add", "--individual", "pump-7"]);
    let line = env.station();
    for _ in 0..2 {
        line.obtain(&Request::device("pump-7"));
        env.wait_in_sync();
    }
    let enrollment = || env.json(&["enrollment", "show", "pump-7"])[0]["slots"].clone();
    until("both leaves are valid", || {
        (enrollment()["state"] == "draining").then_some(())
    });
    let (slots, before) = (enrollment(), dates(&env));

    env.sets_clock_by(YEARS_40);
    is_not_signed(&line.ask(&Request::device("pump-8")));
    is_reported(&env, "clock_jump_max");
    env.run(&["push", "retry"]);
    env.wait_in_sync();
    assert_eq!(enrollment(), slots);
    assert_eq!(dates(&env), before);

    env.sets_clock_by(Duration::ZERO);
    env.wait_ready();
    line.obtain(&Request::device("pump-8"));
    assert_eq!(enrollment(), slots);
}

/// Verifies: an operator's confirmation is enough, both ways and over a restart: for a clock that
/// is rightly ahead, and for one that is rightly behind the last signature.
#[test]
fn an_operator_vouches_for_the_clock() {
    let mut env = env_with("clock_jump_max = \"1h\"");
    let station = env.enlist("station", "station-1");
    let obtains = |line: &Caller, id: &str| drop(line.obtain(&Request::device(id)));
    for (set_by, id) in [(HOURS_2, "press-1"), (Duration::ZERO, "press-2")] {
        env.sets_clock_by(set_by);
        is_not_signed(&env.caller(&station).ask(&Request::device(id)));
        env.run(&["clock", "accept"]);
        obtains(&env.caller(&station), id);
        env.restart();
    }
    obtains(&env.caller(&station), "press-3");
    assert_eq!(env.count("audit WHERE action = 'clock.accepted'"), 2);
}

/// Verifies: if policy says so, nothing is signed before the clock was synchronised; a clock that
/// jumps because it was synchronised is believed.
#[test]
fn a_clock_that_was_synchronised_is_believed() {
    let mut env = TestEnv::new().with_a_clock_set_by(Duration::ZERO);
    let file = env.path("synchronized");
    env.configure(&format!(
        "{}\n[policy]\nclock = \"synchronised\"\nclock_synchronised_file = {file:?}\n\
         clock_jump_max = \"1h\"\n",
        env.configuration()
    ));
    let synchronised = File::create(&file).unwrap();
    env = env.started();
    let station = env.enlist("station", "station-1");

    env.stop();
    std::fs::remove_file(&file).unwrap();
    env.start();
    let request = Request::device("press-1");
    is_not_signed(&env.caller(&station).ask(&request));
    is_reported(&env, "not synchronised");
    drop(synchronised);
    let synchronised = File::create(&file).unwrap();
    env.wait_ready();
    env.caller(&station).obtain(&request);

    let request = Request::device("press-2");
    env.sets_clock_by(HOURS_2);
    is_not_signed(&env.caller(&station).ask(&request));
    let set = SystemTime::now() + HOURS_2.unsigned_abs();
    synchronised.set_modified(set).unwrap();
    env.wait_ready();
    env.caller(&station).obtain(&request);
}

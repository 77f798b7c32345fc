//! Kills the daemon at a chosen point: at a crash point, or while the service withholds an answer.
//!
//! `ca::crash_point` marks each step: with `FAILPOINTS="NAME=return(FILE)"` a thread that reaches
//! it writes FILE and waits there until the test kills the daemon.

use crate::process::until;
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use dps_emulator::{Action, Fault};
use serde_json::Value;
use std::path::PathBuf;
use std::thread::JoinHandle;

impl TestEnv {
    /// Starts the daemon so that it stops at the first of these points that it reaches.
    pub(crate) fn start_to_stay_at(&mut self, points: &[&str]) {
        assert!(fail::has_failpoints(), "build with --features failpoints");
        let settings = points.iter().map(|point| {
            let reached = self.reached(point);
            // An earlier start may have reached it.
            let _ = std::fs::remove_file(&reached);
            format!("{point}=return({})", reached.display())
        });
        let settings: Vec<String> = settings.collect();
        self.start_with(&settings);
    }

    /// Restarts the daemon so that it will stop at `point`.
    pub(crate) fn restart_to_stay_at(&mut self, point: &str) {
        self.stop();
        self.start_to_stay_at(&[point]);
        self.wait_ready();
    }

    /// Waits until the daemon has stopped at `point`.
    pub(crate) fn stays_at(&self, point: &str) {
        until(point, || self.has_come_to(point).then_some(()));
    }

    /// Kills the daemon after the token has signed the leaf of `device` for this station, and
    /// before that is on record.
    pub(crate) fn is_killed_while_signing_for(&mut self, station: &Holder, device: &str) {
        self.restart_to_stay_at("cycle-8");
        let caller = self.caller(station);
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| caller.try_ask(&Request::device(device)));
            self.stays_at("cycle-8");
            self.kill();
            assert!(asked.join().unwrap().is_err());
        });
    }

    /// Kills the daemon when it has reached `point`, and starts it again.
    pub(crate) fn is_killed_at(&mut self, point: &str) {
        self.stays_at(point);
        self.kill();
        self.start();
        self.wait_ready();
    }

    /// Starts the daemon, and kills it each time that it reaches one of `points`, and each time
    /// that the service has done one of `calls` and withholds the answer, until it was killed at
    /// all of them, in any order. `meanwhile` runs again and again during that time. In the end the
    /// daemon is ready: a request right after a start is refused until the token answers.
    pub(crate) fn is_killed_at_each(
        &mut self,
        points: &[&str],
        calls: &[Fault],
        mut meanwhile: impl FnMut(&TestEnv),
    ) {
        for call in calls {
            let unanswered = Fault {
                action: Action::HangAfter,
                ..call.clone()
            };
            self.emulator.inject(unanswered).unwrap();
        }
        let mut left = points.to_vec();
        loop {
            let calls_left = self.emulator.faults().len();
            self.start_to_stay_at(&left);
            if left.is_empty() && calls_left == 0 {
                self.wait_ready();
                return;
            }
            let waits_for = format!("one of {left:?} or {:?}", self.emulator.faults());
            until(&waits_for, || {
                meanwhile(self);
                let at_a_point = left.iter().any(|point| self.has_come_to(point));
                let unanswered = self.emulator.faults().len() < calls_left;
                (at_a_point || unanswered).then_some(())
            });
            self.kill();
            left.retain(|point| !self.has_come_to(point) && !self.has_ended(point));
        }
    }

    fn has_come_to(&self, point: &str) -> bool {
        self.reached(point).exists()
    }

    /// This point comes after a commit. If the daemon was killed between commit and point, for an
    /// answer that was withheld at that time, it does not reach the point again, and was killed at
    /// that step all the same.
    fn has_ended(&self, point: &str) -> bool {
        point == "roll-generation-staged"
            && self.count("generation WHERE number > 1 AND certificate IS NOT NULL") > 0
    }

    fn reached(&self, point: &str) -> PathBuf {
        self.path(&format!("reached-{point}"))
    }
}

/// An operator who reports a compromise of a device or an authority, and again if it is not on
/// record. The result of an interrupted report is lost.
pub(crate) fn reported(env: &TestEnv, subject: &[&str]) -> JoinHandle<()> {
    let client = env.client();
    let subject: Vec<String> = subject.iter().map(|&it| it.to_owned()).collect();
    let is_of = move |roll: &Value, name: &String| {
        roll["reason"] == "compromise"
            && (roll["authority"] == *name || roll["registration_id"] == *name)
    };
    std::thread::spawn(move || {
        until("the compromise is on record", || {
            let rolls = client.hallmark(&["--json", "roll", "list"]);
            let rolls: Value = serde_json::from_str(&rolls.out).ok()?;
            let name = subject.last()?;
            if rolls.as_array()?.iter().any(|roll| is_of(roll, name)) {
                return Some(());
            }
            let subject = subject.iter().map(String::as_str);
            let report = ["roll", "start"].into_iter().chain(subject);
            let report: Vec<&str> = report.chain(["--reason", "compromise"]).collect();
            client.hallmark(&report);
            None
        });
    })
}

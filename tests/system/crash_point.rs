//! The daemon is killed where a story wants it: at a crash point.
//!
//! `ca::crash_point` stands at each step: with `FAILPOINTS="NAME=return(FILE)"` whoever comes there
//! writes FILE and stays, until the test kills the daemon.

use crate::process::until;
use crate::stage::Stage;
use std::path::PathBuf;

impl Stage {
    /// Starts the daemon so that it stays at whichever of these points it comes to.
    pub(crate) fn start_to_stay_at(&mut self, points: &[&str]) {
        assert!(fail::has_failpoints(), "build with --features failpoints");
        let settings = points.iter().map(|point| {
            let reached = self.reached(point);
            // An earlier start may have come there.
            let _ = std::fs::remove_file(&reached);
            format!("{point}=return({})", reached.display())
        });
        let settings: Vec<String> = settings.collect();
        self.start_with(&settings);
    }

    /// Restarts the daemon so that it will stay at `point`.
    pub(crate) fn restart_to_stay_at(&mut self, point: &str) {
        self.stop();
        self.start_to_stay_at(&[point]);
        self.is_ready();
    }

    /// Waits until the daemon stays at `point`.
    pub(crate) fn stays_at(&self, point: &str) {
        until(point, || self.has_come_to(point).then_some(()));
    }

    /// Kills the daemon when it has come to `point`, and starts it again.
    pub(crate) fn is_killed_at(&mut self, point: &str) {
        self.stays_at(point);
        self.kill();
        self.start();
        self.is_ready();
    }

    fn has_come_to(&self, point: &str) -> bool {
        self.reached(point).exists()
    }

    fn reached(&self, point: &str) -> PathBuf {
        self.path(&format!("reached-{point}"))
    }
}

//! The clocks of the application and of the provisioning service, moved together; and the machine's
//! clock alone, set wrong.
//!
//! What is judged by them: validities, windows, due times, at both ends. What is not: TLS and the
//! credentials of calls, whose makers and judges go by the machine's clock; so once the daemon's own
//! TLS certificate was renewed, stories issue over the admin socket.

use crate::test_env::TestEnv;
use std::path::PathBuf;
use time::Duration;

impl TestEnv {
    /// From the daemon's next start on its clock can be moved.
    pub(crate) fn with_a_movable_clock(self) -> Self {
        self.set_clock(Duration::ZERO);
        self
    }

    /// So much time passes, for the service and for the daemon.
    pub(crate) fn passes(&self, step: Duration) {
        let moved = std::fs::read_to_string(self.clock()).expect("the clock can be moved");
        let moved = Duration::seconds(moved.parse().unwrap());
        self.emulator.clock().advance(step);
        self.set_clock(moved + step);
        // Nobody sleeps until a moment that has passed by now.
        self.run(&["push", "retry"]);
    }

    /// From its next start on the daemon sees the machine's clock set wrong by so much, and no time
    /// pass.
    pub(crate) fn with_a_clock_set_by(self, offset: Duration) -> Self {
        self.sets_clock_by(offset);
        self
    }

    /// Somebody, or nobody, sets the machine's clock.
    pub(crate) fn sets_clock_by(&self, offset: Duration) {
        self.write_offset("wall", offset);
    }

    /// The failpoints that move the daemon's clocks, where a story does.
    pub(crate) fn clock_settings(&self) -> Vec<String> {
        let moved = |name: &&str| self.path(name).exists();
        let setting = |name| format!("{name}=return({})", self.path(name).display());
        ["clock", "wall"]
            .into_iter()
            .filter(moved)
            .map(setting)
            .collect()
    }

    fn set_clock(&self, offset: Duration) {
        self.write_offset("clock", offset);
    }

    /// Whole at any moment, because it is read at any moment.
    fn write_offset(&self, name: &str, offset: Duration) {
        let beside = self.write("offset.new", &offset.whole_seconds().to_string());
        std::fs::rename(beside, self.path(name)).unwrap();
    }

    fn clock(&self) -> PathBuf {
        self.path("clock")
    }
}

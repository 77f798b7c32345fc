//! Moves the clocks of the application and of the provisioning service together, or sets only the
//! machine's clock wrong.
//!
//! These clocks decide about validities, windows and due times, at both ends. TLS and the
//! credentials of calls use the machine's clock; so once the daemon's own TLS certificate was
//! renewed, tests issue over the admin socket.

use crate::test_env::TestEnv;
use std::path::PathBuf;
use time::Duration;

impl TestEnv {
    /// Lets the daemon's clock be moved from its next start on.
    pub(crate) fn with_a_movable_clock(self) -> Self {
        self.set_clock(Duration::ZERO);
        self
    }

    /// Moves both clocks, for the service and for the daemon.
    pub(crate) fn passes(&self, step: Duration) {
        let moved = std::fs::read_to_string(self.clock()).expect("the clock can be moved");
        let moved = Duration::seconds(moved.parse().unwrap());
        self.emulator.clock().advance(step);
        self.set_clock(moved + step);
        // Retries what waits, because moved time ends no sleep.
        self.run(&["push", "retry"]);
    }

    /// From its next start on the daemon reads the machine's clock as wrong by so much, and as not
    /// moving.
    pub(crate) fn with_a_clock_set_by(self, offset: Duration) -> Self {
        self.sets_clock_by(offset);
        self
    }

    /// Sets whether the machine's clock is synchronised.
    pub(crate) fn sets_clock_by(&self, offset: Duration) {
        self.write_offset("wall", offset);
    }

    /// The failpoints that move the daemon's clocks, if the test moves them.
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

    /// Replaces the file as a whole, because the daemon may read it at any moment.
    fn write_offset(&self, name: &str, offset: Duration) {
        let beside = self.write("offset.new", &offset.whole_seconds().to_string());
        std::fs::rename(beside, self.path(name)).unwrap();
    }

    fn clock(&self) -> PathBuf {
        self.path("clock")
    }
}

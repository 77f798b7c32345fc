//! The clocks of the application and of the provisioning service, moved together.
//!
//! What is judged by them: validities, windows, due times, at both ends. What is not: TLS and the
//! credentials of calls, whose makers and judges go by the machine's clock; so once the daemon's own
//! TLS certificate was renewed, stories issue over the admin socket.

use crate::stage::Stage;
use std::path::PathBuf;
use time::Duration;

impl Stage {
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
        self.told(&["push", "retry"]);
    }

    /// The failpoint that moves the daemon's clock, where a story does.
    pub(crate) fn clock_setting(&self) -> Option<String> {
        let clock = self.clock();
        let setting = || format!("clock=return({})", clock.display());
        clock.exists().then(setting)
    }

    /// Whole at any moment, because it is read at any moment.
    fn set_clock(&self, offset: Duration) {
        let beside = self.write("clock.new", &offset.whole_seconds().to_string());
        std::fs::rename(beside, self.clock()).unwrap();
    }

    fn clock(&self) -> PathBuf {
        self.path("clock")
    }
}

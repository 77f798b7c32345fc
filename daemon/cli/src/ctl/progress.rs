//! Shows how far long work is, on standard error: as a bar with rate and estimate on a terminal,
//! elsewhere as one line every few seconds and one at the end. Standard output has the answer
//! alone.

use dialoguer::console::Term;
use hallmark_base::printable;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use std::cell::Cell;
use std::io::Write;
use std::time::{Duration, Instant};

/// The time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// The time between two pictures of work without a number.
const TICK_EVERY: Duration = Duration::from_millis(200);

/// The progress of one command.
pub(super) struct Progress {
    what: &'static str,
    bar: ProgressBar,
    is_terminal: bool,
    /// When the last line was printed.
    last_line: Cell<Instant>,
}

impl Progress {
    /// Begins to show the work `what`, without a number yet.
    pub(super) fn new(what: &'static str) -> Self {
        let is_terminal = Term::stderr().size_checked().is_some();
        let bar = if is_terminal {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        Self {
            what,
            bar,
            is_terminal,
            last_line: Cell::new(Instant::now()),
        }
    }

    /// Shows that `done` of `total` are done.
    pub(super) fn at(&self, done: u64, total: u64) {
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
            let template = "{msg}{pos} of {len} {wide_bar} {per_sec}, {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style.progress_chars("=> "));
            }
        }
        // A rollover goes on after its last device.
        let ends = done >= total && self.bar.position() < total;
        self.bar.set_position(done);
        self.line(ends, || {
            let rate = self.bar.per_sec();
            let left = HumanDuration(self.bar.eta());
            let state = self.bar.message();
            let what = self.what;
            format!("{what}: {state}{done} of {total}, {rate:.1}/s, {left} left")
        });
    }

    /// Shows a step that begins, and how long it takes.
    pub(super) fn step(&self, step: &str) {
        let step = printable::line(step);
        if !self.is_terminal {
            // Standard error may be closed; the work goes on.
            let _ = writeln!(printable::err(), "{step}");
            return;
        }
        self.bar.println(&*step);
        self.show_elapsed("{spinner} {elapsed}");
    }

    /// Shows work without numbers and how long it takes, on a terminal alone.
    pub(super) fn busy(&self, with: &'static str) {
        if self.is_terminal {
            self.show_elapsed("{spinner} {msg}, {elapsed}");
            self.bar.set_message(with);
        }
    }

    fn show_elapsed(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.reset_elapsed();
        self.bar.enable_steady_tick(TICK_EVERY);
    }

    /// Shows a state, and beside the number if one comes.
    pub(super) fn state(&self, state: &str) {
        let state = printable::line(state).into_owned();
        self.bar.set_message(format!("{state}  "));
        self.bar.tick();
    }

    /// Prints the state where there is no terminal and no number.
    pub(super) fn state_line(&self) {
        self.line(false, || {
            format!("{}: {}", self.what, self.bar.message().trim_end())
        });
    }

    /// Prints a line where there is no terminal, if the last one is some seconds old or it is the
    /// last.
    fn line(&self, is_last: bool, text: impl FnOnce() -> String) {
        let is_due = is_last || self.last_line.get().elapsed() >= LINE_EVERY;
        if is_due && !self.is_terminal {
            let _ = writeln!(printable::err(), "{}", text());
            self.last_line.set(Instant::now());
        }
    }

    /// Removes the bar.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

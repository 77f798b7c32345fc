//! Shows how far long work is, on standard error: as a bar with rate and estimate on a terminal,
//! elsewhere as one line every few seconds and one at the end. Standard output has the answer
//! alone.

use dialoguer::console::Term;
use hallmark_base::printable;
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use serde_json::Value;
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

    /// Shows a line of the daemon: a step that begins, and how far it is where it has a number.
    pub(super) fn show(&self, line: &Value) {
        let step = line["progress"].as_str().unwrap_or_default();
        let number = |name: &str| line[name].as_u64();
        match (number("done"), number("step"), line["unit"].as_str()) {
            (Some(done), _, Some(_)) => self.bytes(step, done, number("total").unwrap_or(done)),
            (None, _, Some(_)) => self.busy(step),
            (Some(done), ..) => self.at(done, number("total").unwrap_or(done)),
            (None, Some(at), _) => self.step_of(step, at, number("steps").unwrap_or(at)),
            (None, None, _) => self.step(step),
        }
    }

    /// Shows that a step has copied or read `done` bytes of `total`.
    fn bytes(&self, step: &str, done: u64, total: u64) {
        let step = printable::line(step);
        if self.bar.length() != Some(total) || self.bar.message() != step {
            self.style("{msg}  {bytes} of {total_bytes} {wide_bar} {bytes_per_sec}, {eta} left");
            // A ticking bar draws no position.
            self.bar.disable_steady_tick();
            self.bar.set_message(step.clone().into_owned());
            self.bar.set_length(total);
            self.bar.reset_eta();
        }
        self.bar.set_position(done);
        self.line(false, || {
            let [done, total] = [done, total].map(HumanBytes);
            format!("{}: {step}, {done} of {total}", self.what)
        });
    }

    /// Shows a step that begins, the part `at` of `of`.
    fn step_of(&self, step: &str, at: u64, of: u64) {
        self.step(&format!("{at} of {of}  {step}"));
        if self.is_terminal {
            self.bar.set_length(of);
            self.bar.set_position(at.saturating_sub(1));
            self.style("{spinner} {pos} of {len} {wide_bar} {elapsed}");
        }
    }

    fn style(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("=> "));
        }
    }

    /// Shows that `done` of `total` are done.
    pub(super) fn at(&self, done: u64, total: u64) {
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
            self.style("{msg}{pos} of {len} {wide_bar} {per_sec}, {eta} left");
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
    fn step(&self, step: &str) {
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
    pub(super) fn busy(&self, with: &str) {
        if self.is_terminal {
            self.show_elapsed("{spinner} {msg}, {elapsed}");
            self.bar.set_message(printable::line(with).into_owned());
        }
    }

    fn show_elapsed(&self, template: &str) {
        self.style(template);
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

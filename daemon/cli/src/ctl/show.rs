//! Prints answers, as text or as one object of JSON.
//!
//! Answers pass through `printable`, because names in them come from outside; JSON escapes them by
//! itself and is printed as the daemon sent it.

use super::failure::Failure;
use super::render;
use dialoguer::console::Term;
use hallmark_base::printable;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::io::Write;

/// The format of answers.
pub(super) struct Show {
    pub(super) json: bool,
    /// The answer of a command with `--json`, until the command has succeeded: a failure prints one
    /// object, which includes it.
    pub(super) answer: RefCell<Option<Value>>,
    /// The exit code of a command that has codes of its own.
    pub(super) exit_code: Cell<Option<u8>>,
}

impl Show {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            answer: RefCell::default(),
            exit_code: Cell::default(),
        }
    }

    /// Prints the answer that `--json` has kept back.
    pub(super) fn finish(&self) -> Result<(), Failure> {
        let answer = self.answer.take();
        answer.map_or(Ok(()), |value| {
            written(writeln!(printable::exact_out(), "{value:#}"))
        })
    }

    pub(super) fn record(&self, value: &Value) -> Result<(), Failure> {
        if self.json {
            self.exact(value)
        } else {
            self.text(&render::record(value))
        }
    }

    pub(super) fn table(&self, rows: &Value, columns: &[&str]) -> Result<(), Failure> {
        if self.json {
            self.exact(rows)
        } else {
            self.text(&render::table(rows, columns))
        }
    }

    /// Prints a table without its last columns if it is wider than the terminal.
    pub(super) fn fitting_table(&self, rows: &Value, columns: &[&str]) -> Result<(), Failure> {
        if self.json {
            return self.exact(rows);
        }
        self.text(&render::fitting_table(rows, columns, terminal_columns()))
    }

    /// Prints one line of text.
    pub(super) fn line(&self, text: &str) -> Result<(), Failure> {
        self.text(&format!("{}\n", printable::line(text)))
    }

    /// Prints lines of text, such as PEM or a transcript.
    pub(super) fn text(&self, text: &str) -> Result<(), Failure> {
        written(printable::out().write_all(text.as_bytes()))
    }

    /// Keeps an answer back until the command ends. Prints the one before it, if there is one.
    pub(super) fn exact(&self, value: &Value) -> Result<(), Failure> {
        let earlier = self.answer.replace(Some(value.clone()));
        earlier.map_or(Ok(()), |earlier| {
            written(writeln!(printable::exact_out(), "{earlier:#}"))
        })
    }

    /// Prints JSON unchanged on one line.
    pub(super) fn exact_line(&self, value: &Value) -> Result<(), Failure> {
        written(writeln!(printable::exact_out(), "{value}"))
    }
}

/// Returns how many characters a line of the terminal has; `None` if the output is no terminal.
pub(super) fn terminal_columns() -> Option<usize> {
    let (_, columns) = Term::stdout().size_checked()?;
    Some(usize::from(columns)).filter(|it| *it > 0)
}

pub(super) fn written(result: std::io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| Failure::Failed(format!("standard output: {error}")))
}

/// Shows the answer of each place, and what follows from places that are not done.
pub(super) fn receipt(show: &Show, receipt: &Value) -> Result<(), Failure> {
    let places = &receipt["places"];
    show.table(places, &["place", "state", "code", "answer"])?;
    let count = |state: &str| {
        let places = places.as_array().into_iter().flatten();
        places.filter(|it| it["state"] == state).count()
    };
    let pending = count("pending");
    if pending > 0 {
        show.line(&format!(
            "{pending} pending: the daemon goes on by itself; `hallmark push list` shows the \
             changes that wait"
        ))?;
    }
    let open = count("open");
    if open > 0 {
        show.line(&format!(
            "{open} open: the daemon does not go on there; do what the answer says"
        ))?;
    }
    Ok(())
}

//! Prints answers, as text or as one object of JSON.
//!
//! Answers pass through `printable`, because names in them come from outside; JSON escapes them by
//! itself and is printed as the daemon sent it.

use super::failure::Failure;
use super::render;
use super::state::Tone;
use super::table::{self, Columns, Paper};
use dialoguer::console::{Term, colors_enabled};
use hallmark_base::printable;
use hallmark_pki::unix_seconds::UnixSeconds;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// The format of answers.
pub(super) struct Show {
    pub(super) json: bool,
    /// Whether tables have every column and every value whole, on a terminal too.
    wide: bool,
    /// The answer of a command with `--json`, until the command has succeeded: a failure prints one
    /// object, which includes it.
    pub(super) answer: RefCell<Option<Value>>,
    /// The exit code of a command that has codes of its own.
    pub(super) exit_code: Cell<Option<u8>>,
}

impl Show {
    pub(super) fn new(json: bool, wide: bool) -> Self {
        Self {
            json,
            wide,
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

    /// Prints a list with these columns, or those of them that the terminal has room for.
    pub(super) fn table(&self, rows: &Value, columns: &[&str]) -> Result<(), Failure> {
        self.list(rows, columns, &[])
    }

    /// Prints a list that has further columns with `-o wide` and in a pipe.
    pub(super) fn list(&self, rows: &Value, shown: &[&str], wide: &[&str]) -> Result<(), Failure> {
        if self.json {
            return self.exact(rows);
        }
        self.styled(&table::table(rows, Columns { shown, wide }, self.paper()))
    }

    /// Returns how tables are printed.
    pub(super) fn paper(&self) -> Paper {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = since.map_or(0, |it| it.as_secs().cast_signed());
        Paper {
            width: terminal_columns().filter(|_| !self.wide),
            now: UnixSeconds::new(seconds),
            colours: colors_enabled(),
        }
    }

    /// Returns true if a person reads the answer, and no program.
    pub(super) fn is_on_terminal(&self) -> bool {
        terminal_columns().is_some()
    }

    /// Prints text with colours, of which every part that came from outside is escaped.
    pub(super) fn styled(&self, text: &str) -> Result<(), Failure> {
        written(printable::exact_out().write_all(text.as_bytes()))
    }

    /// Returns text in the colour of a state, if the terminal has colours.
    pub(super) fn toned(&self, text: &str, tone: Tone) -> String {
        tone.style().apply_to(text).to_string()
    }

    /// Prints a remark below a table.
    pub(super) fn remark(&self, text: &str) -> Result<(), Failure> {
        self.styled(&table::dim(&printable::line(text), self.paper()))
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
    result.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::ReaderGone,
        _ => Failure::Failed(format!("standard output: {error}")),
    })
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

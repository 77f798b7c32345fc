//! Colours the states that lists and pages show.
//!
//! A colour repeats a word and never replaces it: a screen reader, a pipe and a terminal without
//! colours have the word.

use dialoguer::console::{self, Style};
use serde_json::Value;

/// How urgent a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Attention,
    Bad,
}

impl Tone {
    pub(super) fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Good => Style::new().green(),
            Self::Attention => Style::new().yellow(),
            Self::Bad => Style::new().red(),
        }
    }
}

/// From so many days on, the end of a certificate needs no attention.
const DAYS_GOOD: i64 = 30;

/// Turns colours off where the variable `NO_COLOR` is not empty (no-color.org), whatever
/// `CLICOLOR_FORCE` says. The library follows the variables `CLICOLOR` and `CLICOLOR_FORCE`
/// (bixense.com/clicolors), and has no colours in a pipe.
pub(super) fn follow_environment() {
    if std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty()) {
        console::set_colors_enabled(false);
        console::set_colors_enabled_stderr(false);
    }
}

/// Returns the urgency of the days until an end.
pub(super) fn of_days(value: &Value) -> Tone {
    match value.as_i64() {
        Some(..0) => Tone::Bad,
        Some(0..DAYS_GOOD) => Tone::Attention,
        Some(_) => Tone::Good,
        None => Tone::Plain,
    }
}

/// Returns the urgency of a change that may be parked.
pub(super) fn of_parked(value: &Value) -> Tone {
    match value {
        Value::Bool(true) => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// Returns the urgency of a certificate that is to be verified.
pub(super) fn of_verified(value: &Value) -> Tone {
    match value {
        Value::Bool(true) => Tone::Good,
        Value::Bool(false) => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// Returns the urgency of a block, if there is one.
pub(super) fn of_block(value: &Value) -> Tone {
    match value {
        Value::String(_) => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// Returns the urgency of a state in a table.
pub(super) fn of_state(value: &Value) -> Tone {
    value.as_str().map_or(Tone::Plain, of_word)
}

/// Returns the urgency of a state.
pub(super) fn of_word(word: &str) -> Tone {
    match word {
        "good" | "valid" | "ready" | "done" | "in step" | "serving" | "enabled" | "verified" => {
            Tone::Good
        }
        "attention"
        | "pending"
        | "open"
        | "waiting"
        | "starting"
        | "staged"
        | "draining"
        | "on_hold"
        | "expired"
        | "disabled"
        | "requested"
        | "excluding"
        | "clearing"
        | "reissuing"
        | "being removed"
        | "waits for a certificate"
        | "planned"
        | "abandoned" => Tone::Attention,
        "critical" | "revoked" | "issuer_revoked" | "parked" | "drifted" | "unavailable"
        | "refused" => Tone::Bad,
        _ => Tone::Plain,
    }
}

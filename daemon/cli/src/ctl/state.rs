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

/// Returns the urgency of the value of a column.
pub(super) fn tone(column: &str, value: &Value) -> Tone {
    match (column, value) {
        ("days_left", Value::Number(days)) => match days.as_i64() {
            Some(..0) => Tone::Bad,
            Some(0..DAYS_GOOD) => Tone::Attention,
            _ => Tone::Good,
        },
        ("parked", Value::Bool(true)) | ("verified", Value::Bool(false)) => Tone::Bad,
        ("verified", Value::Bool(true)) => Tone::Good,
        ("block", Value::String(_)) => Tone::Bad,
        ("state" | "status" | "severity" | "token", Value::String(word)) => of_word(word),
        _ => Tone::Plain,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn days_and_flags_have_a_colour_too() {
        for (column, value, expected) in [
            ("days_left", json!(-1), Tone::Bad),
            ("days_left", json!(29), Tone::Attention),
            ("days_left", json!(30), Tone::Good),
            ("parked", json!(false), Tone::Plain),
            ("verified", json!(false), Tone::Bad),
            ("block", json!(null), Tone::Plain),
            ("block", json!("device"), Tone::Bad),
            ("name", json!("ready"), Tone::Plain),
        ] {
            assert_eq!(tone(column, &value), expected, "{column} {value}");
        }
    }
}

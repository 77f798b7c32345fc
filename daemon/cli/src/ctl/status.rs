//! Runs `hallmark status`: five lines that answer four questions, and an exit code for monitoring.
//!
//! Exit codes: 0 good, 1 attention, 2 critical, by the worst of the four answers; 3 if there is no
//! answer. They are those of Nagios plugins. With `--verbose` and `--json` an answer exits 0: what
//! reads it judges by itself. The daemon judges, this command prints.

use super::client::ApiClient;
use super::command::ShowStatus;
use super::failure::Failure;
use super::show::{Show, terminal_columns};
use dialoguer::console::{Style, truncate_str};
use hallmark_base::printable;
use serde_json::Value;
use std::thread;
use std::time::Duration;

/// The pause of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Clears a terminal, goes to its top, and clears the rest of a line (ECMA-48: ED, CUP, EL).
const CLEAR_SCREEN: &str = "\x1b[2J";
const TOP_OF_SCREEN: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";

/// The exit code if the daemon gives no answer.
pub(super) const NO_ANSWER: u8 = 3;

/// The severities of the daemon, by their exit code.
const SEVERITIES: [&str; 3] = ["good", "attention", "critical"];

pub(super) fn run(client: &ApiClient, show: &Show, options: &ShowStatus) -> Result<(), Failure> {
    if options.watch {
        return watch(client, show);
    }
    let is_whole = show.json || options.verbose;
    show.exit_code.set(Some(NO_ANSWER).filter(|_| !is_whole));
    let status = client.get("/v1/status")?;
    if is_whole {
        return show.record(&status);
    }
    show.exit_code.set(Some(exit_code(&status)));
    print_lines(show, &lines(&status), "")
}

/// Shows the five lines, or each answer with `--json`, again and again. On a terminal they are
/// written over the last ones; in a pipe they come again when an answer has changed. A daemon that
/// does not answer, or cannot now, is shown, and asked again.
fn watch(client: &ApiClient, show: &Show) -> Result<(), Failure> {
    let is_terminal = terminal_columns().is_some();
    if is_terminal && !show.json {
        show.styled(CLEAR_SCREEN)?;
    }
    let mut last = Vec::new();
    loop {
        let lines = match client.get("/v1/status") {
            Ok(status) if show.json => {
                show.exact_line(&status)?;
                Vec::new()
            }
            Ok(status) => lines(&status),
            Err(failure @ (Failure::Unreachable(_) | Failure::Busy { .. })) if show.json => {
                show.exact_line(&away(&failure))?;
                Vec::new()
            }
            Err(failure @ (Failure::Unreachable(_) | Failure::Busy { .. })) => {
                vec![away_line(&failure)]
            }
            Err(failure) => return Err(failure),
        };
        let answers = lines.iter().map(|(line, _)| line.clone());
        // The first line of an answer has the time.
        let answers: Vec<String> = answers.skip(lines.len() / 5).collect();
        if !show.json && is_terminal {
            // Below the daemon that does not answer its last answers stay.
            show.styled(TOP_OF_SCREEN)?;
            print_lines(show, &lines, CLEAR_LINE)?;
        } else if !show.json && answers != last {
            print_lines(show, &lines, "")?;
        }
        last = answers;
        thread::sleep(WATCH_EVERY);
    }
}

/// The state that `--watch` shows in the place of an answer.
const AWAY: &str = "daemon does not answer";

fn away(failure: &Failure) -> Value {
    let mut object = failure.to_json(None);
    object["state"] = AWAY.into();
    object
}

fn away_line(failure: &Failure) -> (String, Style) {
    let line = printable::line(&format!("{AWAY}: {failure}")).into_owned();
    (line, Style::new().red().bold())
}

/// Returns the exit code of the worst answer; a severity that is not known here is critical.
fn exit_code(status: &Value) -> u8 {
    let answers = status["overview"].as_array().into_iter().flatten();
    let codes = answers.map(|it| {
        let severity = it["severity"].as_str().unwrap_or_default();
        let known = SEVERITIES.iter().position(|it| *it == severity);
        known.map_or(2, |code| u8::try_from(code).unwrap_or(2))
    });
    codes.max().unwrap_or(2)
}

/// Prints lines, of which each fits the terminal unless `-o wide` is given, and `end` after each.
fn print_lines(show: &Show, lines: &[(String, Style)], end: &str) -> Result<(), Failure> {
    let mut text = String::new();
    for (line, style) in lines {
        let line = match show.paper().width {
            Some(columns) => truncate_str(line, columns, "…"),
            None => line.as_str().into(),
        };
        text += &format!("{}{end}\n", style.apply_to(line));
    }
    show.styled(&text)
}

/// Returns the five lines, with the style of each.
fn lines(status: &Value) -> Vec<(String, Style)> {
    let text = |value: &Value| printable::line(value.as_str().unwrap_or("-")).into_owned();
    let head = format!(
        "hallmark {} at {}",
        text(&status["version"]),
        text(&status["now"])
    );
    let mut lines = vec![(head, Style::new().dim())];
    for answer in status["overview"].as_array().into_iter().flatten() {
        let severity = text(&answer["severity"]);
        let style = match severity.as_str() {
            "good" => Style::new().green(),
            "attention" => Style::new().yellow(),
            _ => Style::new().red().bold(),
        };
        let question = text(&answer["question"]);
        let line = format!("{question:<9} {severity:<10} {}", text(&answer["text"]));
        lines.push((line, style));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_worst_answer_decides_the_exit_code() {
        let status = |severities: &[&str]| {
            let answers = severities.iter().map(|it| json!({ "severity": it }));
            json!({ "overview": answers.collect::<Vec<_>>() })
        };
        assert_eq!(exit_code(&status(&["good", "good"])), 0);
        assert_eq!(exit_code(&status(&["good", "attention", "good"])), 1);
        assert_eq!(exit_code(&status(&["critical", "attention"])), 2);
        assert_eq!(exit_code(&status(&["good", "unheard of"])), 2);
        assert_eq!(exit_code(&json!({})), 2);
    }

    #[test]
    fn a_line_has_question_severity_and_sentence_and_forges_no_other() {
        let answer = json!({ "question": "safe", "severity": "good", "text": "a\nb" });
        let status = json!({ "version": "1", "now": "n", "overview": [answer] });
        let lines = lines(&status).into_iter().map(|(line, _)| line);
        let lines: Vec<_> = lines.collect();
        assert_eq!(lines, ["hallmark 1 at n", "safe      good       a\\nb"]);
    }
}

//! Runs `hallmark doctor`: one line for each check, its remedy below it, and an exit code.
//!
//! Exit codes: 0 ok, 1 attention, 2 failed, by the worst verdict; 3 if there is no verdict. They
//! are those of `hallmark status`, and count with `--json`, too. A name that is no check is a wrong
//! command line, with its exit code. The daemon judges, and this command
//! prints.

use super::client::ApiClient;
use super::command::RunDoctor;
use super::failure::Failure;
use super::show::{Show, terminal_columns, written};
use super::status::NO_ANSWER;
use dialoguer::console::Style;
use hallmark_base::printable;
use serde_json::{Value, json};
use std::io::Write;

/// The width of the verdict and of the name of a check.
const WIDTHS: (usize, usize) = (14, 15);
/// Where the text of a check begins.
const INDENT: usize = WIDTHS.0 + WIDTHS.1 + 4;
/// On a narrower terminal lines are not wrapped.
const COLUMNS_MIN: usize = INDENT + 30;

pub(super) fn run(client: &ApiClient, show: &Show, options: &RunDoctor) -> Result<(), Failure> {
    show.exit_code.set(Some(NO_ANSWER));
    let body = json!({ "only": options.only, "client": env!("CARGO_PKG_VERSION") });
    let report = client
        .post("/v1/doctor", &body)
        .map_err(|failure| match failure {
            Failure::Problem { code, detail, .. } if code == "check_unknown" => {
                show.exit_code.set(None);
                Failure::Usage(detail)
            }
            failure => failure,
        })?;
    show.exit_code.set(Some(exit_code(&report)));
    if show.json {
        return show.record(&report);
    }
    let mut out = printable::exact_out();
    let columns = terminal_columns().filter(|it| *it >= COLUMNS_MIN);
    for (line, style) in lines(&report, columns) {
        written(writeln!(out, "{}", style.apply_to(line)))?;
    }
    Ok(())
}

/// Returns the exit code of the worst verdict; a verdict that is not known here has failed.
fn exit_code(report: &Value) -> u8 {
    match report["verdict"].as_str() {
        Some("ok") => 0,
        Some("attention") => 1,
        _ => 2,
    }
}

/// Returns the lines of a report, each with its style.
fn lines(report: &Value, columns: Option<usize>) -> Vec<(String, Style)> {
    let head = format!(
        "hallmark {} at {}",
        text(&report["version"]),
        text(&report["at"])
    );
    let mut lines = vec![(head, Style::new().dim())];
    for finding in report["findings"].as_array().into_iter().flatten() {
        lines.extend(finding_lines(finding, columns));
    }
    let summary = &report["summary"];
    let counts = ["ok", "attention", "failed", "unknown", "not_applicable"]
        .map(|it| format!("{} {}", summary[it], it.replace('_', " ")));
    lines.push((counts.join(", "), Style::new().bold()));
    lines
}

fn finding_lines(finding: &Value, columns: Option<usize>) -> Vec<(String, Style)> {
    let verdict = text(&finding["verdict"]).replace('_', " ");
    let style = match verdict.as_str() {
        "ok" => Style::new().green(),
        "not applicable" | "unknown" => Style::new().dim(),
        "attention" => Style::new().yellow(),
        _ => Style::new().red().bold(),
    };
    let subject = finding["subject"].as_str();
    let subject = subject.map_or_else(String::new, |it| format!("{}: ", printable::line(it)));
    let said = format!("{subject}{}", text(&finding["text"]));
    let (wide, narrow) = WIDTHS;
    let head = format!("{verdict:<wide$}  {:<narrow$}  ", text(&finding["check"]));
    let mut lines = block(&head, &said, columns, &style);
    if finding["remedy"].is_string() {
        let head = format!("{:INDENT$}-> ", "");
        lines.extend(block(
            &head,
            &text(&finding["remedy"]),
            columns,
            &Style::new(),
        ));
    }
    lines
}

/// Wraps a text at words; its first line has `head` before it, and the others the same width.
fn block(head: &str, text: &str, columns: Option<usize>, style: &Style) -> Vec<(String, Style)> {
    let width = columns.map_or(usize::MAX, |it| it - head.chars().count());
    let mut wrapped = vec![String::new()];
    for word in text.split(' ') {
        let last = wrapped.last_mut().expect("there is a line");
        let length = last.chars().count() + 1 + word.chars().count();
        if last.is_empty() || length <= width {
            let space = if last.is_empty() { "" } else { " " };
            last.push_str(&format!("{space}{word}"));
        } else {
            wrapped.push(word.to_owned());
        }
    }
    let pad = " ".repeat(head.chars().count());
    let lines = wrapped.into_iter().enumerate().map(|(at, line)| {
        let head = if at == 0 { head } else { &pad };
        (format!("{head}{line}"), style.clone())
    });
    lines.collect()
}

fn text(value: &Value) -> String {
    printable::line(value.as_str().unwrap_or("-")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(report: &Value, columns: Option<usize>) -> Vec<String> {
        lines(report, columns).into_iter().map(|it| it.0).collect()
    }

    #[test]
    fn a_check_has_one_line_and_its_remedy_below() {
        let report = json!({
            "version": "1", "at": "t", "verdict": "failed",
            "summary": { "ok": 1, "attention": 0, "failed": 1, "unknown": 0,
                         "not_applicable": 0 },
            "findings": [
                { "check": "clock", "verdict": "ok", "text": "believed" },
                { "check": "pin", "subject": "line\n1", "verdict": "failed", "text": "locked",
                  "remedy": "unlock it" },
            ],
        });
        let lines = shown(&report, None);
        assert_eq!(
            lines,
            [
                "hallmark 1 at t",
                "ok              clock            believed",
                "failed          pin              line\\n1: locked",
                "                                 -> unlock it",
                "1 ok, 0 attention, 1 failed, 0 unknown, 0 not applicable",
            ]
        );
        assert_eq!(exit_code(&report), 2);
        assert_eq!(exit_code(&json!({ "verdict": "attention" })), 1);
        assert_eq!(exit_code(&json!({ "verdict": "ok" })), 0);
        assert_eq!(exit_code(&json!({})), 2);
    }

    #[test]
    fn a_long_text_is_wrapped_at_words_below_its_beginning() {
        let text = "one two three four five six seven eight nine ten eleven twelve";
        let report = json!({ "findings": [{ "check": "clock", "verdict": "ok", "text": text }] });
        let lines = shown(&report, Some(66));
        assert_eq!(
            lines[1],
            "ok              clock            one two three four five six seven"
        );
        assert_eq!(lines[2], format!("{:33}eight nine ten eleven twelve", ""));
    }
}

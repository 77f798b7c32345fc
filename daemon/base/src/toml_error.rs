//! Describes TOML errors without repeating the offending line, which may hold a secret.

pub mod plain_words;

use plain_words::plain;

/// Returns line, column and reason of an error in `text`. The message goes to logs, and an operator
/// may have written a PIN in that line, so the line itself is left out.
pub fn where_and_why(text: &str, error: &toml::de::Error) -> String {
    let why = plain(&error.message().replace('\n', ", "));
    let before = error.span().and_then(|span| text.get(..span.start));
    let Some(before) = before else {
        return why;
    };
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|it| *it != '\n').count() + 1;
    format!("line {line}, column {column}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_line_and_column_and_not_what_stands_there() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            #[serde(rename = "pin_file")]
            _pin_file: Option<String>,
        }
        for (text, expected) in [
            (
                "\n  pin = \"hunter2\"",
                "line 2, column 3: `pin` is not known",
            ),
            ("# ä\npin_file = \"hunter2", "line 2, column "),
            ("pin_file = hunter2", "line 1, column 12: "),
        ] {
            let error = toml::from_str::<Raw>(text).expect_err("not taken");
            let why = where_and_why(text, &error);
            assert!(why.starts_with(expected), "{why}");
            assert!(!why.contains("hunter2") && !why.contains('\n'), "{why}");
        }
    }
}

//! Answers as people read them: tables for lists, indented lines for one thing.

use serde_json::Value;
use std::fmt::Write;

/// A list, one row an entry, columns as wide as they need.
pub(super) fn table(rows: &Value, columns: &[&str]) -> String {
    let mut lines: Vec<Vec<String>> = vec![columns.iter().map(|it| it.to_uppercase()).collect()];
    for row in rows.as_array().into_iter().flatten() {
        lines.push(columns.iter().map(|column| cell(&row[*column])).collect());
    }
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| {
            lines
                .iter()
                .map(|line| line[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// One thing, a line a member, members of members indented.
pub(super) fn record(value: &Value) -> String {
    let mut text = String::new();
    write_members(&mut text, value, 0);
    text
}

fn write_members(text: &mut String, value: &Value, indent: usize) {
    let pad = " ".repeat(indent);
    // Writing into a String cannot fail.
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::Object(_) | Value::Array(_) if !is_empty(member) => {
                        let _ = writeln!(text, "{pad}{name}:");
                        write_members(text, member, indent + 2);
                    }
                    _ => {
                        let _ = writeln!(text, "{pad}{name}: {}", cell(member));
                    }
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                let mut inner = String::new();
                write_members(&mut inner, item, indent + 2);
                let _ = writeln!(text, "{pad}- {}", inner.trim_start().trim_end());
            }
        }
        Value::String(block) if block.contains('\n') => {
            for line in block.lines() {
                let _ = writeln!(text, "{pad}{line}");
            }
        }
        scalar => {
            let _ = writeln!(text, "{pad}{}", cell(scalar));
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) if text.contains('\n') => {
            text.lines().map(|line| format!("\n    {line}")).collect()
        }
        Value::String(text) => text.clone(),
        Value::Object(_) | Value::Array(_) if is_empty(value) => "-".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_as_wide_as_they_need_and_absent_values_are_dashes() {
        let rows = json!([{ "id": 1, "name": "station" }, { "id": 20, "name": null }]);
        assert_eq!(
            table(&rows, &["id", "name"]),
            "ID  NAME\n1   station\n20  -\n"
        );
    }

    #[test]
    fn members_of_members_are_indented() {
        let value = json!({ "a": 1, "b": { "c": "x" }, "d": [] });
        assert_eq!(record(&value), "a: 1\nb:\n  c: x\nd: -\n");
    }
}

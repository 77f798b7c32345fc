//! Formats answers as text: tables for lists, indented lines for one object.
//!
//! Every value except PEM is one line, so no value can forge a row or a member.

use hallmark_base::printable::{self, Page, is_pem};
use hallmark_pki::unix_seconds::UnixSeconds;
use serde_json::Value;

/// Members that repeat a sentence of their object for programs; only `--json` shows them.
const FOR_PROGRAMS: [&str; 2] = ["alarm_details", "waits_for_detail"];

/// Formats a list as a table, with one row per entry.
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

/// Formats a table, and leaves out its last columns until it has `width` characters at most. The
/// first two columns stay. A last line names what is left out.
pub(super) fn fitting_table(rows: &Value, columns: &[&str], width: Option<usize>) -> String {
    let least = columns.len().min(2);
    let fits = |text: &String| {
        let widest = text.lines().map(|line| line.chars().count()).max();
        width.is_none_or(|width| widest.unwrap_or(0) <= width)
    };
    let mut shorter = (least..=columns.len()).rev();
    let count = shorter
        .find(|count| fits(&table(rows, &columns[..*count])))
        .unwrap_or(least);
    let mut text = table(rows, &columns[..count]);
    if count < columns.len() {
        let left_out = columns[count..].join(", ");
        text += &format!("no room for: {left_out}; a wider terminal or --json has them\n");
    }
    text
}

/// Returns entries of the audit journal for a table: times as RFC 3339, and the members of the
/// detail as `name: value`.
pub(super) fn journal(entries: &Value) -> Value {
    let rows = entries.as_array().into_iter().flatten().map(|entry| {
        let mut row = entry.clone();
        if let Some(at) = entry["at"].as_i64() {
            row["at"] = UnixSeconds::new(at).to_string().into();
        }
        let detail = entry["detail"].as_object().into_iter().flatten();
        let detail = detail.filter(|(_, value)| !value.is_null());
        let detail = detail.map(|(name, value)| format!("{name}: {}", cell(value)));
        row["detail"] = detail.collect::<Vec<_>>().join(", ").into();
        row
    });
    rows.collect()
}

/// Returns an entry of the audit journal as one line.
pub(super) fn journal_line(entry: &Value) -> String {
    let rows = journal(&Value::Array(vec![entry.clone()]));
    let cells = ["sequence", "at", "actor", "action", "subject", "detail"];
    cells.map(|name| cell(&rows[0][name])).join("  ")
}

/// Formats an object with one line per member; nested members are indented.
pub(super) fn record(value: &Value) -> String {
    let mut page = Page::default();
    write_members(&mut page, value, "", "");
    page.into_text()
}

/// Puts `first` before the first line and `pad` before all others.
fn write_members(page: &mut Page, value: &Value, first: &str, pad: &str) {
    match value {
        Value::Object(members) => {
            let shown = members
                .iter()
                .filter(|(name, _)| !FOR_PROGRAMS.contains(&name.as_str()));
            for (number, (name, member)) in shown.enumerate() {
                let lead = if number == 0 { first } else { pad };
                write_member(page, name, member, lead, pad);
            }
        }
        Value::Array(items) => {
            for item in items {
                write_members(page, item, &format!("{pad}- "), &format!("{pad}  "));
            }
        }
        Value::String(text) if is_pem(text) => page.pem(first, pad, text),
        scalar => page.line(&format!("{first}{}", cell(scalar))),
    }
}

fn write_member(page: &mut Page, name: &str, member: &Value, lead: &str, pad: &str) {
    let inner = format!("{pad}  ");
    match member {
        Value::Object(_) | Value::Array(_) if !is_empty(member) => {
            page.line(&format!("{lead}{name}:"));
            write_members(page, member, &inner, &inner);
        }
        Value::String(text) if is_pem(text) => {
            page.line(&format!("{lead}{name}:"));
            let inner = format!("{pad}    ");
            page.pem(&inner, &inner, text);
        }
        _ => page.line(&format!("{lead}{name}: {}", cell(member))),
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
        Value::String(text) => printable::line(text).into_owned(),
        Value::Object(_) | Value::Array(_) if is_empty(value) => "-".into(),
        other => printable::line(&other.to_string()).into_owned(),
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
    fn a_table_leaves_out_columns_that_the_terminal_has_no_room_for() {
        let rows = json!([{ "id": 1, "name": "station", "role": "x" }]);
        let columns = ["id", "name", "role"];
        let fitting = |width| fitting_table(&rows, &columns, width);
        assert_eq!(fitting(None), table(&rows, &columns));
        assert_eq!(fitting(Some(17)), table(&rows, &columns));
        let cut = "ID  NAME\n1   station\nno room for: role; a wider terminal or --json has them\n";
        assert_eq!(fitting(Some(14)), cut);
        assert_eq!(fitting(Some(3)), cut);
    }

    #[test]
    fn an_entry_of_the_journal_has_its_time_and_detail_in_words() {
        let entries = json!([{ "at": 0, "detail": { "code": "x", "none": null, "n": 1 } }]);
        let row = &journal(&entries)[0];
        assert_eq!(row["at"], "1970-01-01T00:00:00Z");
        assert_eq!(row["detail"], "code: x, n: 1");
    }

    #[test]
    fn members_of_members_are_indented() {
        let value = json!({ "a": 1, "b": { "c": "x" }, "d": [], "waits_for_detail": {} });
        assert_eq!(record(&value), "a: 1\nb:\n  c: x\nd: -\n");
    }
}

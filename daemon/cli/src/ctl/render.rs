//! Formats one object as indented lines, and entries of the journal as rows.
//!
//! Every value except PEM is one line, so no value can forge a row or a member.

use hallmark_base::printable::{self, Page, is_pem};
use hallmark_pki::unix_seconds::UnixSeconds;
use serde_json::Value;

/// Members that repeat a sentence of their object for programs; only `--json` shows them.
const FOR_PROGRAMS: [&str; 3] = ["alarm_details", "estimate_detail", "waits_for_detail"];

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

/// Returns a value as one line that is not empty.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) if text.is_empty() => "-".into(),
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

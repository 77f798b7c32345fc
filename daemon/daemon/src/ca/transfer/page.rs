//! Writes a transcript as a page that people compare, sign and archive.

use crate::printable::Page;
use serde_json::Value;

/// Returns the page of a transcript with this SHA-256.
pub(super) fn to_text(transcript: &Value, sha256: &str) -> String {
    let mut page = Page::default();
    for (name, value) in transcript.as_object().into_iter().flatten() {
        match value {
            Value::Array(items) => write_items(&mut page, name, items),
            value => page.line(&format!("{name:16} {}", plain(value))),
        }
    }
    page.lines([
        String::new(),
        "SHA-256 of this transcript (JSON), to be compared at the other side".into(),
        format!("{:16} {sha256}", ""),
        String::new(),
        "Witnessed by     ______________________    ______________________".into(),
    ]);
    page.into_text()
}

fn write_items(page: &mut Page, name: &str, items: &[Value]) {
    for item in items {
        page.lines([String::new(), format!("{name}:")]);
        match item {
            Value::Object(members) => {
                for (name, value) in members {
                    page.line(&format!("  {name:14} {}", plain(value)));
                }
            }
            value => page.line(&format!("  {}", plain(value))),
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".into(),
        value => value.to_string(),
    }
}

//! Queries, page by page (contract section 7).

use serde_json::Value;

use super::{json_object, records};
use crate::cloud::Cloud;
use crate::enrollment::Kind;
use crate::ids;
use crate::page::Page;
use crate::refusal::Refusal;
use crate::wire::{Call, Reply};

const QUERY_LENGTH_MAX: usize = 2048;

/// Enrollments of one kind.
pub(super) fn records(cloud: &Cloud, kind: Kind, call: &Call) -> Result<Reply, Refusal> {
    let body = json_object(call)?;
    let text = body.get("query").and_then(Value::as_str);
    check_text(text.ok_or_else(|| Refusal::bad_request("query is missing"))?)?;
    let switches = cloud.switches();
    let page = Page::read(call, switches.page_size_default).map_err(Refusal::bad_request)?;
    cloud.read(|world| {
        let items = world.records(kind).after(&page.after);
        let show = |(key, record): (&String, &_)| {
            (key.clone(), records::shown(world, kind, record, &switches))
        };
        Ok(page.answer(items.map(show), kind.item_type()))
    })
}

/// Registrations of one group. Python sends no body here.
pub(super) fn registrations(cloud: &Cloud, group: &str, call: &Call) -> Result<Reply, Refusal> {
    if let Some(text) = json_object(call)?.get("query").and_then(Value::as_str) {
        check_text(text)?;
    }
    let page = Page::read(call, cloud.switches().page_size_default);
    let page = page.map_err(Refusal::bad_request)?;
    let group = ids::key(group);
    cloud.read(|world| {
        let of_group = world.registrations.iter().filter(|(key, registration)| {
            let entry = &registration.entry;
            **key > page.after && entry.kind == Kind::Group && entry.key == group
        });
        let items = of_group.map(|(key, own)| (key.clone(), own.shown().into()));
        Ok(page.answer(items, "deviceRegistration"))
    })
}

/// `SELECT *`, with or without `FROM` and a name; `WHERE` is not supported.
fn check_text(text: &str) -> Result<(), Refusal> {
    if text.len() > QUERY_LENGTH_MAX {
        return Err(Refusal::bad_request("the query is too long"));
    }
    let words: Vec<String> = text
        .split_whitespace()
        .map(str::to_ascii_lowercase)
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["select", "*"]
        | [
            "select",
            "*",
            "from",
            "enrollments" | "enrollmentgroups" | "registrations" | "devices",
        ] => Ok(()),
        _ => Err(Refusal::bad_request("the query is not supported")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_texts_in_use_are_known_and_where_is_not() {
        assert!(check_text("SELECT * FROM enrollments").is_ok());
        assert!(check_text("select *").is_ok());
        assert!(check_text("SELECT * FROM enrollments WHERE deviceId = 'a'").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,300}") {
            let _ = check_text(&text);
        }
    }
}

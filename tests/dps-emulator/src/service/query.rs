//! Queries, page by page (contract section 7).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::{json_object, records};
use crate::cloud::Cloud;
use crate::enrollment::Kind;
use crate::ids;
use crate::refusal::Refusal;
use crate::wire::{Call, Reply};

/// Longest query text.
const QUERY_LENGTH_MAX: usize = 2048;
/// Most items on a page.
const PAGE_SIZE_MAX: usize = 1000;

/// Enrollments of one kind.
pub(super) fn records(cloud: &Cloud, kind: Kind, call: &Call) -> Result<Reply, Refusal> {
    let body = json_object(call)?;
    let text = body.get("query").and_then(Value::as_str);
    check_text(text.ok_or_else(|| Refusal::bad_request("query is missing"))?)?;
    let switches = cloud.switches();
    let page = Page::read(call, switches.page_size_default)?;
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
    let page = Page::read(call, cloud.switches().page_size_default)?;
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

/// Which part of the answer a client wants.
#[derive(Debug)]
struct Page {
    /// Items after this key; keys are never empty, so the empty one is before all.
    after: String,
    size: usize,
}

impl Page {
    fn read(call: &Call, size_default: usize) -> Result<Self, Refusal> {
        let size = match call.header("x-ms-max-item-count") {
            None => size_default,
            Some(text) => page_size(text)?,
        };
        let after = match call.header("x-ms-continuation") {
            None | Some("") => String::new(),
            Some(token) => continuation(token)?,
        };
        Ok(Self { after, size })
    }

    /// One page of `items`, and the way to the next one if there is one.
    fn answer(&self, items: impl Iterator<Item = (String, Value)>, item_type: &str) -> Reply {
        let mut page: Vec<(String, Value)> = items.take(self.size + 1).collect();
        let is_last = page.len() <= self.size;
        page.truncate(self.size);
        let next = page
            .last()
            .filter(|_| !is_last)
            .map(|(key, _)| URL_SAFE_NO_PAD.encode(key));
        let values: Vec<Value> = page.into_iter().map(|(_, value)| value).collect();
        let reply = Reply::json(200, values)
            .with("x-ms-item-type", item_type)
            .with("x-ms-max-item-count", self.size.to_string());
        match next {
            Some(token) => reply.with("x-ms-continuation", token),
            None => reply,
        }
    }
}

/// Azure documents no greatest page; a greater wish gets [`PAGE_SIZE_MAX`], as a service would do it.
fn page_size(text: &str) -> Result<usize, Refusal> {
    match text.parse::<usize>() {
        Ok(size) if size > 0 => Ok(size.min(PAGE_SIZE_MAX)),
        _ => Err(Refusal::bad_request(
            "x-ms-max-item-count must be a positive number",
        )),
    }
}

fn continuation(token: &str) -> Result<String, Refusal> {
    let unknown = || Refusal::bad_request("x-ms-continuation is not a token of this service");
    if token.len() > 2 * ids::ID_LENGTH_MAX {
        return Err(unknown());
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| unknown())?;
    String::from_utf8(bytes).map_err(|_| unknown())
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
        fn no_text_makes_the_parsers_panic(text in ".{0,300}") {
            let _ = check_text(&text);
            let _ = page_size(&text);
            let _ = continuation(&text);
        }

        #[test]
        fn pages_give_every_item_once(count in 0usize..40, size in 1usize..12) {
            let items: Vec<String> = (0..count).map(|n| format!("d{n:03}")).collect();
            let mut seen = Vec::new();
            let mut after = String::new();
            loop {
                let page = Page { after: after.clone(), size };
                let rest = items.iter().filter(|key| **key > after);
                let reply = page.answer(rest.map(|key| (key.clone(), Value::from(key.as_str()))), "t");
                let body = reply.body.clone().unwrap();
                seen.extend(body.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()));
                match reply.headers.iter().find(|(name, _)| *name == "x-ms-continuation") {
                    Some((_, token)) => after = continuation(token).unwrap(),
                    None => break,
                }
            }
            prop_assert_eq!(seen, items);
        }
    }
}

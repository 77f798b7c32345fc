//! Shows problem documents: which codes come with which status.

use super::statuses::statuses;
use crate::ca::Code;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const MEDIA_TYPE: &str = "application/problem+json";

/// The code of this name.
fn code(name: &str) -> Option<Code> {
    Code::ALL.iter().find(|it| it.name() == name).copied()
}

/// The names of codes in a text: a word that ends with `_` stands for all that begin with it.
pub(super) fn names(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.split_whitespace().flat_map(|word| {
        let begins = word.ends_with('_');
        let is_meant = move |name: &&str| *name == word || (begins && name.starts_with(word));
        Code::ALL.iter().map(|it| it.name()).filter(is_meant)
    })
}

/// The name of an example among the components.
fn name_of_example(name: &str, status: u16) -> String {
    format!("{name}_{status}")
}

/// A Response Object for each status that these codes come with.
pub(super) fn responses(names: impl Iterator<Item = &'static str>) -> BTreeMap<u16, Value> {
    let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for name in names {
        let code = code(name);
        for status in code.into_iter().flat_map(statuses) {
            by_status.entry(*status).or_default().push(name);
        }
    }
    let of_status = |(status, names): (u16, Vec<&str>)| (status, response(status, &names));
    by_status.into_iter().map(of_status).collect()
}

fn response(status: u16, names: &[&str]) -> Value {
    let reason = StatusCode::from_u16(status).ok();
    let reason = reason.and_then(|it| it.canonical_reason());
    let examples: Map<String, Value> = names
        .iter()
        .map(|name| {
            let path = format!("#/components/examples/{}", name_of_example(name, status));
            ((*name).to_owned(), json!({ "$ref": path }))
        })
        .collect();
    let mut response = json!({
        "description": reason.unwrap_or_default(),
        "content": {
            MEDIA_TYPE: {
                "schema": {
                    "$ref": "#/components/schemas/Problem",
                    "properties": { "code": { "enum": names }, "status": { "const": status } },
                },
                "examples": examples,
            },
        },
    });
    if let Some((header, about)) = header(status) {
        let header_object = json!({ "description": about, "schema": { "type": "string" } });
        response["headers"] = json!({ header: header_object });
    }
    response
}

/// The header that says more than the problem.
fn header(status: u16) -> Option<(&'static str, &'static str)> {
    match status {
        401 => Some((
            "WWW-Authenticate",
            "How to authenticate: by a client certificate, or Basic.",
        )),
        503 => Some((
            "Retry-After",
            "After how many seconds to send the request again.",
        )),
        _ => None,
    }
}

/// The member `components/examples`: each of these codes, with each status.
pub(super) fn examples(names: &[&str]) -> Value {
    let mut examples = Map::new();
    for (name, code) in names.iter().filter_map(|name| Some((name, code(name)?))) {
        for status in statuses(code) {
            let reason = StatusCode::from_u16(*status).ok();
            let example = json!({
                "type": format!("urn:hallmark:problem:{name}"),
                "title": reason.and_then(|it| it.canonical_reason()),
                "status": status,
                "code": name,
                "detail": "Says what is concerned, and what to do.",
            });
            let name = name_of_example(name, *status);
            examples.insert(name, json!({ "value": example }));
        }
    }
    Value::Object(examples)
}

/// Whether this is the name of a code.
#[cfg(test)]
pub(super) fn names_one(name: &str) -> bool {
    code(name).is_some()
}

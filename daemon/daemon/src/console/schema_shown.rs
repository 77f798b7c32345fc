//! Puts JSON Schemas of the API into words: the members of a type, and of what kind each is.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The values of a list of names that are shown; more are counted.
const VALUES_SHOWN_MAX: usize = 12;

/// A member of a type, a parameter, or a header.
#[derive(Debug, Default)]
pub(super) struct Member {
    pub(super) name: String,
    /// Of a parameter: path, query or header.
    pub(super) place: String,
    pub(super) kind: String,
    pub(super) is_required: bool,
    pub(super) about: String,
    pub(super) example: String,
}

/// A type that bodies or answers refer to.
pub(super) struct TypeShown {
    pub(super) name: String,
    pub(super) about: String,
    pub(super) kind: String,
    pub(super) members: Vec<Member>,
}

impl Member {
    pub(super) fn new(name: &str, schema: &Value, is_required: bool) -> Self {
        Self {
            name: name.to_owned(),
            kind: kind(schema),
            is_required,
            about: about(schema),
            ..Self::default()
        }
    }
}

/// The members of an object, also of each form that it may have.
pub(super) fn members(schema: &Value) -> Vec<Member> {
    let required = schema["required"].as_array();
    let is_required = |name: &str| required.is_some_and(|it| it.iter().any(|it| it == name));
    let own = schema["properties"].as_object().into_iter().flatten();
    let mut all: Vec<Member> = own
        .map(|(name, schema)| Member::new(name, schema, is_required(name)))
        .collect();
    for form in forms(schema) {
        for member in members(form) {
            match all.iter_mut().find(|it| it.name == member.name) {
                Some(known) if known.kind != member.kind => {
                    known.kind = format!("{} or {}", known.kind, member.kind);
                }
                Some(_) => {}
                None => all.push(member),
            }
        }
    }
    all
}

/// The schemas of which one holds, or all.
fn forms(schema: &Value) -> impl Iterator<Item = &Value> {
    ["anyOf", "oneOf", "allOf"]
        .into_iter()
        .flat_map(|name| schema[name].as_array().into_iter().flatten())
}

/// Of what kind a value is, in words.
pub(super) fn kind(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return reference.rsplit('/').next().unwrap_or_default().to_owned();
    }
    let values = values(schema);
    if !values.is_empty() {
        return list_of_values(&values);
    }
    let mut kinds: Vec<String> = forms(schema).map(kind).collect();
    let types = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        Value::String(only) => vec![only.as_str()],
        _ => Vec::new(),
    };
    kinds.extend(types.into_iter().map(|name| match name {
        "array" => match &schema["items"] {
            Value::Null => "list".to_owned(),
            items => format!("list of {}", kind(items)),
        },
        "object" if schema["additionalProperties"].is_object() => {
            format!("object of {}", kind(&schema["additionalProperties"]))
        }
        other => other.to_owned(),
    }));
    kinds.dedup();
    if kinds.is_empty() {
        return "anything".to_owned();
    }
    kinds.join(" or ")
}

/// The only values that a schema permits, if it lists them.
fn values(schema: &Value) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if let Some(only) = schema.get("const") {
        return vec![text(only)];
    }
    if let Some(all) = schema["enum"].as_array() {
        return all.iter().map(text).collect();
    }
    let forms: Vec<_> = forms(schema).map(values).collect();
    if forms.iter().any(Vec::is_empty) {
        return Vec::new();
    }
    forms.concat()
}

fn list_of_values(values: &[String]) -> String {
    let shown = values.len().min(VALUES_SHOWN_MAX);
    let list = values[..shown].join(", ");
    match values.len() - shown {
        0 => list,
        more => format!("{list} and {more} more"),
    }
}

fn about(schema: &Value) -> String {
    let about = schema["description"].as_str().unwrap_or_default();
    about.replace('\n', " ")
}

/// The names of the types that a part of the document refers to.
pub(super) fn referenced(part: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    match part {
        Value::Object(members) => {
            let reference = members.get("$ref").and_then(Value::as_str);
            let name = reference.and_then(|it| it.strip_prefix("#/components/schemas/"));
            names.extend(name.map(str::to_owned));
            names.extend(members.values().flat_map(referenced));
        }
        Value::Array(items) => names.extend(items.iter().flat_map(referenced)),
        _ => {}
    }
    names
}

/// These types and all that they refer to, by name.
pub(super) fn types(all: &Map<String, Value>, wanted: BTreeSet<String>) -> Vec<TypeShown> {
    let mut known = BTreeSet::new();
    let mut open = wanted;
    while let Some(name) = open.pop_first() {
        if let Some(schema) = all.get(&name)
            && known.insert(name)
        {
            open.extend(referenced(schema).difference(&known).cloned());
        }
    }
    let types = known.into_iter().filter_map(|name| {
        let schema = all.get(&name)?;
        Some(TypeShown {
            about: about(schema),
            kind: kind(schema),
            members: members(schema),
            name,
        })
    });
    types.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds_are_in_words() {
        for (schema, words) in [
            (json!({ "type": ["string", "null"] }), "string or null"),
            (
                json!({ "type": "array", "items": { "$ref": "#/a/Roll" } }),
                "list of Roll",
            ),
            (
                json!({ "anyOf": [{ "$ref": "#/a/Hub" }, { "type": "null" }] }),
                "Hub or null",
            ),
            (
                json!({ "oneOf": [{ "const": "a" }, { "enum": ["b", "c"] }] }),
                "a, b, c",
            ),
            (
                json!({ "type": "object", "additionalProperties": { "type": "integer" } }),
                "object of integer",
            ),
            (json!(true), "anything"),
        ] {
            assert_eq!(kind(&schema), words, "{schema}");
        }
    }

    #[test]
    fn a_type_brings_those_that_it_refers_to() {
        let all = json!({
            "A": { "properties": { "b": { "$ref": "#/components/schemas/B" } }, "required": ["b"] },
            "B": { "properties": { "a": { "$ref": "#/components/schemas/A" } } },
            "C": {},
        });
        let shown = types(all.as_object().unwrap(), BTreeSet::from(["A".to_owned()]));
        let names: Vec<_> = shown.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["A", "B"]);
        assert!(shown[0].members[0].is_required);
        assert!(!shown[1].members[0].is_required);
    }
}

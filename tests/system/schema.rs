//! Judges values by the schemas of an OpenAPI document (JSON Schema 2020-12), as far as ours use
//! it. A keyword that is not known here is a fault, so that none is passed over.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Keywords that say nothing about a value, or nothing that a test needs.
const ANNOTATIONS: [&str; 5] = ["title", "description", "default", "format", "examples"];

/// The faults of a value, each with its place. An object may have no member that its schema does
/// not name, though JSON Schema lets it: so an example that has a member of an earlier version is
/// found.
pub(crate) fn faults(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let judge = Judge { document };
    judge.whole(schema, value, "", &mut faults);
    faults
}

struct Judge<'a> {
    document: &'a Value,
}

impl Judge<'_> {
    /// Judges a value, and that all its members are named.
    fn whole(&self, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        self.part(schema, value, at, faults);
        let Some(members) = value.as_object() else {
            return;
        };
        let mut named = BTreeSet::new();
        if self.names(schema, &mut named) {
            let others = members.keys().filter(|it| !named.contains(it.as_str()));
            faults.extend(others.map(|it| format!("{at}/{it}: the schema does not name it")));
        }
    }

    /// Collects the members that a schema names. Returns false if it permits others.
    fn names<'s>(&'s self, schema: &'s Value, named: &mut BTreeSet<&'s str>) -> bool {
        let Some(keywords) = schema.as_object() else {
            return false;
        };
        if keywords
            .get("additionalProperties")
            .is_some_and(|it| *it != false)
        {
            return false;
        }
        let mut names_some = false;
        if let Some(members) = keywords.get("properties").and_then(Value::as_object) {
            named.extend(members.keys().map(String::as_str));
            names_some = true;
        }
        if let Some(reference) = keywords.get("$ref") {
            names_some |= self.names(self.referenced(reference), named);
        }
        for keyword in ["allOf", "anyOf", "oneOf"] {
            for schema in keywords
                .get(keyword)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                names_some |= self.names(schema, named);
            }
        }
        names_some
    }

    fn referenced(&self, reference: &Value) -> &Value {
        let pointer = reference.as_str().unwrap().trim_start_matches('#');
        let found = self.document.pointer(pointer);
        found.unwrap_or_else(|| panic!("{pointer}"))
    }

    fn part(&self, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        let keywords = match schema {
            Value::Bool(true) => return,
            Value::Object(keywords) => keywords,
            _ => return faults.push(format!("{at}: nothing is permitted here")),
        };
        for (keyword, said) in keywords {
            match keyword.as_str() {
                "$ref" => self.part(self.referenced(said), value, at, faults),
                "allOf" => {
                    for schema in said.as_array().unwrap() {
                        self.part(schema, value, at, faults);
                    }
                }
                "anyOf" | "oneOf" => self.one_of(said.as_array().unwrap(), value, at, faults),
                "properties" => self.members(said, value, at, faults),
                "prefixItems" => {
                    let items = value.as_array().into_iter().flatten();
                    for (index, (schema, item)) in
                        said.as_array().unwrap().iter().zip(items).enumerate()
                    {
                        self.whole(schema, item, &format!("{at}/{index}"), faults);
                    }
                }
                "items" => self.items(keywords, said, value, at, faults),
                "additionalProperties" => self.others(keywords, said, value, at, faults),
                it if ANNOTATIONS.contains(&it) => {}
                _ => {
                    if let Some(fault) = alone(keyword, said, value) {
                        faults.push(format!("{at}: {fault}: {value}"));
                    }
                }
            }
        }
    }

    fn one_of(&self, schemas: &[Value], value: &Value, at: &str, faults: &mut Vec<String>) {
        let judged = schemas.iter().map(|schema| {
            let mut faults = Vec::new();
            self.part(schema, value, at, &mut faults);
            faults
        });
        let nearest = judged.min_by_key(Vec::len);
        faults.extend(nearest.unwrap_or_default());
    }

    fn members(&self, schemas: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        for (name, schema) in schemas.as_object().unwrap() {
            if let Some(member) = value.get(name) {
                self.whole(schema, member, &format!("{at}/{name}"), faults);
            }
        }
    }

    fn items(
        &self,
        keywords: &Map<String, Value>,
        schema: &Value,
        value: &Value,
        at: &str,
        faults: &mut Vec<String>,
    ) {
        let first = keywords.get("prefixItems").and_then(Value::as_array);
        let first = first.map_or(0, Vec::len);
        let items = value.as_array().into_iter().flatten();
        for (index, item) in items.enumerate().skip(first) {
            self.whole(schema, item, &format!("{at}/{index}"), faults);
        }
    }

    fn others(
        &self,
        keywords: &Map<String, Value>,
        schema: &Value,
        value: &Value,
        at: &str,
        faults: &mut Vec<String>,
    ) {
        let own = keywords.get("properties");
        for (name, member) in value.as_object().into_iter().flatten() {
            if own.is_none_or(|it| it.get(name).is_none()) {
                self.whole(schema, member, &format!("{at}/{name}"), faults);
            }
        }
    }
}

/// Judges a keyword that needs no other schema.
fn alone(keyword: &str, said: &Value, value: &Value) -> Option<String> {
    let length = value.as_str().map(|it| it.chars().count() as f64);
    let count = value.as_array().map(|it| it.len() as f64);
    let limit = said.as_f64().unwrap_or_default();
    let is_good = match keyword {
        "type" => match said {
            Value::Array(types) => types.iter().any(|it| has_type(it, value)),
            one => has_type(one, value),
        },
        "enum" => said.as_array()?.contains(value),
        "const" => said == value,
        "required" => {
            let mut names = said.as_array()?.iter().filter_map(Value::as_str);
            !value.is_object() || names.all(|it| value.get(it).is_some())
        }
        "minimum" => value.as_f64().is_none_or(|it| it >= limit),
        "maximum" => value.as_f64().is_none_or(|it| it <= limit),
        "minLength" => length.is_none_or(|it| it >= limit),
        "maxLength" => length.is_none_or(|it| it <= limit),
        "minItems" => count.is_none_or(|it| it >= limit),
        "maxItems" => count.is_none_or(|it| it <= limit),
        _ => return Some(format!("the keyword {keyword} is not judged yet")),
    };
    (!is_good).then(|| format!("{keyword} {said}"))
}

fn has_type(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        _ => value.is_object(),
    }
}

#[cfg(test)]
mod tests {
    use super::faults;
    use serde_json::{Value, json};

    fn document() -> Value {
        json!({ "schemas": {
            "Name": { "type": "string", "minLength": 2 },
            "Pair": {
                "type": "object",
                "properties": { "name": { "$ref": "#/schemas/Name" }, "more": true },
                "required": ["name"],
                "anyOf": [
                    { "properties": { "count": { "type": ["integer", "null"] } } },
                    { "properties": { "kind": { "enum": ["a", "b"] } }, "required": ["kind"] },
                ],
            },
        } })
    }

    /// Verifies that each kind of difference is a fault, and a good value none.
    #[test]
    fn each_difference_is_a_fault() {
        let document = document();
        let schema = json!({ "type": "array", "items": { "$ref": "#/schemas/Pair" } });
        let judged = |item: Value| faults(&document, &schema, &json!([item]));
        let good = json!({ "name": "ab", "count": 1, "more": { "x": 1 } });
        assert_eq!(judged(good), Vec::<String>::new());
        for (bad, at) in [
            (json!({}), "/0: required"),
            (json!({ "name": "a" }), "/0/name: minLength"),
            (json!({ "name": 7 }), "/0/name: type"),
            (
                json!({ "name": "ab", "nmae": 1 }),
                "/0/nmae: the schema does not name it",
            ),
            (json!({ "name": "ab", "count": "1", "kind": "c" }), "/0/"),
        ] {
            let found = judged(bad.clone());
            assert!(
                found.iter().any(|it| it.starts_with(at)),
                "{bad}: {found:?}"
            );
        }
        let unknown = json!({ "contains": { "type": "string" } });
        assert!(faults(&document, &unknown, &json!([]))[0].contains("not judged yet"));
    }
}

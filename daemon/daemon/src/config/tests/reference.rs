//! Writes docs/configuration.md from the types that read the file: each key with its type, its
//! default and its meaning.

use crate::config::raw::Raw;
use serde_json::Value;
use std::fmt::Write as _;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");

const BEGIN: &str = "# Configuration reference

One TOML file, given by `--config`. Unknown keys are refused, and so are contradictions;
`hallmarkd check --config FILE` says which. A duration is a text such as `\"90d\"` or `\"5m\"`.
[hallmark.toml](hallmark.toml) is a complete example for a factory line,
[gateway.toml](gateway.toml) one for a gateway.

<!-- in the source only -->
This page is written from the types that read the file:
`HALLMARK_WRITE_TABLE=1 cargo nextest run -p hallmark-daemon configuration_reference`.
<!-- end -->
";

/// The schema behind a reference, or the schema itself; of an optional one, that of its value.
fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap();
        return resolved(root, &root["$defs"][name]);
    }
    let variants = schema["anyOf"].as_array();
    let values = variants.map(|all| all.iter().filter(|it| it["type"] != "null"));
    match values.map(Iterator::collect::<Vec<_>>).as_deref() {
        Some([only]) => resolved(root, only),
        _ => schema,
    }
}

/// The type of a member in words, with the words that it may be.
fn kind(root: &Value, schema: &Value) -> String {
    let schema = resolved(root, schema);
    if schema["format"] == "duration" {
        return "duration".into();
    }
    let words = words(root, schema);
    if !words.is_empty() {
        return words.join(", ");
    }
    let of = match &schema["type"] {
        Value::Array(all) => all.iter().find(|it| *it != "null").unwrap_or(&Value::Null),
        one => one,
    };
    match of.as_str() {
        Some("array") => format!("list of: {}", kind(root, &schema["items"])),
        Some("string") => "text".into(),
        Some("boolean") => "`true` or `false`".into(),
        Some("integer" | "number") => "number".into(),
        Some("object") => "table".into(),
        _ if schema["anyOf"].is_array() => "text or table".into(),
        _ => "any".into(),
    }
}

fn words(root: &Value, schema: &Value) -> Vec<String> {
    let of = |it: &Value| {
        let all = it["enum"].as_array().cloned().unwrap_or_default();
        let all = all.into_iter().chain(it.get("const").cloned());
        all.map(|word| format!("`{word}`")).collect::<Vec<_>>()
    };
    let variants = schema["oneOf"].as_array().into_iter().flatten();
    let variants = variants.flat_map(|it| of(resolved(root, it)));
    of(schema).into_iter().chain(variants).collect()
}

/// The first paragraph of a type's or member's comment, without links into the code.
fn meaning(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    let text = text
        .split("\n\n")
        .next()
        .unwrap_or_default()
        .replace('\n', " ");
    let text = text.replace(", in seconds", "").replace('|', "\\|");
    let sentences = text.split_inclusive(". ").filter(|it| !it.contains("[`"));
    sentences.collect::<String>().trim().to_owned()
}

fn default(schema: &Value, is_required: bool) -> String {
    match schema.get("default") {
        _ if is_required => "must be given".into(),
        None | Some(Value::Null) => "none".into(),
        Some(Value::Object(members)) if !members.is_empty() => "see below".into(),
        Some(value) => format!("`{value}`"),
    }
}

/// Writes the table at `path`, then the tables in it.
fn write_table(page: &mut String, root: &Value, path: &str, schema: &Value) {
    let several = resolved(root, schema)["type"] == "array";
    let schema = resolved(root, schema);
    let table = resolved(root, schema.get("items").unwrap_or(schema));
    let heading = match (path, several) {
        ("", _) => "Top of the file".to_owned(),
        (path, true) => format!("`[[{path}]]`"),
        (path, false) => format!("`[{path}]`"),
    };
    let Some(members) = table["properties"].as_object() else {
        return;
    };
    let required = table["required"].as_array().cloned().unwrap_or_default();
    let (tables, plain): (Vec<_>, Vec<_>) = members.iter().partition(|(_, it)| {
        let it = resolved(root, it);
        resolved(root, it.get("items").unwrap_or(it))["properties"].is_object()
    });
    writeln!(page, "\n## {heading}\n").unwrap();
    writeln!(
        page,
        "| key | type | default | meaning |\n|---|---|---|---|"
    )
    .unwrap();
    for (name, member) in plain {
        let is_required = required.iter().any(|it| it == name);
        let own = meaning(member);
        let meaning = if own.is_empty() {
            meaning(resolved(root, member))
        } else {
            own
        };
        assert!(!meaning.is_empty(), "{path} {name} has no comment");
        let kind = kind(root, member);
        let default = default(member, is_required);
        writeln!(page, "| `{name}` | {kind} | {default} | {meaning} |").unwrap();
    }
    for (name, member) in tables {
        let dot = if path.is_empty() { "" } else { "." };
        write_table(page, root, &format!("{path}{dot}{name}"), member);
    }
}

#[test]
fn the_configuration_reference_is_that_of_the_types() {
    let schema = schemars::schema_for!(Raw).to_value();
    let mut page = BEGIN.to_owned();
    write_table(&mut page, &schema, "", &schema);
    if std::env::var_os("HALLMARK_WRITE_TABLE").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(
        written == page,
        "docs/configuration.md is another one; write it as its first section says"
    );
}

//! Compares the document with docs/api.md, whose routes and permissions another test compares with
//! the router, and judges its parts.

use super::operation::Operation;
use super::statuses::statuses;
use super::{described, document};
use crate::ca::Code;
use std::collections::{BTreeMap, BTreeSet};

/// A row of docs/api.md.
struct Row {
    who: String,
    does: String,
    /// The cell with the codes.
    codes: String,
}

/// The rows of docs/api.md, by method and path.
fn rows() -> BTreeMap<(String, String), Row> {
    let page = include_str!("../../../../../docs/api.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.map(|row| {
        let (route, rest) = row.split_once("` | ").unwrap();
        let (method, path) = route.split_once(' ').unwrap();
        let cells: Vec<&str> = rest.trim_end_matches(" |").split(" | ").collect();
        let row = Row {
            who: cells[0].to_owned(),
            does: without_links(cells[1]),
            codes: cells[2].to_owned(),
        };
        ((method.to_lowercase(), path.replace("{*", "{")), row)
    });
    rows.collect()
}

/// `[text](address)` becomes `text`.
fn without_links(text: &str) -> String {
    let mut parts = text.split("](");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (_, rest) = part.split_once(')').unwrap();
        plain.push_str(rest);
    }
    plain.replace('[', "")
}

/// The names between backquotes.
fn names(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Routes of EST also exist with a label, and have one row.
fn key(operation: &Operation) -> (String, String) {
    let path = operation.path().replace("/est/{label}/", "/est/");
    (operation.method.to_owned(), path)
}

/// Verifies that both have the same routes, with the same words, permission and codes. A cell that
/// names codes of other rows is the beginning of a longer list.
#[test]
fn the_page_of_routes_says_the_same() {
    let rows = rows();
    let (operations, _) = described();
    let keys: BTreeSet<_> = operations.iter().map(key).collect();
    let documented: BTreeSet<_> = rows.keys().cloned().collect();
    assert_eq!(keys, documented, "docs/api.md has other routes");
    for operation in &operations {
        let key = key(operation);
        let row = &rows[&key];
        assert_eq!(operation.does, row.does, "{key:?}");
        assert_eq!(operation.access.words(), row.who, "{key:?}");
        let own: BTreeSet<_> = operation.own_codes.iter().copied().collect();
        let is_whole = ["those", "the same", "all of", "each item"];
        let is_whole = !is_whole.iter().any(|words| row.codes.contains(words));
        let named = names(&row.codes);
        let is_code = |it: &&&str| super::problems::names_one(it);
        let known: BTreeSet<_> = named.iter().filter(is_code).copied().collect();
        let codes: BTreeSet<_> = operation.codes().collect();
        assert!(known.is_subset(&codes), "{key:?}: {known:?} {codes:?}");
        assert!(
            !is_whole || own.is_subset(&known),
            "{key:?}: {own:?} {known:?}"
        );
    }
}

/// Verifies that each code has the statuses of the table in docs/operations.md; those below 400 are
/// of members in an answer.
#[test]
fn statuses_are_those_of_the_table_of_codes() {
    let page = include_str!("../../../../../docs/operations.md");
    let (_, table) = page.split_once("\n## Codes of refusals").unwrap();
    let table = table.split("\n## ").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.map(|row| {
        let (name, rest) = row.split_once("` | ").unwrap();
        let statuses = rest.split(" | ").next().unwrap().split(", ");
        let statuses: Vec<u16> = statuses.map(|it| it.parse().unwrap()).collect();
        (name, statuses)
    });
    let rows: BTreeMap<&str, Vec<u16>> = rows.collect();
    for code in Code::ALL {
        let mut documented = rows[code.name()].clone();
        documented.retain(|it| *it >= 400);
        assert_eq!(statuses(*code), documented, "{code}");
    }
}

/// Verifies that no reference leads nowhere, and that each operation has an answer that is no
/// problem, and a name of its own.
#[test]
fn every_reference_has_its_part() {
    let document = serde_json::to_value(document()).unwrap();
    let text = document.to_string();
    let mut found = 0;
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
        found += 1;
    }
    assert!(found > 500, "{found} references");
    let paths = document["paths"].as_object().unwrap();
    let operations = paths
        .values()
        .flat_map(|it| it.as_object().unwrap().values());
    let mut ids = BTreeSet::new();
    for operation in operations {
        let answers = operation["responses"].as_object().unwrap();
        let id = operation["operationId"].as_str().unwrap();
        assert!(answers.keys().any(|it| it < &"400".to_owned()), "{id}");
        assert!(ids.insert(id), "{id}");
    }
    assert!(ids.len() > 70, "{}", ids.len());
}

//! Compares two configurations, for the report of a reload.

use crate::api::reload::{Change, ChangeKind};
use std::collections::{BTreeMap, BTreeSet};
use toml::{Table, Value};

/// Returns every difference, by its names in the file.
pub(super) fn changes(before: &Table, now: &Table) -> Vec<Change> {
    let tables: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let changes = tables.into_iter().flat_map(|table| {
        let before = entries(before.get(table));
        let now = entries(now.get(table));
        let names: BTreeSet<_> = before.keys().chain(now.keys()).copied().collect();
        names
            .into_iter()
            .filter_map(|name| {
                Some(Change {
                    table: table.clone(),
                    name: name.map(str::to_owned),
                    change: change(before.get(&name), now.get(&name))?,
                })
            })
            .collect::<Vec<_>>()
    });
    changes.collect()
}

/// Returns true if the entry `name` of the tables `table` is the same in both.
pub(super) fn is_unchanged(before: &Table, now: &Table, table: &str, name: &str) -> bool {
    let entry = |of: &Table| entries(of.get(table)).get(&Some(name)).copied().cloned();
    entry(before) == entry(now)
}

fn change(before: Option<&&Value>, now: Option<&&Value>) -> Option<ChangeKind> {
    match (before, now) {
        (None, Some(_)) => Some(ChangeKind::Added),
        (Some(_), None) => Some(ChangeKind::Removed),
        (before, now) => (before != now).then_some(ChangeKind::Changed),
    }
}

/// The entries of `[[table]]` by their names, the keys of `[table]`, or the one value of a key.
fn entries(value: Option<&Value>) -> BTreeMap<Option<&str>, &Value> {
    match value {
        None => BTreeMap::new(),
        Some(Value::Array(tables)) => tables
            .iter()
            .map(|table| (table.get("name").and_then(Value::as_str), table))
            .collect(),
        Some(Value::Table(table)) => table
            .iter()
            .map(|(key, value)| (Some(key.as_str()), value))
            .collect(),
        Some(value) => BTreeMap::from([(None, value)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_has_its_name() {
        let before = "state_dir = \"/a\"\n[policy]\ndrift = \"report\"\n\
                      [[profile]]\nname = \"old\"\n[[profile]]\nname = \"same\"\nx = 1\n\
                      [[profile]]\nname = \"other\"\nx = 1\n";
        let now = "state_dir = \"/b\"\n[policy]\nscan_interval = \"1h\"\n\
                   [[profile]]\nname = \"other\"\nx = 2\n[[profile]]\nname = \"same\"\nx = 1\n\
                   [[profile]]\nname = \"new\"\n";
        let read = |text: &str| text.parse::<Table>().unwrap();
        let found: Vec<_> = changes(&read(before), &read(now))
            .into_iter()
            .map(|it| (it.table, it.name.unwrap_or_default(), it.change))
            .collect();
        let found: Vec<_> = found
            .iter()
            .map(|(table, name, change)| (table.as_str(), name.as_str(), *change))
            .collect();
        assert_eq!(
            found,
            [
                ("policy", "drift", ChangeKind::Removed),
                ("policy", "scan_interval", ChangeKind::Added),
                ("profile", "new", ChangeKind::Added),
                ("profile", "old", ChangeKind::Removed),
                ("profile", "other", ChangeKind::Changed),
                ("state_dir", "", ChangeKind::Changed),
            ]
        );
        assert!(is_unchanged(&read(before), &read(now), "profile", "same"));
        assert!(!is_unchanged(&read(before), &read(now), "profile", "other"));
    }
}

//! Compares docs/threats.md with the tests that it names.

use crate::documents::read;
use crate::tree::tree;
use std::collections::BTreeSet;

/// The cells of each row below the line that begins with `head`.
fn rows<'a>(page: &'a str, head: &str) -> Vec<Vec<&'a str>> {
    let mut lines = page.lines().skip_while(|line| !line.starts_with(head));
    lines.next().expect("a table");
    let lines = lines.skip(1).take_while(|line| line.starts_with('|'));
    let cells = lines.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect());
    cells.collect()
}

/// Verifies that every row has an actor of the list and tests that exist, and that every actor has
/// a row.
#[test]
fn every_threat_has_an_actor_and_tests_that_exist() {
    let page = read("docs/threats.md");
    let actors = rows(&page, "| actor | has |");
    let actors: BTreeSet<&str> = actors.iter().map(|row| row[0]).collect();
    let tests = tests();
    let mut broken = Vec::new();
    let mut acting = BTreeSet::new();
    let threats = rows(&page, "| asset | actor |");
    assert!(threats.len() > 50, "{} threats", threats.len());
    for row in &threats {
        let [_, actor, threat, stops, open, named] = row[..] else {
            broken.push(format!("{row:?} has {} cells", row.len()));
            continue;
        };
        acting.insert(actor);
        if [threat, stops, open].iter().any(|cell| cell.is_empty()) {
            broken.push(format!("{threat:?}: an empty cell"));
        }
        let names: Vec<_> = named.split('`').skip(1).step_by(2).collect();
        if names.is_empty() && named != "none" {
            broken.push(format!(
                "{threat:?}: name a test between backquotes, or say `none`"
            ));
        }
        let unknown = names.iter().filter(|name| !tests.contains(**name));
        broken.extend(unknown.map(|name| format!("{threat:?}: there is no test {name}")));
    }
    let other = acting.symmetric_difference(&actors);
    broken.extend(other.map(|actor| format!("{actor:?} is in one of the two tables alone")));
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// The names of all functions that are tests.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for source in tree() {
        let mut after_mark = false;
        for line in source.text.lines().map(str::trim) {
            let name = line.split_once("fn ").map(|it| it.1);
            match name {
                Some(name) if after_mark => {
                    let end = name.find(['(', '<']).unwrap_or(name.len());
                    found.insert(name[..end].to_owned());
                    after_mark = false;
                }
                _ => after_mark |= line.starts_with("#[test]") || line.starts_with("#[tokio::test"),
            }
        }
    }
    assert!(found.len() > 500, "{} tests", found.len());
    found
}

//! Compares the table of cases from the field with its files and its tests.

use crate::tree::{Source, top, tree};
use std::collections::BTreeSet;
use std::fs;

const FOLDER: &str = "tests/cases";

/// The rows, by letter and count.
const ROWS: &[(char, usize)] = &[
    ('A', 4),
    ('B', 5),
    ('C', 8),
    ('D', 4),
    ('E', 11),
    ('F', 5),
    ('G', 4),
];

/// A row of the table: its name, its files and its tests.
struct Case {
    name: String,
    files: Vec<String>,
    tests: Vec<String>,
}

/// Verifies that every row is there with a test, that each test exists, and that each file of the
/// folder is in a row.
#[test]
fn every_case_names_a_test_that_exists() {
    let cases = cases();
    let mut broken = Vec::new();
    let rows = ROWS
        .iter()
        .flat_map(|(letter, count)| (1..=*count).map(move |it| format!("{letter}{it}")));
    for row in rows {
        match cases.iter().find(|it| it.name == row) {
            None => broken.push(format!("there is no row {row}")),
            Some(case) if case.tests.is_empty() => broken.push(format!("{row} names no test")),
            Some(_) => {}
        }
    }
    let sources: Vec<Source> = tree().into_iter().filter(Source::is_rust).collect();
    for case in &cases {
        let missing = case.tests.iter().filter(|it| !exists(&sources, it));
        broken.extend(missing.map(|it| format!("{}: there is no test {it}", case.name)));
    }
    let named: BTreeSet<String> = cases.iter().flat_map(|it| it.files.clone()).collect();
    let files = files();
    broken.extend(
        named
            .difference(&files)
            .map(|it| format!("there is no file {it}")),
    );
    broken.extend(
        files
            .difference(&named)
            .map(|it| format!("no row names {it}")),
    );
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

fn cases() -> Vec<Case> {
    let page = fs::read_to_string(top().join(FOLDER).join("README.md")).expect("the table");
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.split(" |").collect();
        let [name, _, files, tests, ""] = cells[..] else {
            return None;
        };
        let is_row = name.len() > 1 && name[1..].bytes().all(|it| it.is_ascii_digit());
        is_row.then(|| Case {
            name: name.to_owned(),
            files: quoted(files),
            tests: quoted(tests),
        })
    });
    rows.collect()
}

fn quoted(cell: &str) -> Vec<String> {
    let parts = cell.split('`').skip(1).step_by(2);
    parts.map(str::to_owned).collect()
}

/// `module::function`, in a file or folder of that name.
fn exists(sources: &[Source], test: &str) -> bool {
    let Some((module, function)) = test.split_once("::") else {
        return false;
    };
    sources.iter().any(|source| {
        let path = source.path.trim_end_matches(".rs");
        path.rsplit('/').next() == Some(module) && has_test(&source.text, function)
    })
}

/// An attribute of a test is before the function, perhaps with others between.
fn has_test(text: &str, function: &str) -> bool {
    let Some((before, _)) = text.split_once(&format!("fn {function}(")) else {
        return false;
    };
    before
        .lines()
        .rev()
        .take(6)
        .any(|line| line.trim() == "#[test]")
}

fn files() -> BTreeSet<String> {
    let folders = fs::read_dir(top().join(FOLDER)).expect("the folder of cases");
    let folders = folders.map(|it| it.expect("an entry").path());
    let mut files = BTreeSet::new();
    for folder in folders.filter(|it| it.is_dir()) {
        for file in fs::read_dir(folder).expect("a folder") {
            let path = file.expect("a file").path();
            let path = path.strip_prefix(top().join(FOLDER)).expect("is below");
            files.insert(path.display().to_string());
        }
    }
    files
}

//! The table of tokens in docs/operations.md: what each can do, as its test has found.

use hallmarkd::token::contract::{Check, Report, Verdict};
use hallmarkd::x509::key::KeyType;
use std::fs::{self, OpenOptions};
use std::path::Path;

/// Stands before and after the table.
const BEGIN: &str = "<!-- the modules' table: written by their tests -->";
const END: &str = "<!-- end of the modules' table -->";

/// Compares the module's row with what its test has found, or writes it.
pub(crate) fn holds(module: &str, report: &Report) {
    let row = row(module, report);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations.md");
    if std::env::var_os("HALLMARK_WRITE_TABLE").is_some() {
        return write(&page, module, &row);
    }
    let text = fs::read_to_string(&page).unwrap();
    let written = rows(&text).find(|line| is_of(line, module));
    assert_eq!(
        written,
        Some(row.as_str()),
        "docs/operations.md says something else; if it is the page that is wrong: \
         HALLMARK_WRITE_TABLE=1 cargo nextest run -p hallmarkd --test modules --test tpm"
    );
}

fn is_of(row: &str, module: &str) -> bool {
    row.starts_with(&format!("| {module} |"))
}

fn rows(text: &str) -> impl Iterator<Item = &str> {
    let (_, table) = text.split_once(BEGIN).expect("the page has the table");
    let (table, _) = table.split_once(END).expect("the table ends");
    table.lines().filter(|line| line.starts_with('|'))
}

/// Puts the row in place of the module's old one, or at the end. The file is locked: several tests write.
fn write(page: &Path, module: &str, row: &str) {
    let lock = OpenOptions::new().write(true).open(page).unwrap();
    lock.lock().unwrap();
    let text = fs::read_to_string(page).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let mut table: Vec<&str> = rows(&text).collect();
    match table.iter_mut().find(|line| is_of(line, module)) {
        Some(line) => *line = row,
        None => table.push(row),
    }
    // Below the two lines of its head, by name.
    table[2..].sort_unstable();
    let table = table.join("\n");
    fs::write(page, format!("{before}{BEGIN}\n\n{table}\n\n{END}{after}")).unwrap();
}

fn row(module: &str, report: &Report) -> String {
    let keys = KeyType::ALL.map(|key_type| {
        cell(report, |check| {
            // A TPM keeps no ids: its keys are kept outside.
            let besides = ["an id that is taken", "a new key is told to be made"];
            let besides = besides.iter().any(|it| check.operation.starts_with(it));
            check.key_type == Some(key_type) && !besides
        })
    });
    let local = cell(report, |check| {
        check.operation.contains("made on the token")
    });
    let secret = cell(report, |check| check.operation.starts_with("a secret"));
    let assertion = cell(report, |check| check.operation.contains("signs assertions"));
    let cells = keys.into_iter().chain([local, secret, assertion]);
    format!("| {module} | {} |", cells.collect::<Vec<_>>().join(" | "))
}

/// Whether the checks that `of` picks hold. A report that is good has none that failed.
fn cell(report: &Report, of: impl Fn(&Check) -> bool) -> &'static str {
    let mut picked = report.checks.iter().filter(|check| of(check)).peekable();
    assert!(picked.peek().is_some(), "nothing of the kind was checked");
    if picked.all(|check| check.verdict == Verdict::Passed) {
        "yes"
    } else {
        "no"
    }
}

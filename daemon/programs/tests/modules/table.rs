//! Compares or writes the table of tokens in docs/operations.md: what each module can do.

use hallmarkd::token::contract::{Check, Report, Verdict};
use hallmarkd::x509::key::KeyType;
use std::fs::{self, OpenOptions};
use std::path::Path;

/// The lines before and after the table.
const BEGIN: &str = "<!-- the modules' table: written by their tests -->";
const END: &str = "<!-- end of the modules' table -->";

/// Compares the module's row with the report, or writes the row.
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

/// Replaces the module's row, or appends it. Locks the file, because several tests write to it.
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
    // The rows below the two lines of the head are sorted by name.
    table[2..].sort_unstable();
    let table = table.join("\n");
    fs::write(page, format!("{before}{BEGIN}\n\n{table}\n\n{END}{after}")).unwrap();
}

fn row(module: &str, report: &Report) -> String {
    let keys = KeyType::ALL.map(|key_type| {
        let is_tried = report.checks.iter().any(|it| it.key_type == Some(key_type));
        if !is_tried {
            return "no";
        }
        cell(report, |check| {
            // A TPM has no ids: its keys are stored outside.
            let besides = ["an id that is taken", "a new key is reported as made"];
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

/// Returns the cell for the checks that `of` selects. No check has failed in a good report.
fn cell(report: &Report, of: impl Fn(&Check) -> bool) -> &'static str {
    let mut picked = report.checks.iter().filter(|check| of(check)).peekable();
    assert!(picked.peek().is_some(), "nothing of the kind was checked");
    if picked.all(|check| check.verdict == Verdict::Passed) {
        "yes"
    } else {
        "no"
    }
}

//! Checks that files and lines of code are short enough to read.

use crate::tree::tree;

const COLUMNS: usize = 100;
const LINES: usize = 500;

#[test]
fn a_line_of_code_fits_in_100_columns() {
    let mut wide = Vec::new();
    for source in tree().iter().filter(|it| it.is_rust()) {
        let lines = source.numbered_lines();
        let lines = lines.filter(|(_, line)| line.chars().count() > COLUMNS);
        wide.extend(lines.map(|(number, _)| format!("{}:{number}", source.path)));
    }
    assert!(
        wide.is_empty(),
        "more than {COLUMNS} columns:\n{}",
        wide.join("\n")
    );
}

/// A longer file has two subjects: it is split where its meaning is.
#[test]
fn a_file_has_at_most_500_lines() {
    let mut long = Vec::new();
    for source in tree().iter().filter(|it| it.is_rust()) {
        let lines = source.text.lines().count();
        if lines > LINES {
            long.push(format!("{} has {lines} lines", source.path));
        }
    }
    assert!(
        long.is_empty(),
        "more than {LINES}: split by meaning\n{}",
        long.join("\n")
    );
}

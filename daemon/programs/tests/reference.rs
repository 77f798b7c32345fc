//! Compares the table of log messages in docs/operations.md with the source, both ways, and the
//! package's documents with its files.
//!
//! Every `info!`, `warn!` and `error!` of the daemon and of the worker needs a row with its level,
//! cause and remedy. The message is the last string of the call, and holds no value.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const LEVELS: [&str; 3] = ["info", "warn", "error"];
const HEADING: &str = "\n## Log messages\n";

type Logged = (String, String);

#[test]
fn every_log_message_is_in_the_table() {
    let root = workspace();
    let mut logged: BTreeMap<Logged, String> = BTreeMap::new();
    let mut broken = Vec::new();
    for file in sources(&root.join("daemon")) {
        let text = fs::read_to_string(&file).expect("a source file");
        let product = text.split("#[cfg(test)]\nmod tests {").next();
        let place = file.strip_prefix(&root).expect("below the workspace");
        for (line, level, message) in calls(product.unwrap_or_default()) {
            let place = format!("{}:{line}", place.display());
            match message {
                Some(message) if !message.contains('{') => {
                    logged.entry((level, message)).or_insert(place);
                }
                Some(message) => broken.push(format!("{place}: {message:?} holds a value")),
                None => broken.push(format!("{place}: {level}! has no message")),
            }
        }
    }
    let page = fs::read_to_string(root.join("docs/operations.md")).expect("docs/operations.md");
    let documented = documented(&page);
    for ((level, message), place) in &logged {
        if !documented.contains(&(level.clone(), message.clone())) {
            broken.push(format!(
                "{place}: add to docs/operations.md, Log messages: | `{message}` | {level} | … | … \
                 |"
            ));
        }
    }
    for (level, message) in &documented {
        if !logged.contains_key(&(level.clone(), message.clone())) {
            broken.push(format!(
                "docs/operations.md: no {level}! in the source has the message {message:?}"
            ));
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// Verifies that the documents of the package name no file that only the source has.
#[test]
fn documents_of_the_package_name_only_what_it_has() {
    let folder = std::env::temp_dir().join(format!("hallmark-documents-{}", std::process::id()));
    let script = workspace().join("packaging/documents");
    let output = Command::new(script).arg(&folder).output();
    let output = output.expect("the script runs");
    fs::remove_dir_all(&folder).expect("the script has made it");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
}

/// The folder that holds Cargo.lock.
fn workspace() -> PathBuf {
    let mut folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    while !folder.join("Cargo.lock").exists() {
        folder = folder.parent().expect("a workspace");
    }
    folder.to_owned()
}

/// Every Rust file below a `src` folder in `folder` that is not a test.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
    found.retain(|path| {
        let path = path.display().to_string();
        path.contains("/src/") && !path.contains("tests")
    });
    found
}

/// Line, level and message of each call in `text`.
fn calls(text: &str) -> Vec<(usize, String, Option<String>)> {
    let mut found = Vec::new();
    for level in LEVELS {
        let call = format!("{level}!(");
        for (at, _) in text.match_indices(&call) {
            let before = text[..at].lines().last().unwrap_or_default();
            if before.trim_start().starts_with("//") || before.ends_with(char::is_alphanumeric) {
                continue;
            }
            let line = text[..at].matches('\n').count() + 1;
            let message = last_string(&text[at + call.len()..]);
            found.push((line, level.to_owned(), message));
        }
    }
    found
}

/// The last string literal of a call whose opening parenthesis was just read.
fn last_string(arguments: &str) -> Option<String> {
    let (mut depth, mut last) = (1_u32, None);
    let mut rest = arguments.chars();
    while depth > 0 {
        match rest.next()? {
            '(' => depth += 1,
            ')' => depth -= 1,
            '"' => last = Some(string(&mut rest)),
            _ => {}
        }
    }
    last
}

/// The rest of a string literal, joined where a backslash ends the line.
fn string(rest: &mut std::str::Chars<'_>) -> String {
    let mut text = String::new();
    while let Some(it) = rest.next() {
        match it {
            '"' => break,
            '\\' => match rest.next() {
                Some('\n') => {
                    let after = rest.as_str().trim_start();
                    *rest = after.chars();
                }
                escaped => text.extend(escaped),
            },
            it => text.push(it),
        }
    }
    text
}

fn documented(page: &str) -> BTreeSet<Logged> {
    let (_, section) = page.split_once(HEADING).expect("a section Log messages");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.map(|row| {
        let (message, rest) = row.split_once("` | ").expect("a message");
        let (level, rest) = rest.split_once(" | ").expect("a level");
        let cells = rest.trim_end_matches(" |").split(" | ").collect::<Vec<_>>();
        let is_whole = cells.len() == 2 && cells.iter().all(|it| it.len() > 2);
        assert!(
            is_whole,
            "docs/operations.md: {message:?} lacks cause or remedy"
        );
        (level.to_owned(), message.to_owned())
    });
    rows.collect()
}

//! Checks the rules of the tree by reading its text: rows of modules (`rows`), which crate lists
//! which (`crates`), plain words (`prose`), lengths (`size`), documents that name code
//! (`documents`, `threats`), and where code may touch files, terminal and memory (here).

mod cases;
mod crates;
mod cycle;
mod documents;
mod prose;
mod rows;
mod size;
mod threats;
mod tree;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The crates, by the prefix of their files here, and their source folders. The parts that one
/// crate may use of another is in its `Cargo.toml`.
const CRATES: &[(&str, &str)] = &[
    ("", "../daemon/src"),
    ("base/", "../base/src"),
    ("cli/", "../cli/src"),
    ("pki/", "../pki/src"),
    ("programs/", "src"),
    ("protocol/", "../protocol/src"),
    ("worker/", "../worker/src"),
];

/// Files of the store that may name rusqlite: the engine, and what opens, copies and writes the
/// file.
const NAMES_RUSQLITE: &[&str] = &[
    "store/backup.rs",
    "store/engine/",
    "store/inspection.rs",
    "store/mod.rs",
    "store/opening.rs",
    "store/database_file.rs",
    "store/probe.rs",
    "store/unchanged.rs",
    "store/writer.rs",
];

#[test]
fn operations_of_the_store_do_not_name_its_library() {
    for (path, text) in sources() {
        let may = NAMES_RUSQLITE.iter().any(|it| path.starts_with(it));
        if path.starts_with("store/") && !may {
            let line = product_lines(&text).find(|line| line.contains("rusqlite"));
            assert_eq!(line, None, "{path}");
        }
    }
}

#[test]
fn the_domain_has_no_clock_and_no_io() {
    let forbidden = [
        "SystemTime",
        "Instant",
        "now_utc",
        "std::fs",
        "std::io",
        "TcpStream",
        "std::env",
    ];
    for (path, text) in sources() {
        if path.starts_with("pki/") {
            for line in product_lines(&text) {
                let found = forbidden.iter().find(|word| line.contains(**word));
                assert!(found.is_none(), "{path}: {line}");
            }
        }
    }
}

/// Text from outside reaches a terminal through `printable` alone; the log's lines escape it, too.
const PRINTS: &[&str] = &["base/notify/journal.rs", "base/printable.rs"];

#[test]
fn text_is_printed_in_one_place() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        if PRINTS.contains(&path.as_str()) {
            continue;
        }
        let writes = ["stdout()", "stderr()", "println!", "print!"];
        // Questions about the terminal write nothing.
        let asks = ["is_terminal()", "size_checked()"];
        let line = product_lines(&text).find(|line| {
            let has = |words: &[&str]| words.iter().any(|it| line.contains(it));
            has(&writes) && !has(&asks)
        });
        broken.extend(line.map(|line| format!("{path}: {line}")));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Where code may be `unsafe`: the calls of a module that go past cryptoki.
const UNSAFE: &[&str] = &["worker/pkcs11/raw.rs"];

#[test]
fn unsafe_code_is_in_one_place() {
    let unsafe_files: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| text.contains("unsafe_code"))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(unsafe_files, UNSAFE);
}

/// Words that open a file or folder by its path, or change one by its path. Root runs our programs
/// over folders that other users can write, so `files` does all of that, link by link.
const BY_PATH: &[&str] = &[
    "File::open(",
    "File::create",
    "OpenOptions",
    "DirBuilder",
    "NamedTempFile",
    "fs::read(",
    "fs::read_to_string(",
    "fs::write(",
    "fs::copy(",
    "fs::rename(",
    "fs::remove_file(",
    "fs::remove_dir",
    "fs::create_dir",
    "fs::hard_link(",
    "set_permissions(",
    "chown(",
    "chmod(",
    "pem_file",
    "Connection::open(",
    "open_with_flags(",
];

/// Files that may: the module itself; the store, which opens for SQLite with the owner's rights;
/// crash points of the fault tests; and what the kernel shows of this machine.
const MAY_OPEN_BY_PATH: &[(&str, &[&str])] = &[
    ("base/files/mod.rs", &["chown(", "chmod("]),
    ("store/database_file.rs", &["open_with_flags("]),
    ("store/unchanged.rs", &["open_with_flags("]),
    // A socket.
    ("token/client/connection_manager.rs", &["Connection::open("]),
    ("ca/mod.rs", &["fs::write(", "fs::read_to_string("]),
    ("ca/doctor/machine.rs", &["fs::read_to_string("]),
    ("cli/setup/interview.rs", &["fs::read_to_string("]),
];

#[test]
fn files_are_opened_by_path_in_one_module() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let allowed = MAY_OPEN_BY_PATH.iter().find(|(file, _)| *file == path);
        let allowed = allowed.map_or(&[][..], |(_, words)| words);
        for line in product_lines(&text) {
            let mut words = BY_PATH.iter().filter(|word| !allowed.contains(word));
            if let Some(word) = words.find(|word| line.contains(**word)) {
                broken.push(format!("{path}: {word} in {}", line.trim()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn names_say_something_and_nothing_is_left_open() {
    let empty: BTreeSet<_> = [
        "utils", "util", "common", "helpers", "helper", "manager", "misc",
    ]
    .into();
    for (path, text) in sources() {
        assert!(
            path.split(['/', '.']).all(|part| !empty.contains(part)),
            "{path} says nothing"
        );
        for word in ["TODO", "FIXME", "XXX"] {
            assert!(!text.contains(word), "{path} holds a {word}");
        }
        assert!(
            text.starts_with("//!"),
            "{path} does not say what it is for"
        );
    }
}

/// Everything before the tests, without comments: tests may know more.
fn product_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default()
        .lines()
        .filter(|line| {
            let line = line.trim_start();
            !line.starts_with("//")
        })
}

/// Every source file that is not a test, by its path below its crate's source folder.
fn sources() -> Vec<(String, String)> {
    let is_test = |path: &str| {
        path.contains("tests") || path.contains("properties") || path.contains("scripted_server")
    };
    let of_crate = |(prefix, folder): &(&str, &str)| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut files = Vec::new();
        collect(&root, &mut files);
        let named = files.into_iter().map(|path| {
            let relative = path.strip_prefix(&root).expect("below the folder");
            let name = format!("{prefix}{}", relative.display());
            (name, fs::read_to_string(&path).expect("a source file"))
        });
        named.filter(|(path, _)| !is_test(path)).collect::<Vec<_>>()
    };
    CRATES.iter().flat_map(of_crate).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a source folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|it| it == "rs") {
            files.push(path);
        }
    }
}

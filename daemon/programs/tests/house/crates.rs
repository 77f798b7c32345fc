//! Checks which crates of ours may list which others, by reading each `Cargo.toml`.

use crate::tree::top;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use toml::Table;

/// Libraries that load or talk to a token.
const TOKEN_LIBRARIES: &[&str] = &["cryptoki", "cryptoki-sys", "tss-esapi"];

/// The crate that alone may list [`TOKEN_LIBRARIES`], and the package of the programs, of which
/// `hallmark-token` links it.
const WORKER: &str = "hallmark-worker";
const PROGRAMS: &str = "hallmarkd";

/// The folders of the product's crates, below the top folder.
const FOLDERS: &[&str] = &[
    "daemon/base",
    "daemon/cli",
    "daemon/daemon",
    "daemon/pki",
    "daemon/programs",
    "daemon/protocol",
    "daemon/worker",
];

/// Returns what each crate of the product lists, without what only its tests use.
fn listed() -> BTreeMap<String, BTreeSet<String>> {
    let of_folder = |folder: &&str| {
        let file = top().join(folder).join("Cargo.toml");
        let manifest = fs::read_to_string(&file).expect("a Cargo.toml");
        let manifest: Table = manifest.parse().expect("TOML");
        let name = manifest["package"]["name"].as_str().expect("a name");
        let mut listed = BTreeSet::new();
        for kind in ["dependencies", "build-dependencies"] {
            let table = manifest.get(kind).and_then(|it| it.as_table());
            listed.extend(table.into_iter().flat_map(|it| it.keys().cloned()));
        }
        assert!(manifest.get("target").is_none(), "{name}: list it plainly");
        (name.to_owned(), listed)
    };
    FOLDERS.iter().map(of_folder).collect()
}

#[test]
fn the_worker_alone_lists_token_libraries() {
    for (name, listed) in listed() {
        let found = TOKEN_LIBRARIES.iter().filter(|it| listed.contains(**it));
        let found: Vec<_> = found.collect();
        assert_eq!(found.is_empty(), name != WORKER, "{name} lists {found:?}");
        let may_list_worker = name == PROGRAMS;
        assert_eq!(listed.contains(WORKER), may_list_worker, "{name}");
    }
}

/// Each crate lists only crates that are named before it here, so there is no way around.
#[test]
fn crates_list_only_crates_below_them() {
    let order = [
        "hallmark-pki",
        "hallmark-base",
        "hallmark-protocol",
        "hallmark-worker",
        "hallmark-daemon",
        "hallmark-cli",
        PROGRAMS,
    ];
    let listed = listed();
    assert_eq!(listed.len(), order.len(), "a crate is missing here");
    for (at, name) in order.iter().enumerate() {
        for above in &order[at..] {
            assert!(!listed[*name].contains(*above), "{name} lists {above}");
        }
    }
}

/// Where other programs of the package could link the worker.
#[test]
fn one_program_links_the_worker() {
    let sources = top().join("daemon/programs/src");
    let text = |file: &str| fs::read_to_string(sources.join(file)).expect("a program");
    let worker = "hallmark_worker";
    assert!(text("bin/hallmark-token.rs").contains(worker));
    assert!(!text("bin/hallmark.rs").contains(worker));
    assert!(!text("main.rs").contains(worker));
}

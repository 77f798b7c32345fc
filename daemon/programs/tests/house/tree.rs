//! Reads the files of the tree that hold prose: sources, documents, scripts and units.

use std::fs;
use std::path::{Path, PathBuf};

/// A text file, by its path below the top folder.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Folders whose text is ours, and files beside them.
const OURS: &[&str] = &[
    "daemon",
    "docs",
    "packaging",
    "pkcs11-config",
    "softhsm-setup",
    "systemd",
    "tests",
    "README.md",
    "Cargo.toml",
    "deny.toml",
];

/// Folders that other programs fill.
const FOREIGN: &[&str] = &["target", "node_modules", ".git"];

impl Source {
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Returns true for code that ships: neither tests nor their tools.
    pub(crate) fn is_product(&self) -> bool {
        let is_test = |part: &str| {
            matches!(
                part,
                "tests" | "tests.rs" | "properties" | "scripted_server.rs"
            )
        };
        self.is_rust()
            && self.path.starts_with("daemon/")
            && !self.path.split('/').any(is_test)
            && !self.path.ends_with("_tests.rs")
    }

    pub(crate) fn numbered_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }

    /// The lines of code that ship, without comments and without the tests at the end of a file.
    pub(crate) fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let code = self.text.split("#[cfg(test)]\nmod tests").next();
        let code = code.filter(|_| self.is_product()).unwrap_or_default();
        let lines = (1..).zip(code.lines());
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The prose of one line: the text of a comment, or the line of a document.
    pub(crate) fn prose_of<'a>(&self, line: &'a str) -> Option<&'a str> {
        if self.path.ends_with(".md") {
            return Some(line);
        }
        let line = line.trim_start();
        if self.path.ends_with(".rs") || self.path.ends_with(".js") {
            let text = line.strip_prefix("//")?;
            return Some(text.trim_start_matches(['/', '!']));
        }
        if self.path.ends_with(".toml") && !line.starts_with('#') {
            return line.split_once(" # ").map(|(_, comment)| comment);
        }
        line.strip_prefix('#').filter(|text| !text.starts_with('!'))
    }
}

/// All files of ours.
pub(crate) fn tree() -> Vec<Source> {
    let top = top();
    let mut paths = Vec::new();
    for name in OURS {
        collect(&top.join(name), &mut paths);
    }
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).ok()?;
        let path = path.strip_prefix(&top).expect("below the top folder");
        let path = path.display().to_string();
        Some(Source { path, text })
    };
    paths.into_iter().filter_map(read).collect()
}

/// The folder of the workspace.
pub(crate) fn top() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let top = here.ancestors().find(|it| it.join("Cargo.lock").exists());
    top.expect("a workspace").to_path_buf()
}

fn collect(path: &Path, paths: &mut Vec<PathBuf>) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if FOREIGN.contains(&&*name) {
        return;
    }
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder of ours") {
            collect(&entry.expect("an entry").path(), paths);
        }
    } else if holds_prose(path, &name) {
        paths.push(path.to_path_buf());
    }
}

/// Sources, documents, settings and units, and scripts, which have no extension.
fn holds_prose(path: &Path, name: &str) -> bool {
    match path.extension() {
        None => name != "LICENSE",
        Some(extension) => {
            let extension = extension.to_string_lossy();
            matches!(
                &*extension,
                "rs" | "md" | "toml" | "service" | "socket" | "timer" | "conf" | "js" | "py"
            )
        }
    }
}

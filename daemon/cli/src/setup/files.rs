//! Writes files atomically, and never over a file that setup has not written.
//!
//! Each file begins with the digest of the rest. By that digest setup recognises its own unchanged
//! files, which it may replace, and needs no record of them.

use super::ANSWERS;
use super::plan::{Plan, PlannedFile};
use anyhow::{Context, bail};
use aws_lc_rs::digest::{SHA256, digest};
use hallmark_base::files;
use hallmark_base::files::atomic;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The first line of a file that setup writes; a digest ends it.
const MARK: &str = "# Written by `hallmark setup`, which replaces it while its SHA-256 is ";

/// Longest file that setup reads.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The result of writing a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// The file is new or was replaced.
    New,
    /// The file existed with this content.
    There,
    /// An operator has changed the file since setup wrote it, and setup would write the same again.
    Edited,
}

/// The root of the files: `/`, or a folder that becomes another machine's root.
#[derive(Clone, Debug)]
pub(super) struct Root(PathBuf);

impl Root {
    pub(super) fn new(folder: Option<&Path>) -> Self {
        Self(folder.unwrap_or(Path::new("/")).to_owned())
    }

    /// Returns the place of the absolute `path` below the root.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Fails if a planned file or link exists and is not setup's, before anything is written.
    pub(super) fn check(&self, plan: &Plan) -> anyhow::Result<()> {
        for file in &plan.files {
            let path = self.path(&file.path);
            let Some(text) = read(&path)? else { continue };
            let is_accepted = is_ours(&text) || is_edited(&text, &file.text);
            if is_accepted {
                continue;
            }
            if text.starts_with(MARK) {
                bail!(
                    "{} was changed since setup wrote it, and so were the answers: make the change \
                     of the answers there by hand and take it back in {ANSWERS}; or move it \
                     away, and run setup again",
                    path.display()
                );
            }
            bail!(
                "{} was not written by setup: move it away, or remove it, and run setup again",
                path.display()
            );
        }
        for (link, _) in &plan.links {
            let path = self.path(link);
            if fs::symlink_metadata(&path).is_ok_and(|it| !it.is_symlink()) {
                bail!(
                    "{} is in the way of a link that setup makes: move it away, and run setup \
                     again",
                    path.display()
                );
            }
        }
        Ok(())
    }

    /// Writes a planned file.
    pub(super) fn write(&self, file: &PlannedFile) -> anyhow::Result<Written> {
        let path = self.path(&file.path);
        let text = marked(&file.text);
        match read(&path)? {
            Some(found) if found == text => return Ok(Written::There),
            Some(found) if !is_ours(&found) && is_edited(&found, &file.text) => {
                return Ok(Written::Edited);
            }
            _ => {}
        }
        put(&path, text.as_bytes(), 0o644)?;
        Ok(Written::New)
    }

    /// Makes a link, and replaces a link that leads elsewhere.
    pub(super) fn link(&self, (link, target): &(PathBuf, PathBuf)) -> anyhow::Result<Written> {
        let path = self.path(link);
        if fs::read_link(&path).is_ok_and(|it| it == *target) {
            return Ok(Written::There);
        }
        make_folder_of(&path)?;
        let beside = atomic::temporary_path(&path);
        atomic::remove(&beside)
            .and_then(|()| symlink(target, &beside))
            .and_then(|()| files::rename(&beside, &path))
            .and_then(|()| atomic::sync_folder(&path))
            .with_context(|| format!("cannot link {}", path.display()))?;
        Ok(Written::New)
    }
}

/// Returns the text with its first line.
pub(super) fn marked(text: &str) -> String {
    let sum = hex::encode(digest(&SHA256, text.as_bytes()));
    format!("{MARK}{sum}\n{text}")
}

fn is_ours(text: &str) -> bool {
    let rest = text.split_once('\n').map(|(_, rest)| rest);
    rest.is_some_and(|rest| text == marked(rest))
}

/// Returns true if setup wrote the file from the same answers, whatever was changed since.
fn is_edited(text: &str, planned: &str) -> bool {
    text.lines().next() == marked(planned).lines().next()
}

/// Reads a file, if it exists.
pub(super) fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match files::read_text(path, FILE_BYTES_MAX) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Replaces a file atomically and durably.
pub(super) fn put(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    make_folder_of(path)?;
    atomic::write(path, content, mode).with_context(|| format!("cannot write {}", path.display()))
}

fn make_folder_of(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    files::make_folder(folder, 0o755).with_context(|| format!("cannot make {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::super::answers::{Answers, CredentialStore};
    use super::*;
    use std::collections::BTreeMap;

    fn planned() -> Plan {
        let answers = include_str!("../../../../docs/setup-answers.toml");
        let answers = Answers::parse(answers).expect("it ships");
        super::super::plan::plan(&answers, CredentialStore::Encrypted).expect("it ships")
    }

    fn apply(root: &Root, plan: &Plan) -> Vec<Written> {
        root.check(plan).expect("only setup has written here");
        let files = plan.files.iter().map(|it| root.write(it));
        let links = plan.links.iter().map(|it| root.link(it));
        files
            .chain(links)
            .map(|it| it.expect("it can be written"))
            .collect()
    }

    fn tree(folder: &Path) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(folder).expect("it was made") {
            let path = entry.expect("it is readable").path();
            if path.is_dir() {
                found.extend(tree(&path));
            } else if let Ok(target) = fs::read_link(&path) {
                found.insert(path, target.display().to_string());
            } else {
                let text = fs::read_to_string(&path).expect("it is text");
                found.insert(path, text);
            }
        }
        found
    }

    /// Setup that is stopped anywhere and run again leaves the same tree.
    #[test]
    fn whatever_was_done_before_the_tree_is_the_same() {
        let plan = planned();
        let folder = tempfile::tempdir().expect("a scratch folder");
        let whole = Root::new(Some(folder.path()));
        let is = |all: Vec<Written>, how| assert!(all.iter().all(|it| *it == how), "{all:?}");
        is(apply(&whole, &plan), Written::New);
        let good = tree(folder.path());
        is(apply(&whole, &plan), Written::There);
        for done in 0..plan.files.len() {
            let again = tempfile::tempdir().expect("a scratch folder");
            let root = Root::new(Some(again.path()));
            for file in &plan.files[..done] {
                root.write(file).expect("it can be written");
            }
            let next = root.path(&plan.files[done].path);
            put(&atomic::temporary_path(&next), b"half of i", 0o600).expect("it can be written");
            apply(&root, &plan);
            let moved = tree(again.path()).into_iter().map(|(path, text)| {
                let path = path.strip_prefix(again.path()).expect("it lies below");
                (folder.path().join(path), text)
            });
            assert_eq!(moved.collect::<BTreeMap<_, _>>(), good, "after {done}");
        }
    }

    /// Other answers replace setup's files. A file that an operator changed stays; if the answers
    /// have changed, too, it stops setup.
    #[test]
    fn a_file_is_replaced_while_it_is_ours() {
        let mut plan = planned();
        let folder = tempfile::tempdir().expect("a scratch folder");
        let root = Root::new(Some(folder.path()));
        apply(&root, &plan);
        plan.files[0].text.push_str("# more\n");
        assert_eq!(apply(&root, &plan)[0], Written::New);
        let path = root.path(&plan.files[0].path);
        let ours = fs::read_to_string(&path).expect("it is there");
        let edited = ours.replace("# more", "# mine");
        fs::write(&path, &edited).expect("it can be written");
        assert_eq!(apply(&root, &plan)[0], Written::Edited);
        assert_eq!(fs::read_to_string(&path).expect("it is there"), edited);
        plan.files[0].text.push_str("# other answers\n");
        for theirs in [edited, "mine\n".into(), String::new()] {
            fs::write(&path, &theirs).expect("it can be written");
            let refusal = root.check(&plan).expect_err("it is not ours").to_string();
            assert!(refusal.contains("move it away"), "{refusal}");
            assert_eq!(fs::read_to_string(&path).expect("it is there"), theirs);
        }
    }
}

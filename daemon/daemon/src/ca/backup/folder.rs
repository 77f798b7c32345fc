//! Lists the backups of a folder, and removes the files that interrupted backups left in it.
//!
//! The daemon knows its own files by name and owner. It removes no other file, and no link: an
//! operator may keep files beside the backups.

use super::{manifest_beside, time_of_name};
use crate::files;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The kind of a file of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The copy of the database.
    Copy,
    /// The manifest of a copy.
    Manifest,
    /// A part that a complete backup does not have: an unfinished copy, a log of SQLite's beside
    /// it, or an unfinished manifest.
    Unfinished,
}

impl Kind {
    /// Returns the kind of a file of ours; `None` for every other name.
    fn of(name: &OsStr) -> Option<Self> {
        let (_, extension) = time_of_name(name.to_str()?)?;
        match extension {
            "db" | "db.age" => Some(Kind::Copy),
            "json" => Some(Kind::Manifest),
            "partial" | "partial-journal" | "partial-wal" | "partial-shm" | "partial-age"
            | "json.new" | "db.new" | "db.age.new" => Some(Kind::Unfinished),
            _ => None,
        }
    }
}

/// Returns the backups of `folder`, oldest first. Other files are left out, whatever their names.
pub(super) fn backups(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut copies = files_of(folder, Kind::Copy)?;
    copies.sort();
    Ok(copies)
}

/// Removes unfinished files, and manifests whose copy is missing. Returns how many were removed.
/// No backup may be under way in the folder.
pub(crate) fn remove_unfinished(folder: &Path) -> io::Result<usize> {
    let copies = files_of(folder, Kind::Copy)?;
    let described = BTreeSet::from_iter(copies.iter().map(|it| manifest_beside(it)));
    let mut lone = files_of(folder, Kind::Manifest)?;
    lone.retain(|it| !described.contains(it));
    let unfinished = files_of(folder, Kind::Unfinished)?.into_iter().chain(lone);
    let mut removed = 0;
    for path in unfinished {
        removed += usize::from(files::remove_own(&path)?);
    }
    Ok(removed)
}

/// Lists the files of one kind; a folder that does not exist has none.
fn files_of(folder: &Path, kind: Kind) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if Kind::of(&entry.file_name()) == Some(kind) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const TIME: &str = "hallmark-20261122T031500Z";

    fn names(folder: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(folder).expect("readable");
        let names = entries.map(|it| it.expect("readable").file_name());
        names.map(|it| it.into_string().expect("text")).collect()
    }

    #[test]
    fn only_files_of_interrupted_backups_are_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let later = "hallmark-20261123T031500Z";
        let kept = [
            format!("{TIME}.db"),
            format!("{TIME}.json"),
            "hallmark-today.partial".into(),
            "hallmark-2026112xT031500Z.json".into(),
            "notes.json".into(),
            "copy.partial".into(),
            "hallmark-20261124T031500Z.txt".into(),
            "hallmark-20261125T031500Z.partial".into(),
            "hallmark-20261126T031500Z.partial".into(),
        ];
        for name in &kept[..7] {
            fs::write(folder.join(name), "x").expect("writable");
        }
        symlink(folder.join(&kept[0]), folder.join(&kept[7])).expect("a link");
        fs::create_dir(folder.join(&kept[8])).expect("a folder");
        for extension in ["partial", "partial-journal", "json", "json.new"] {
            fs::write(folder.join(format!("{later}.{extension}")), "x").expect("writable");
        }
        assert_eq!(remove_unfinished(folder).expect("removed"), 4);
        assert_eq!(names(folder), BTreeSet::from(kept));
        let copies = backups(folder).expect("listed");
        assert_eq!(copies, [folder.join(format!("{TIME}.db"))]);
        assert_eq!(remove_unfinished(&folder.join("absent")).expect("none"), 0);
    }
}

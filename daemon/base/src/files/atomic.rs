//! Replaces files atomically: after a crash, a file has its old or its new content.

use crate::files;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub use crate::files::sync_folder;

/// Replaces the file at `path`. A reader sees the old or the new content, even after a power cut.
/// The umask does not change `mode`, and the file never has a wider one.
pub fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let unfinished = temporary_path(path);
    remove(&unfinished)?;
    let mut file = files::create_new(&unfinished, mode)?;
    file.write_all(content)?;
    file.sync_all()?;
    files::rename(&unfinished, path)?;
    sync_folder(path)
}

/// Returns the path at which a new file is written before it replaces the file at `path`.
pub fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// Removes a file if it exists. The error names the file.
pub fn remove(path: &Path) -> io::Result<()> {
    files::remove(path).map_err(|error| {
        let message = format!("cannot remove {}: {error}", path.display());
        io::Error::new(error.kind(), message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_replaced_whole_and_the_rest_of_a_crash_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pin");
        fs::write(temporary_path(&path), "half of an earl").expect("writable");
        for content in ["first", "second"] {
            write(&path, content.as_bytes(), 0o600).expect("written");
            assert_eq!(fs::read_to_string(&path).expect("readable"), content);
        }
        let mode = fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let names = fs::read_dir(folder.path()).expect("readable").count();
        assert_eq!(names, 1);
        remove(&path).expect("removed");
        remove(&path).expect("nothing to remove");
    }
}

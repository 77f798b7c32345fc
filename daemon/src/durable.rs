//! Files that a crash leaves either as they were or complete.

use crate::files;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub use crate::files::sync_folder;

/// Puts a file in place: a reader sees the old one or the new one, also after a power cut. `mode` is
/// exact, whatever the umask, from the first moment on or less.
pub fn put(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let unfinished = beside(path);
    remove(&unfinished)?;
    let mut file = files::create_new(&unfinished, mode)?;
    file.write_all(content)?;
    file.sync_all()?;
    files::rename(&unfinished, path)?;
    sync_folder(path)
}

/// Where a new file waits until it is complete.
pub fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// Removes a file that may not be there; the error names it.
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
        fs::write(beside(&path), "half of an earl").expect("writable");
        for content in ["first", "second"] {
            put(&path, content.as_bytes(), 0o600).expect("written");
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

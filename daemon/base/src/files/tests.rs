//! Tests that modes are exact, links are refused at names of ours, and no call waits for a FIFO.

use super::*;
use rustix::fs::{CWD, mkfifoat};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_new_file_has_exactly_its_mode_and_an_older_one_is_restricted() {
    let folder = folder();
    let path = folder.path().join("new");
    create_new(&path, 0o666).unwrap();
    assert_eq!(mode(&path), 0o666);
    make_private(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    let error = create_new(&path, 0o600).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    restrict(&folder.path().join("absent")).unwrap();
}

#[test]
fn folders_are_made_with_exactly_their_mode_and_one_that_is_there_stays() {
    let folder = folder();
    let path = folder.path().join("a/b");
    make_folder(&path, 0o711).unwrap();
    assert_eq!(mode(&path), 0o711);
    assert_eq!(mode(&folder.path().join("a")), 0o711);
    make_folder(&path, 0o700).unwrap();
    assert_eq!(mode(&path), 0o711);
    fs::write(path.join("file"), "").unwrap();
    assert!(make_folder(&path.join("file"), 0o700).is_err());
}

#[test]
fn a_link_or_a_fifo_at_a_name_of_ours_is_an_error_and_its_target_stays() {
    let folder = folder();
    let target = folder.path().join("target");
    fs::write(&target, "content").unwrap();
    let [link, dangling, fifo] = ["link", "dangling", "fifo"].map(|it| folder.path().join(it));
    symlink(&target, &link).unwrap();
    symlink(folder.path().join("absent"), &dangling).unwrap();
    mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
    for planted in [&link, &dangling, &fifo] {
        for error in [
            open_ours(planted).map(drop).unwrap_err(),
            open_lock(planted).map(drop).unwrap_err(),
            create_new(planted, 0o600).map(drop).unwrap_err(),
            make_private(planted).unwrap_err(),
            read_ours(planted, 100).map(drop).unwrap_err(),
            read(&fifo, 100).map(drop).unwrap_err(),
        ] {
            assert_ne!(error.kind(), ErrorKind::NotFound, "{error}");
        }
    }
    let error = open_lock(&link).unwrap_err().to_string();
    assert!(
        error.contains("symbolic link") && error.contains("remove it"),
        "{error}"
    );
    assert_eq!(fs::read_to_string(&target).unwrap(), "content");
    assert!(!folder.path().join("absent").exists());
    // An operator may use a link.
    assert_eq!(read(&link, 100).unwrap(), b"content");
    write(&link, b"other").unwrap();
    assert_eq!(fs::read_to_string(&target).unwrap(), "other");
    // The name becomes a file, and the target of the link stays.
    crate::files::atomic::write(&link, b"ours", 0o600).unwrap();
    assert!(!fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&target).unwrap(), "other");
}

#[test]
fn a_file_that_is_too_long_is_an_error() {
    let folder = folder();
    let path = folder.path().join("long");
    fs::write(&path, "12345").unwrap();
    assert_eq!(read(&path, 5).unwrap(), b"12345");
    assert!(
        read(&path, 4)
            .unwrap_err()
            .to_string()
            .contains("more than 4")
    );
}

//! Checks the path of a Unix socket before it is used.
//!
//! `sockaddr_un` holds 108 bytes with the final NUL (unix(7)). The standard library names the C
//! constant when a path is longer, and names neither the path nor the setting.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Longest path of a socket, in bytes.
pub const BYTES_MAX: usize = 107;

/// The reason why a path cannot be a socket's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SocketPathInvalid {
    /// The path is too long for Linux.
    #[error(
        "the socket path {} has {bytes} bytes and Linux allows {BYTES_MAX}; shorten {setting}",
        path.display()
    )]
    TooLong {
        path: PathBuf,
        /// The length in bytes.
        bytes: usize,
        /// The setting that the operator can change.
        setting: String,
    },
    /// The path is empty or has a zero byte.
    #[error("{path:?} is not a path for a socket; correct {setting}")]
    NoPath {
        path: PathBuf,
        /// The setting that the operator can change.
        setting: String,
    },
}

/// Fails for a path that no socket can have. `setting` names the setting that the operator can
/// change.
pub fn check(path: &Path, setting: impl Into<String>) -> Result<(), SocketPathInvalid> {
    let bytes = path.as_os_str().as_bytes();
    let setting = setting.into();
    if bytes.is_empty() || bytes.contains(&0) {
        let path = path.to_owned();
        return Err(SocketPathInvalid::NoPath { path, setting });
    }
    if bytes.len() > BYTES_MAX {
        return Err(SocketPathInvalid::TooLong {
            path: path.to_owned(),
            bytes: bytes.len(),
            setting,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn the_limit_is_the_kernels() {
        let folder = tempfile::tempdir().expect("a folder");
        let room = BYTES_MAX - folder.path().as_os_str().len() - 1;
        for (length, fits) in [(room - 1, true), (room, true), (room + 1, false)] {
            let path = folder.path().join("s".repeat(length));
            assert_eq!(check(&path, "it").is_ok(), fits, "{length}");
            assert_eq!(UnixListener::bind(&path).is_ok(), fits, "{length}");
        }
    }

    #[test]
    fn a_refusal_names_path_length_and_setting() {
        let refusal = check(Path::new(&"/x".repeat(60)), "[listen] admin").expect_err("too long");
        let text = refusal.to_string();
        assert!(
            text.contains("has 120 bytes and Linux allows 107"),
            "{text}"
        );
        assert!(text.contains("shorten [listen] admin"), "{text}");
        for path in ["", "/run/a\0b"] {
            assert!(check(Path::new(path), "it").is_err(), "{path:?}");
        }
    }
}

//! Reads the rules of a worker from the configuration file, and reads them again when it changes.
//!
//! The file is read again only before something would be refused. So a profile that was added is
//! valid at once, without a restart; a limit that was made tighter is valid after the next start.

use hallmark_base::files;
use hallmark_protocol::limits::SigningRules;
use hallmark_protocol::token_file::TokenFile;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Distinguishes states of a file: device, inode, size and the time of its last change.
type Stamp = (u64, u64, u64, i64, i64);

/// The rules, and the file that they are from.
pub(crate) struct Rules {
    /// The configuration file and the name of the token; `None` in tests.
    file: Option<(PathBuf, String)>,
    read: Mutex<(Option<Stamp>, Arc<SigningRules>)>,
}

impl Rules {
    /// Takes the rules that were read from `file` for the token `name`.
    pub(crate) fn of_file(file: PathBuf, name: &str, rules: SigningRules) -> Self {
        let stamp = stamp(&file);
        Self {
            file: Some((file, name.to_owned())),
            read: Mutex::new((stamp, Arc::new(rules))),
        }
    }

    #[cfg(any(test, debug_assertions))]
    pub(crate) fn fixed(rules: SigningRules) -> Self {
        Self {
            file: None,
            read: Mutex::new((None, Arc::new(rules))),
        }
    }

    pub(super) fn current(&self) -> Arc<SigningRules> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&read.1)
    }

    /// Reads the file again if it is another one now; `None` if it is not, or cannot be used.
    pub(super) fn changed(&self) -> Option<Arc<SigningRules>> {
        let (path, name) = self.file.as_ref()?;
        let now = stamp(path)?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.0 == Some(now) {
            return None;
        }
        let rules = TokenFile::read(path).and_then(|file| file.rules(name));
        // A file that cannot be used is not read again until it changes.
        read.0 = Some(now);
        read.1 = Arc::new(rules.ok()?);
        Some(Arc::clone(&read.1))
    }
}

fn stamp(path: &std::path::Path) -> Option<Stamp> {
    let it = files::open(path).ok()?.metadata().ok()?;
    Some((it.dev(), it.ino(), it.size(), it.mtime(), it.mtime_nsec()))
}
